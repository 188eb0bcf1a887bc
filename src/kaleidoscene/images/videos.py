"""Frames of video files, by number."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median

import av
import numpy as np
from av.container import InputContainer
from av.error import FFmpegError
from jaxtyping import UInt8

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import unreadable

SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")


@contextmanager
def _opened(path: Path) -> Iterator[InputContainer]:
    if not path.is_file():
        raise KaleidosceneError(f"{path}: no such video.")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise KaleidosceneError(f"{path}: there is no video in this file.")
            yield container
    except (FFmpegError, UnicodeError, ValueError) as error:
        if isinstance(error, KaleidosceneError):
            raise
        raise unreadable(path, "video", error) from error


@dataclass(frozen=True)
class VideoTiming:
    """When the frames of a video are shown.

    Attributes:
        image_size: ``(height, width)``, as players turn it.
        times: Seconds since the first frame, one for every frame that decodes.
    """

    image_size: tuple[int, int]
    times: tuple[float, ...]

    @cached_property
    def spacing(self) -> float:
        """Median seconds from frame to frame."""
        return median(b - a for a, b in pairwise(self.times)) if len(self.times) > 1 else 1.0


def video_timing(path: Path) -> VideoTiming:
    """Decode a video once for the times of its frames (variable frame rates are kept).

    Raises:
        KaleidosceneError: It is missing, damaged, or holds no frame.
    """
    times: list[float] = []
    size = (0, 0)
    with _opened(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            times.append(float(frame.time) if frame.time is not None else float(number))
            size = (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)
    if not times:
        raise KaleidosceneError(f"{path}: the video has no frames.")
    return VideoTiming(size, tuple(time - times[0] for time in times))


def nearest_frame(path: Path, timing: VideoTiming, time: float) -> int:
    """Number of the frame that is shown at ``time`` seconds.

    Raises:
        KaleidosceneError: No frame is within half a frame of it.
    """
    times = timing.times
    after = bisect.bisect_left(times, time)
    place = min((n for n in (after - 1, after) if 0 <= n < len(times)), key=lambda n: abs(times[n] - time))
    if not abs(times[place] - time) <= 0.51 * timing.spacing:
        raise KaleidosceneError(f"{path}: no frame at {time:.3f} s, the last one is at {times[-1]:.3f} s.")
    return place


def video_frames(path: Path, numbers: Iterable[int]) -> Iterator[tuple[int, UInt8[np.ndarray, "h w 3"]]]:
    """Some frames of a video in ascending order, one at a time, turned as players turn them.

    Raises:
        KaleidosceneError: The video is missing or damaged, or ends before a frame.
    """
    wanted = sorted(set(numbers))
    place = 0
    with _opened(path) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if place == len(wanted):
                break
            if number == wanted[place]:
                place += 1
                yield number, np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    if place < len(wanted):
        raise KaleidosceneError(f"{path}: the video ends before frame {wanted[place]}.")


def read_video_frames(
    wanted: Iterable[tuple[Path, int | None]],
) -> dict[tuple[Path, int], UInt8[np.ndarray, "h w 3"]]:
    """Frames of any number of videos, 8 bits; entries without a number are passed over.

    Raises:
        KaleidosceneError: A video is missing or damaged, or ends before a frame.
    """
    numbers: dict[Path, set[int]] = {}
    for path, number in wanted:
        if number is not None:
            numbers.setdefault(path, set()).add(number)
    return {(path, number): frame for path, chosen in numbers.items() for number, frame in video_frames(path, chosen)}
