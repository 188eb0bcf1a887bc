"""Videos to clips for training: cut where the picture changes, every so many frames, at the size of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.images.pixels import centre_box, resize_image
from kaleidoscene.images.videos import SUFFIXES, video_frames, video_timing

# Cuts are looked for in small pictures, as their detector does by itself on large ones.
_DETECTION_WIDTH = 160


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """How videos are cut into clips."""

    frames: int = 24
    """Frames of a clip; training draws V neighbouring ones of them."""
    least: int = 12
    """Shorter clips, between two cuts or at the end of a video, are left out."""
    strides: tuple[int, ...] = (1,)
    """Take every so many frames; with several numbers every video gives clips at each."""
    threshold: float = 27.0
    """Change of hue, saturation and brightness from frame to frame that is a cut (PySceneDetect's ContentDetector)."""

    def __post_init__(self) -> None:
        if not 1 < self.least <= self.frames:
            raise ValueError(f"least must be from 2 to frames ({self.frames}), got {self.least}.")
        if not self.strides or min(self.strides) < 1:
            raise ValueError(f"strides must be positive numbers, got {list(self.strides)}.")


def videos_in(source: Path) -> list[Path]:
    """The video, or all videos of a folder, sorted; empty if there are none."""
    if source.is_file():
        return [source] if source.suffix.lower() in SUFFIXES else []
    found = source.iterdir() if source.is_dir() else []
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def clips_of(path: Path, key: str, image_size: tuple[int, int], config: ClipConfig) -> Iterator[StoredScene]:
    """The clips of a video, its middle cropped to the aspect ratio of ``image_size`` and resampled.

    A camera that stands still is no fault: such clips teach what moves. Only the frames of a shot are held, and of a
    long one as many as some clips take.

    Raises:
        KaleidosceneError: The video is damaged, or PySceneDetect is missing.
    """
    finder, shot, first = CutFinder(config.threshold), list[UInt8[np.ndarray, "h w 3"]](), 0
    most = 4 * config.frames * max(config.strides)
    for number, frame in video_frames(path, range(len(video_timing(path).times))):
        if finder.is_cut(frame) or len(shot) == most:
            yield from _clips_in(shot, first, key, config)
            shot, first = [], number
        shot.append(_fit(frame, image_size))
    yield from _clips_in(shot, first, key, config)


def _clips_in(
    shot: list[UInt8[np.ndarray, "h w 3"]], first: int, key: str, config: ClipConfig
) -> Iterator[StoredScene]:
    """Clips of neighbouring frames that begin with frame ``first``."""
    for numbers in _clips_between(first, first + len(shot), config):
        rgb = np.stack([shot[number - first] for number in numbers])
        rgba = np.concatenate([rgb, np.full((*rgb.shape[:3], 1), 255, np.uint8)], axis=-1)
        name = f"{key}-{numbers[0]:06d}-{numbers[1] - numbers[0]}"
        yield StoredScene(name, rgba, None, times=tuple(numbers))


def _clips_between(first: int, after: int, config: ClipConfig) -> Iterator[Sequence[int]]:
    """Frame numbers of the clips between two cuts."""
    for stride in config.strides:
        numbers = range(first, after, stride)
        for start in range(0, len(numbers), config.frames):
            clip = numbers[start : start + config.frames]
            if len(clip) >= config.least:
                yield clip


def _fit(frame: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "th tw 3"]:
    top, left, height, width = centre_box((frame.shape[0], frame.shape[1]), size)
    cut = np.ascontiguousarray(frame[top : top + height, left : left + width])
    image = resize_image(torch.from_numpy(cut).movedim(-1, 0).float() / 255, size)
    return (image * 255).round().to(torch.uint8).movedim(0, -1).numpy()


class CutFinder:
    """Tells the frames that begin another shot, one after the other."""

    def __init__(self, threshold: float) -> None:
        try:
            from scenedetect import ContentDetector, FrameTimecode  # noqa: PLC0415  an extra
        except ImportError as error:
            raise KaleidosceneError(
                f"Cutting videos needs PySceneDetect ({error}): pip install 'kaleidoscene[video]'."
            ) from error
        # Every cut counts, however short the shot: no clip may go on beyond it.
        self._detector = ContentDetector(threshold=threshold, min_scene_len=1)
        self._timecode, self._count = FrameTimecode, 0

    def is_cut(self, frame: UInt8[np.ndarray, "h w 3"]) -> bool:
        """Whether the next frame begins another shot."""
        height = max(1, round(frame.shape[0] * _DETECTION_WIDTH / frame.shape[1]))
        small = Image.fromarray(np.ascontiguousarray(frame)).resize((_DETECTION_WIDTH, height), Image.Resampling.BOX)
        # The rate only turns numbers into times and back.
        found = self._detector.process_frame(
            self._timecode(self._count, 25.0), np.ascontiguousarray(np.asarray(small)[..., ::-1])
        )
        self._count += 1
        return bool(found)
