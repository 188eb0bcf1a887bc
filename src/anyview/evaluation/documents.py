"""Reports on disk: JSON of a named schema in a stated version, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from anyview.data.files import read_json
from anyview.errors import AnyViewError
from anyview.serialisation import from_plain

T = TypeVar("T")


def schema_of(path: Path) -> str:
    """The schema that a JSON file names, empty if it names none."""
    document = read_json(path)
    return str(document.get("schema", "")) if isinstance(document, dict) else ""


def read_document(cls: type[T], path: Path, *, schema: str, version: int, verb: str) -> T:
    """Read a report.

    Args:
        cls: Its dataclass, with the fields ``schema`` and ``version``.
        path: The file.
        schema: That it must name.
        version: Of the schema, that this package reads.
        verb: Of the command line that writes such files, for messages.

    Raises:
        AnyViewError: It is no such report, of another version, or not of the form of ``cls``.
    """
    document = read_json(path)
    if not isinstance(document, dict) or document.get("schema") != schema:
        raise AnyViewError(f"{path}: not a report of anyview {verb}.")
    if document.get("version") != version:
        raise AnyViewError(
            f"{path}: a report of schema version {document.get('version')!r}, this package reads {version}; "
            f"run anyview {verb} again."
        )
    return from_plain(cls, document, str(path))
