"""Whether the files of a checkpoint are what was written: SHA-256 of each in ``checksums.json``."""

from __future__ import annotations

import json
from pathlib import Path

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import file_sha256
from kaleidoscene.training.world import World

CHECKSUMS = "checksums.json"


def verify(folder: Path, world: World) -> None:
    """Compare the files of a checkpoint with their checksums; the work is shared among the processes.

    Raises:
        KaleidosceneError: A file is missing, truncated or changed; all processes raise it.
    """
    try:
        _verify_share(folder, world)
        found = None
    except KaleidosceneError as error:
        found = str(error)
    if said := next((text for text in world.gather(found) if text is not None), None):
        raise KaleidosceneError(said)


def _verify_share(folder: Path, world: World) -> None:
    sums = _checksums(folder)
    for name in sorted(sums)[world.rank :: world.size]:
        _verify_file(folder / name, sums[name])


def verify_published(folder: Path) -> None:
    """Compare what others read of a checkpoint, the averaged weights and their description, with the checksums.

    A folder without checksums, such as one of exported weights, passes.

    Raises:
        KaleidosceneError: A file is missing, truncated or changed.
    """
    if not (folder / CHECKSUMS).exists():
        return
    sums = _checksums(folder)
    for name in ("config.json", "model.safetensors"):
        _verify_file(folder / name, sums.get(name, ""))


def _checksums(folder: Path) -> dict[str, str]:
    try:
        return dict(json.loads((folder / CHECKSUMS).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise KaleidosceneError(f"{folder / CHECKSUMS}: not readable ({error}).") from error


def _verify_file(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise KaleidosceneError(f"{path}: the file is missing; the checkpoint cannot be used.")
    if file_sha256(path) != sha256:
        raise KaleidosceneError(f"{path}: damaged or changed since it was written (its SHA-256 differs).")
