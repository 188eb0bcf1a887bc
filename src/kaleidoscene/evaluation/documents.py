"""Reports on disk: JSON of a named schema in a stated version, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_json
from kaleidoscene.serialisation import from_plain

T = TypeVar("T")


def schema_of(path: Path) -> str:
    """The schema that a JSON file names, empty if it names none."""
    return _schema(read_json(path))


def _schema(document: object) -> str:
    """Without the name that reports of earlier versions have before it."""
    return str(document.get("schema", "")).rpartition("-")[2] if isinstance(document, dict) else ""


def read_document(cls: type[T], path: Path, *, schema: str, version: int, verb: str) -> T:
    """Read a report.

    Args:
        cls: Its dataclass, with the fields ``schema`` and ``version``.
        path: The file.
        schema: That it must name.
        version: Of the schema, that this package reads.
        verb: Of the command line that writes such files, for messages.

    Raises:
        KaleidosceneError: It is no such report, of another version, or not of the form of ``cls``.
    """
    document = read_json(path)
    if _schema(document) != schema:
        raise KaleidosceneError(f"{path}: not a report of kaleidoscene {verb}.")
    if document.get("version") != version:
        raise KaleidosceneError(
            f"{path}: a report of schema version {document.get('version')!r}, this package reads {version}; "
            f"run kaleidoscene {verb} again."
        )
    return from_plain(cls, {**document, "schema": schema}, str(path))
