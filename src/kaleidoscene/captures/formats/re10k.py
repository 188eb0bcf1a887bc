"""RealEstate10K camera files, with frames from a folder of images or from the video.

The first line is the address of the video; every other has a timestamp (microseconds), focal lengths and principal
point as shares of width and height, two zeros, and a 3x4 ``cam_from_world`` in OpenCV axes. Frames are looked for
beside ``NAME.txt``: a folder ``NAME`` with ``TIMESTAMP.png`` or ``.jpg``, or a video ``NAME.mp4``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_text
from kaleidoscene.geometry.poses import invert
from kaleidoscene.images.files import SUFFIXES, image_size
from kaleidoscene.images.videos import SUFFIXES as VIDEO_SUFFIXES
from kaleidoscene.images.videos import nearest_frame, video_timing

EXPECTS = "NAME.txt with a folder NAME/ of TIMESTAMP.png, or NAME.mp4 (RealEstate10K)"
_NOMINAL_SIZE = (720, 1280)


def find(path: Path) -> Path | None:
    """The camera file if ``path`` is one, or the folder of the frames of one, or holds a single one."""
    if path.is_file():
        return path if path.suffix == ".txt" and _looks_right(path) else None
    beside = path.parent / f"{path.name}.txt"
    if beside.is_file() and _looks_right(beside):
        return beside
    files = [file for file in sorted(path.glob("*.txt")) if _looks_right(file)]
    return files[0] if len(files) == 1 else None


def camera_files(folder: Path) -> list[Path]:
    """All ``.txt`` files of a folder where at least one has cameras, sorted: the others must be bad ones."""
    files = sorted(folder.glob("*.txt"))
    return files if any(_looks_right(file) for file in files) else []


def _looks_right(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            first, second = file.readline(500), file.readline(2000)
    except OSError:
        return False
    return first.startswith(b"http") and len(second.split()) == 19


def read(path: Path) -> Capture:
    """Read a camera file and find its frames; without frames the capture has cameras alone.

    Raises:
        KaleidosceneError: A line is not 19 numbers, or a frame is not in the folder or the video.
    """
    lines = [line.split() for line in read_text(path).splitlines()[1:] if line.strip()]
    rows = [_numbers(path, number, line) for number, line in enumerate(lines)]
    folder = path.with_suffix("")
    video = next((file for suffix in VIDEO_SUFFIXES if (file := path.with_suffix(suffix)).is_file()), None)
    notes: tuple[str, ...] = ()
    if folder.is_dir():
        places = [(_image(folder, timestamp), None) for timestamp, _ in rows]
        sizes = [image_size(image) if image.is_file() else _NOMINAL_SIZE for image, _ in places]
    elif video is not None:
        timing = video_timing(video)
        places = [(video, nearest_frame(video, timing, timestamp / 1e6)) for timestamp, _ in rows]
        sizes = [timing.image_size] * len(rows)
    else:
        notes = (f"cameras alone: there is neither a folder {folder.name}/ nor a video {folder.name}.mp4",)
        places = [(folder / f"{timestamp}.png", None) for timestamp, _ in rows]
        sizes = [_NOMINAL_SIZE] * len(rows)
    frames = tuple(
        Frame(image, size, _pose(values), _intrinsics(values, size), time=timestamp / 1e6, position=position)
        for (timestamp, values), (image, position), size in zip(rows, places, sizes, strict=True)
    )
    return Capture(path.stem, "re10k", path, frames, notes=notes)


def _numbers(path: Path, number: int, words: list[str]) -> tuple[int, Tensor]:
    try:
        timestamp, values = int(words[0]), torch.tensor([float(word) for word in words[1:]], dtype=torch.float64)
    except (ValueError, IndexError, OverflowError) as error:
        raise KaleidosceneError(f"{path}: line {number + 2} is not a timestamp and 18 numbers ({error}).") from error
    if len(values) != 18 or timestamp < 0 or timestamp > 1e15:
        raise KaleidosceneError(f"{path}: line {number + 2} is not a timestamp and 18 numbers (it has {len(words)}).")
    return timestamp, values


def _image(folder: Path, timestamp: int) -> Path:
    found = (path for suffix in SUFFIXES if (path := folder / f"{timestamp}{suffix}").is_file())
    return next(found, folder / f"{timestamp}.png")


def _pose(values: Tensor) -> Tensor:
    cam_from_world = torch.eye(4, dtype=torch.float64)
    cam_from_world[:3] = values[6:].view(3, 4)
    return invert(cam_from_world)


def _intrinsics(values: Tensor, size: tuple[int, int]) -> Tensor:
    h, w = size
    fx, fy, cx, cy = values[:4].tolist()
    return torch.tensor([[fx * w, 0, cx * w], [0, fy * h, cy * h], [0, 0, 1]], dtype=torch.float64)
