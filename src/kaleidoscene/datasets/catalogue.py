"""What a run has to know of the shards of a folder before it reads any: kept in one file, so that starting is quick.

Reading the first lines of the indices of millions of clips takes a minute, and whole indices of the first version an
hour. The catalogue has a line for each shard, which holds as long as size and time of its index are what they were.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kaleidoscene.errors import KaleidosceneError

CATALOGUE = "catalogue.json"
INDEX = ".index.json"
_VERSION = 1


@dataclass(frozen=True)
class ShardSummary:
    """Of one shard.

    Attributes:
        name: Of its tar file.
        scenes: How many there are.
        fewest_views: Of the scene that has the fewest.
        end: Bytes that its index speaks of.
        digest: Changes with its name, scenes and contents.
    """

    name: str
    scenes: int
    fewest_views: int
    end: int
    digest: str

    @classmethod
    def of(cls, name: str, keys: list[str], views: list[int], end: int, sha256: str | None) -> ShardSummary:
        """The summary of an index.

        Args:
            name: Of the tar file.
            keys: Of its scenes.
            views: How many each has.
            end: Bytes that the index speaks of.
            sha256: Of the tar file; None where the index does not say it.
        """
        said = json.dumps([name, keys, views, end, sha256])
        return cls(name, len(keys), min(views), end, hashlib.sha256(said.encode()).hexdigest())


def summarise(
    folder: Path, read: Callable[[Path], ShardSummary], remote: Mapping[str, int] | None = None
) -> list[ShardSummary]:
    """Summaries of all whole shards of a folder, sorted by name.

    Those that the catalogue does not have, or whose index has changed since, are read, and the catalogue is written
    anew where the folder can be written to.

    Args:
        folder: Of the shards.
        read: Makes the summary of an index.
        remote: Bytes of all files where they really lie, if ``folder`` has copies of some.

    Raises:
        KaleidosceneError: There are no shards, or one is missing or truncated.
    """
    found = _files(folder)
    sizes = {name: stat.st_size for name, stat in found.items()} if remote is None else remote
    names = sorted(name for name in sizes if name.endswith(INDEX))
    if not names:
        raise KaleidosceneError(f"{folder}: no shards here (expected NAME.tar with NAME{INDEX}).")
    known, kept, summaries = _read(folder / CATALOGUE), {}, []
    for name in names:
        stamp = [found[name].st_size, found[name].st_mtime_ns]
        entry = known.get(name)
        summary = entry[1] if entry is not None and entry[0] == stamp else read(folder / name)
        if sizes.get(summary.name, -1) < summary.end:
            raise KaleidosceneError(
                f"{folder / summary.name}: the shard is missing or truncated (its index needs {summary.end} bytes)."
            )
        kept[name] = (stamp, summary)
        summaries.append(summary)
    if kept != known:
        _write(folder / CATALOGUE, kept)
    return summaries


def _files(folder: Path) -> dict[str, os.stat_result]:
    """Indices and tar files of a folder by name; links that lead nowhere are left out."""
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith((INDEX, ".tar")):
                    with suppress(FileNotFoundError):
                        found[entry.name] = entry.stat()
    except OSError as error:
        raise KaleidosceneError(f"{folder}: no folder of shards that can be read ({error.strerror}).") from error
    return found


def _read(path: Path) -> dict[str, tuple[list[int], ShardSummary]]:
    """By name of the index: its size and time then, and the summary. Nothing of a catalogue that cannot be used."""
    try:
        document: Any = json.loads(path.read_text())
        if document["version"] != _VERSION:
            return {}
        return {name: (stamp, ShardSummary(**summary)) for name, (stamp, summary) in document["shards"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # all of it stands in the indices


def _write(path: Path, shards: dict[str, tuple[list[int], ShardSummary]]) -> None:
    document = {"version": _VERSION, "shards": {name: [stamp, asdict(s)] for name, (stamp, s) in shards.items()}}
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")  # several processes may start at once
    try:
        partial.write_text(json.dumps(document))
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):  # on a file system that is read only this fails, too
            partial.unlink(missing_ok=True)
        warnings.warn(f"{path} cannot be written ({error.strerror}): every start reads all indices.", stacklevel=2)
