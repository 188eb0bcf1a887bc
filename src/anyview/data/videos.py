"""Frames of video files, by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import Float
from torch import Tensor

from anyview.errors import AnyViewError

SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    if not path.is_file():
        raise AnyViewError(f"{path}: no such video.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise AnyViewError(f"{path}: there is no video in this file.")
            yield container
    except (FFmpegError, UnicodeError, ValueError) as error:
        if isinstance(error, AnyViewError):
            raise
        raise AnyViewError(f"{path}: not a readable video ({error}).") from error


@dataclass(frozen=True)
class VideoTiming:
    """When the frames of a video are shown.

    Attributes:
        image_size: ``(height, width)``.
        times: Seconds since the first frame, one for every frame that decodes.
    """

    image_size: tuple[int, int]
    times: tuple[float, ...]


def video_timing(path: Path) -> VideoTiming:
    """Decode a video once for the times of its frames (variable frame rates are kept).

    Raises:
        AnyViewError: It is missing, damaged, or holds no frame.
    """
    times: list[float] = []
    size = (0, 0)
    with _opened(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            times.append(float(frame.time) if frame.time is not None else float(number))
            size = (frame.height, frame.width)
    if not times:
        raise AnyViewError(f"{path}: the video has no frames.")
    return VideoTiming(size, tuple(time - times[0] for time in times))


def nearest_frame(path: Path, timing: VideoTiming, time: float) -> int:
    """Number of the frame that is shown at ``time`` seconds.

    Raises:
        AnyViewError: No frame is within half a frame of it.
    """
    times = torch.tensor(timing.times, dtype=torch.float64)
    distance, place = (times - time).abs().min(0)
    spacing = float(times.diff().median()) if len(times) > 1 else 1.0
    if not float(distance) <= 0.51 * spacing:
        raise AnyViewError(f"{path}: no frame at {time:.3f} s, the last one is at {float(times[-1]):.3f} s.")
    return int(place)


def read_video_frames(wanted: Iterable[tuple[Path, int | None]]) -> dict[tuple[Path, int], Float[Tensor, "3 h w"]]:
    """Frames of any number of videos, RGB in [0, 1]; entries without a number are passed over.

    Raises:
        AnyViewError: A video is missing or damaged, or ends before a frame.
    """
    numbers: dict[Path, set[int]] = {}
    for path, number in wanted:
        if number is not None:
            numbers.setdefault(path, set()).add(number)
    found: dict[tuple[Path, int], Tensor] = {}
    for path, chosen in numbers.items():
        last = max(chosen)
        with _opened(path) as container:
            for number, frame in enumerate(container.decode(video=0)):
                if number in chosen:
                    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
                    found[path, number] = pixels.movedim(-1, 0).float() / 255
                if number == last:
                    break
        if (path, last) not in found:
            raise AnyViewError(f"{path}: the video ends before frame {last}.")
    return found
