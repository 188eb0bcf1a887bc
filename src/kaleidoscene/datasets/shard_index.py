"""The index of a shard: its scenes, and where in the tar file the members of each start.

The first line tells what a run has to know of all scenes, and where the line of each one is. Among millions of clips
nearly every draw falls into a shard that was not read before: of its index no more is parsed than the draw needs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaleidoscene.datasets.catalogue import INDEX, ShardSummary
from kaleidoscene.errors import KaleidosceneError

# The second version has no CRC of members, the first one line for all scenes.
FORMAT_VERSION = 3
# The description of a scene, the first of its members.
SCENE = "scene.json"

Place = tuple[int, int, int | None]
"""Start, size and CRC-32 of a member of a tar file; the CRC is None where an index does not have it."""
Places = dict[str, Place]
"""The members of one scene, by what follows its name and a dot."""


@dataclass(frozen=True)
class Stock:
    """What is stored of a scene, without reading it."""

    views: int
    is_video: bool


class ShardIndex:
    """An index as it lies on disk.

    Attributes:
        keys: Names of the scenes, in their order.
        stock: What is stored of each.
        end: Bytes of the tar file that the index speaks of.
        sha256: Of the tar file; None in indices that do not say it.

    Raises:
        KaleidosceneError: It cannot be understood, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                header: dict[str, Any] = json.loads(file.readline())
                self._start = file.tell()
            version = header.get("format_version")
        except (ValueError, AttributeError) as error:
            raise KaleidosceneError(f"{path}: not a readable index ({error}).") from error
        if version not in (1, 2, FORMAT_VERSION):
            raise KaleidosceneError(f"{path}: shard format {version}, expected {FORMAT_VERSION}.")
        try:
            self.keys: list[str] = header["keys"]
            # The first version had one line for all.
            self._members = _by_scene(self.keys, _named(header["members"])) if version == 1 else None
            self._lines: list[int] = header.get("lines", [])
            views = header.get("views") or [_count(self.members(n)) for n in range(len(self.keys))]
            videos = header.get("is_video") or [False] * len(self.keys)
            self.stock = [Stock(count, video) for count, video in zip(views, videos, strict=True)]
            self.end: int = header["end"] if self._members is None else _end(self._members)
            length = header["length"] if self._members is None else 0
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise KaleidosceneError(f"{path}: not a readable index ({error!r}).") from error
        if path.stat().st_size < self._start + length:
            raise KaleidosceneError(f"{path}: not a readable index (it is truncated).")
        self.sha256: str | None = header.get("sha256")

    def members(self, scene: int) -> Places:
        """Where the members of one scene are.

        Raises:
            ValueError: Its line is damaged.
        """
        if self._members is not None:
            return self._members[scene]
        with self.path.open("rb") as file:
            file.seek(self._start + self._lines[scene])
            line = file.readline()
        try:
            return dict(_named(json.loads(line)))
        except (TypeError, AttributeError) as error:
            raise ValueError(f"{self.path}: line of scene {scene}: {error}") from error

    def summary(self) -> ShardSummary:
        """What the catalogue keeps of it.

        Raises:
            KaleidosceneError: There are no scenes.
        """
        if not self.keys or not self.end:
            raise KaleidosceneError(f"{self.path}: an index without scenes.")
        tar = self.path.name.removesuffix(INDEX) + ".tar"
        return ShardSummary.of(tar, self.keys, [stock.views for stock in self.stock], self.end, self.sha256)


def write_index(path: Path, stock: dict[str, Stock], members: Iterable[tuple[str, Place]], sha256: str) -> None:
    """Write an index.

    Args:
        path: The file.
        stock: What is stored, by name of the scene.
        members: Name and place of everything in the tar file, in its order.
        sha256: Of the tar file.
    """
    scenes = _by_scene(list(stock), members)
    lines = [json.dumps(places) + "\n" for places in scenes]
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line.encode()))
    header = {
        "format_version": FORMAT_VERSION,
        "sha256": sha256,
        "end": _end(scenes),
        "keys": list(stock),
        "views": [one.views for one in stock.values()],
        "is_video": [one.is_video for one in stock.values()],
        "lines": offsets[:-1],
        "length": offsets[-1],
    }
    path.write_text("".join([json.dumps(header) + "\n", *lines]))


def _named(members: dict[str, list[int]]) -> Iterator[tuple[str, Place]]:
    for name, (start, size, *crc) in members.items():
        yield name, (int(start), int(size), int(crc[0]) if crc else None)


def _by_scene(keys: list[str], members: Iterable[tuple[str, Place]]) -> list[Places]:
    """Members by scene: each scene is a run of them that its description begins."""
    scenes: list[Places] = []
    for name, place in members:
        if len(scenes) < len(keys) and name == f"{keys[len(scenes)]}.{SCENE}":
            scenes.append({})
        scenes[-1][name.removeprefix(f"{keys[len(scenes) - 1]}.")] = place
    return scenes


def _count(places: Places) -> int:
    """Views of a scene, from the names of its members (the first indices did not say it)."""
    return sum(f"{view:03d}.png" in places for view in range(len(places)))


def _end(scenes: list[Places]) -> int:
    return max((start + size for places in scenes for start, size, _ in places.values()), default=0)
