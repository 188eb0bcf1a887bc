"""Keyframes of a camera path, and the path through them as 'render --camera-path' takes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.camera_paths import camera_path_rate, read_any_camera_path
from kaleidoscene.captures.formats.photos import intrinsics_of
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry import trajectories
from kaleidoscene.geometry.camera_path import write_camera_path
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import focal_over_side
from kaleidoscene.geometry.view import Start
from kaleidoscene.images.fitting import cut_cameras

PRESETS = ("orbit", "sphere", "spiral", "lemniscate", "dolly", "pan", "roll", "move", "dolly-zoom")


@dataclass(frozen=True, eq=False)
class Keyframe:
    """A place on the path.

    Attributes:
        world_from_cam: Pose.
        degrees: Vertical field of view; None: that of the model.
    """

    world_from_cam: Float[Tensor, "4 4"]
    degrees: float | None = None


@dataclass
class PathEditor:
    """Keyframes, and how long the way through them takes.

    Attributes:
        intrinsics: Lens of the model.
        image_size: ``(height, width)``.
        any_lens: Whether the model shows other fields of view too; otherwise all cameras of a path get its lens.
        keyframes: In the order of the path.
        duration: Seconds.
        fps: Frames a second.
        closed: From the last keyframe back to the first.
    """

    intrinsics: Float[Tensor, "3 3"]
    image_size: tuple[int, int]
    any_lens: bool = False
    keyframes: list[Keyframe] = field(default_factory=list)
    duration: float = 4.0
    fps: float = 12.0
    closed: bool = False
    _fixed: Cameras | None = None
    _preset: tuple[str, Start] | None = None

    @property
    def frames(self) -> int:
        """Of the whole path."""
        return len(self._fixed) if self._fixed is not None else max(1, round(self.duration * self.fps))

    def add(self, keyframe: Keyframe, place: int | None = None) -> None:
        """A keyframe, by default behind the others."""
        self._only_keyframes()
        self.keyframes.insert(len(self.keyframes) if place is None else place, keyframe)

    def replace(self, place: int, keyframe: Keyframe) -> None:
        """Another pose, another lens for a keyframe."""
        self._only_keyframes()
        self.keyframes[place] = keyframe

    def move(self, place: int, world_from_cam: Float[Tensor, "4 4"]) -> None:
        """Another pose for a keyframe."""
        self.replace(place, replace(self.keyframes[place], world_from_cam=world_from_cam))

    def remove(self, place: int) -> None:
        """Take a keyframe out."""
        self._only_keyframes()
        del self.keyframes[place]

    def clear(self) -> None:
        """Begin anew."""
        self._only_keyframes()
        self.keyframes.clear()

    def _only_keyframes(self) -> None:
        self._fixed = self._preset = None

    def take(self, cameras: Cameras) -> None:
        """A whole path, frame by frame, in place of keyframes; its lenses are kept if the model shows any."""
        self.clear()
        self._fixed = cameras

    def take_preset(self, name: str, start: Start) -> None:
        """One of :data:`PRESETS` about what a capture shows; it follows changes of length and rate."""
        self.clear()
        self._preset = name, start

    def _with_lens(self, cameras: Cameras) -> Cameras:
        if self.any_lens:
            return cut_cameras(cameras, self.image_size)
        matrix = self.intrinsics.to(cameras.world_from_cam).expand(len(cameras), 3, 3)
        return replace(cameras, intrinsics=matrix, image_size=self.image_size)

    def cameras(self) -> Cameras:
        """The path ``(frames,)``: smoothly through the keyframes, a preset, or one that was taken as it is.

        Raises:
            KaleidosceneError: There are fewer than two keyframes, or the preset changes the lens and the model has one.
        """
        if self._fixed is not None:
            return self._with_lens(self._fixed)
        if self._preset is not None:
            name, start = self._preset
            if name == "dolly-zoom" and not self.any_lens:
                raise KaleidosceneError("dolly-zoom changes the field of view; this model has one ('places' has any).")
            return self._with_lens(trajectories.preset(name, start, self.frames))
        if len(self.keyframes) < 2:
            raise KaleidosceneError(f"A path needs at least 2 keyframes, there are {len(self.keyframes)}.")
        poses = torch.stack([keyframe.world_from_cam.float() for keyframe in self.keyframes])
        lenses = torch.stack([self.lens(keyframe).to(poses) for keyframe in self.keyframes])
        return trajectories.spline(Cameras(poses, lenses, self.image_size), self.frames, closed=self.closed)

    def lens(self, keyframe: Keyframe) -> Float[Tensor, "3 3"]:
        """Intrinsics of a keyframe."""
        if keyframe.degrees is None or not self.any_lens:
            return self.intrinsics
        return intrinsics_of(focal_over_side(keyframe.degrees) * self.image_size[0], self.image_size)

    def save(self, path: Path) -> None:
        """Write the path as JSON (:mod:`kaleidoscene.geometry.camera_path`)."""
        cameras = self.cameras()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_camera_path(path, cameras, fps=self.fps)

    def open(self, path: Path) -> None:
        """Read a path, ours or nerfstudio's, with its frames a second.

        Raises:
            KaleidosceneError: It is neither.
        """
        cameras, rate = read_any_camera_path(path), camera_path_rate(path)
        self.take(cameras)
        self.fps = self.fps if rate is None else rate
        self.duration = len(cameras) / self.fps
