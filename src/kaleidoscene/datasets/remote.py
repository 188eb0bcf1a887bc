"""Shards that lie elsewhere (``s3://``, ``gs://``, ``hf://``, whatever fsspec reaches), with a bounded copy here.

Indices and notes are fetched when a folder is opened, whole shards when a scene of theirs is drawn; those that were not
used for longest make room. Processes of one machine share a cache.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kaleidoscene.datasets.catalogue import INDEX
from kaleidoscene.errors import KaleidosceneError

T = TypeVar("T")
_TRIES, _PAUSE = 4, 0.5
# Beside its shards a folder has notes of some kilobytes; what is larger is none of them.
_LARGEST_NOTE = 2**24


def is_remote(folder: Path | str) -> bool:
    """Whether a name is an address and no path."""
    return isinstance(folder, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", folder) is not None


@dataclass(frozen=True, kw_only=True)
class ShardCache:
    """Where copies of remote shards lie, and how much room they may take."""

    folder: Path = Path.home() / ".cache" / "kaleidoscene" / "shards"
    """Folder of the copies, on a fast disk of this machine."""
    gigabytes: float = 100.0
    """Largest size of all copies together (10^9 bytes); a single shard that is larger is kept all the same."""

    def __post_init__(self) -> None:
        if self.gigabytes <= 0:
            raise ValueError(f"gigabytes must be above 0, got {self.gigabytes}.")


class RemoteFolder:
    """A folder of shards behind an address.

    Args:
        address: Such as ``s3://bucket/shards``; credentials are those of the store's own settings.
        cache: Where copies lie.

    Raises:
        KaleidosceneError: fsspec or its package for this kind of address is missing, or there is no such folder.
    """

    def __init__(self, address: str, cache: ShardCache) -> None:
        self.address, self.cache = address.rstrip("/"), cache
        readable = re.sub(r"[^A-Za-z0-9.-]+", "_", self.address)[-80:]
        digest = hashlib.sha256(self.address.encode()).hexdigest()[:12]
        self.local = cache.folder / f"{readable}-{digest}"
        self.local.mkdir(parents=True, exist_ok=True)
        listed = self._listing()
        self.sizes = {name: int(info["size"]) for name, info in listed.items()}
        """Bytes of the files by name."""
        self._stamps = {name: _stamp(info) for name, info in listed.items()}
        for name, size in self.sizes.items():
            if name.endswith(INDEX) or (not name.endswith((".tar", ".partial")) and size <= _LARGEST_NOTE):
                self._fetch_if_changed(name)

    def tar(self, name: str) -> Path:
        """A copy of a shard, fetched if it is not here, and the last that will make room for others.

        Raises:
            KaleidosceneError: The store gives it neither at once nor after some tries.
        """
        path = self._fetch_if_changed(name)
        with suppress(FileNotFoundError):  # another process may have made room a moment ago
            os.utime(path)
        return path

    def _fetch_if_changed(self, name: str) -> Path:
        path, stamp = self.local / name, self.local / f".{name}.stamp"
        with suppress(OSError):
            if path.stat().st_size == self.sizes[name] and stamp.read_text() == self._stamps[name]:
                return path
        if name.endswith(".tar"):
            self._make_room(self.sizes[name], path)
        partial = self.local / f".{name}.{os.getpid()}.partial"
        try:
            self._persist(lambda: self._download(name, partial), name)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        stamp.write_text(self._stamps[name])
        return path

    def _download(self, name: str, partial: Path) -> None:
        self._files().get_file(f"{self._root()}/{name}", str(partial))
        if (got := partial.stat().st_size) != self.sizes[name]:
            raise OSError(f"{got} bytes came of {self.sizes[name]}")

    def _make_room(self, needed: int, keep: Path) -> None:
        """Remove the copies that were not used for longest, of all folders of the cache."""
        found = []
        for path in self.cache.folder.glob("*/*.tar"):
            with suppress(FileNotFoundError):
                if path != keep:
                    found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
        taken = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if taken + needed <= self.cache.gigabytes * 1e9:
                return
            path.unlink(missing_ok=True)  # those who are reading it go on doing so
            taken -= size

    def _listing(self) -> dict[str, dict[str, Any]]:
        def listed() -> list[dict[str, Any]]:
            return self._files().ls(self._root(), detail=True, refresh=True)

        try:
            entries = self._persist(listed, "its list of files")
        except FileNotFoundError as error:
            raise KaleidosceneError(f"{self.address}: no such folder.") from error
        return {Path(entry["name"]).name: entry for entry in entries if entry["type"] == "file"}

    def _persist(self, attempt: Callable[[], T], what: str) -> T:
        """The result of something that may fail for a moment."""
        for number in range(_TRIES):
            try:
                return attempt()
            except FileNotFoundError:
                raise
            except Exception as error:  # every store has errors of its own
                if number + 1 == _TRIES:
                    raise KaleidosceneError(
                        f"{self.address}: {what} cannot be read, tried {_TRIES} times ({error})."
                    ) from error
                time.sleep(_PAUSE * 2**number)
        raise AssertionError

    def _files(self) -> Any:
        """The file system, made anew in every process: connections do not survive a fork."""
        return _file_system(self.address)[0]

    def _root(self) -> str:
        return _file_system(self.address)[1]


def _stamp(info: dict[str, Any]) -> str:
    """Changes when a file is written anew, as far as its store tells."""
    told = (info.get(key) for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"))
    return str([info["size"], *(str(value) for value in told if value is not None)])


def _file_system(address: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError(f"{address}: needs fsspec: pip install 'kaleidoscene[remote]'.") from error
    try:
        return url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise KaleidosceneError(f"{address}: this kind of address cannot be read here ({error}).") from error
