"""Small files that somebody else wrote: read in full or refused with a sentence that names the file."""

from __future__ import annotations

import gzip
import json
import math
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError

_LARGEST_TEXT = 512 * 2**20
_LARGEST_ARRAYS = 256 * 2**20
_LFS = b"version https://git-lfs.github.com/spec/"


def read_bytes(path: Path, *, largest: int = _LARGEST_TEXT) -> bytes:
    """All bytes of a file.

    Raises:
        KaleidosceneError: It is missing, unreadable, empty or larger than ``largest``.
    """
    try:
        size = path.stat().st_size
        if size > largest:
            raise KaleidosceneError(
                f"{path}: {size / 2**20:.0f} MiB is more than such a file holds ({largest >> 20} MiB)."
            )
        data = path.read_bytes()
    except FileNotFoundError:
        raise KaleidosceneError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise KaleidosceneError(f"{path}: cannot be read ({_reason(error)}).") from error
    if not data:
        raise KaleidosceneError(f"{path}: the file is empty (0 bytes).")
    return data


def unreadable(path: Path, kind: str, error: Exception) -> KaleidosceneError:
    """What to say of a file that does not read: pointers of Git LFS are named as what they are.

    Args:
        path: The file.
        kind: What it should be, such as ``"image"``.
        error: What its reader said.
    """
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(_LFS)) == _LFS
    except OSError:
        is_pointer = False
    if is_pointer:
        return KaleidosceneError(f"{path}: a Git LFS pointer, not the {kind} itself; fetch it with 'git lfs pull'.")
    return KaleidosceneError(f"{path}: not a readable {kind} ({error or type(error).__name__}).")


def rerooted(root: Path, name: str) -> str | None:
    """The part of an absolute path of another machine, POSIX or Windows, below which the same file lies here.

    Args:
        root: Folder of what names the file.
        name: An absolute path.

    Returns:
        The longest of its ends that is there below ``root``, by itself or as an image; None: none is.
    """
    windows = PureWindowsPath(name)
    parts = windows.parts if windows.drive or "\\" in name else PurePosixPath(name).parts
    ends = (Path(*parts[start:]) for start in range(1, len(parts)) if ".." not in parts[start:])
    found = (end for end in ends if any((root / f"{end}{suffix}").is_file() for suffix in ("", ".png", ".jpg")))
    return next((str(end) for end in found), None)


def is_absolute(name: str) -> bool:
    """Whether a name is an absolute path, on this system or another."""
    return PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute()


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def read_text(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        KaleidosceneError: As :func:`read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KaleidosceneError(f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start}).") from error


def read_json(path: Path) -> Any:
    """A JSON file (gzipped if its name ends in gz), without duplicate keys and numbers that are not finite.

    Raises:
        KaleidosceneError: As :func:`read_text`, or it is not such JSON.
    """
    if path.suffix in (".gz", ".jgz"):
        text = _gunzip(path)
    else:
        text = read_text(path)
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise KaleidosceneError(f"{path}: not readable JSON ({error}).") from error


def _gunzip(path: Path) -> str:
    try:
        with gzip.open(path) as file:
            data = file.read(_LARGEST_TEXT + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise KaleidosceneError(f"{path}: not a readable gzip file ({_reason(error)}).") from error
    if len(data) > _LARGEST_TEXT:
        raise KaleidosceneError(f"{path}: unpacks to more than {_LARGEST_TEXT >> 20} MiB.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise KaleidosceneError(f"{path}: not UTF-8 text inside ({error.reason}).") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice!r} is there twice in one object")
    return out


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def read_npy(path: Path) -> np.ndarray:
    """A numpy array without objects.

    Raises:
        KaleidosceneError: It is missing, truncated, holds objects or claims more than the file has.
    """
    read_bytes(path, largest=_LARGEST_ARRAYS)  # missing, empty, unreadable
    try:
        # Mapped, because a header that claims terabytes is then compared with the file and not allocated.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # numpy parses the header as Python: SyntaxError, TokenError, MemoryError ...
        raise KaleidosceneError(f"{path}: not a readable array ({error}).") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an ``.npz``, none of which holds objects.

    Raises:
        KaleidosceneError: It is missing, damaged, or unpacks to more than such a file holds.
    """
    read_bytes(path, largest=_LARGEST_ARRAYS)
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(member.file_size for member in file.infolist())
        if unpacked > _LARGEST_ARRAYS:
            raise KaleidosceneError(f"{path}: unpacks to {unpacked / 2**20:.0f} MiB, cameras need far less.")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.array(arrays[name]) for name in arrays.files}
    except KaleidosceneError:
        raise
    except Exception as error:  # zipfile and numpy have many ways to say that a file is damaged
        raise KaleidosceneError(f"{path}: not a readable .npz ({str(error)[:120]}).") from error


def read_matrix(path: Path, shapes: tuple[tuple[int, int], ...]) -> Tensor:
    """Whitespace-separated numbers as a matrix, float64.

    Raises:
        KaleidosceneError: Not numbers, or not one of ``shapes``.
    """
    try:
        rows = [[float(word) for word in line.replace(",", " ").split()] for line in read_text(path).splitlines()]
    except ValueError as error:
        raise KaleidosceneError(f"{path}: not a table of numbers ({error}).") from error
    rows = [row for row in rows if row]
    if not rows or len({len(row) for row in rows}) != 1 or (len(rows), len(rows[0])) not in shapes:
        lengths = f"{len(rows)} rows of {sorted({len(row) for row in rows})}"
        raise KaleidosceneError(f"{path}: {lengths} numbers, expected {' or '.join(f'{a}x{b}' for a, b in shapes)}.")
    return torch.tensor(rows, dtype=torch.float64)


def inside(root: Path, name: str | Path, *, what: str) -> Path:
    """``root / name``, which must not lead out of ``root``: not by ``..``, not absolute, not through a link.

    Raises:
        KaleidosceneError: It does.
    """
    try:
        path = root / name
        leads_out = not path.resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError) as error:  # NUL in the name, a loop of links
        raise KaleidosceneError(f"{root}: {what} has an impossible name {str(name)[:60]!r} ({error}).") from error
    if leads_out:
        raise KaleidosceneError(f"{root}: {what} leads out of the capture folder: {name}.")
    return path


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sort key by which ``img_2`` comes before ``img_10``."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(part), "") if part.isascii() and part.isdigit() else (-1, part) for part in parts]
