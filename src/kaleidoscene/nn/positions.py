"""What tells the views of a batch apart: poses or times, and the rays of their tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import invert
from kaleidoscene.nn.precision import exact

# Focal length over image side at the field of view of the EscherNet and Zero-1-to-3 renders, 49.1 degrees.
NOMINAL_FOCAL = 0.5 / math.tan(math.radians(49.1) / 2)


@dataclass(frozen=True, eq=False)
class ViewPositions:
    """Where (3D scenes) or when (videos) the views of a batch were taken.

    A batch may mix both; ``is_video`` says which of the two holds for a scene.

    Attributes:
        cam_from_world: World-to-camera transforms in normalised units (identity where the scene is a video).
        lens: ``fx / w, fy / h, cx / w, cy / h`` of every view (nominal where the scene is a video).
        times: Place of the frame in its clip, in [0, 1) (zero where the scene is 3D).
        is_video: True for scenes of frames with times.
    """

    cam_from_world: Float[Tensor, "batch views 4 4"]
    lens: Float[Tensor, "batch views 4"]
    times: Float[Tensor, "batch views"]
    is_video: Bool[Tensor, " batch"]

    @classmethod
    def from_cameras(cls, cameras: Cameras) -> ViewPositions:
        """Positions of 3D scenes; the cameras have batch shape ``(batch, views)`` and normalised units."""
        h, w = cameras.image_size
        k = exact(cameras.intrinsics)
        lens = torch.stack([k[..., 0, 0] / w, k[..., 1, 1] / h, k[..., 0, 2] / w, k[..., 1, 2] / h], dim=-1)
        return cls._of_scenes(exact(cameras.cam_from_world), lens)

    @classmethod
    def from_poses(cls, cam_from_world: Float[Tensor, "batch views 4 4"]) -> ViewPositions:
        """Positions of 3D scenes with the nominal lens."""
        cam_from_world = exact(cam_from_world)
        return cls._of_scenes(cam_from_world, _nominal_lens(cam_from_world[..., 0, 0]))

    @classmethod
    def _of_scenes(cls, cam_from_world: Tensor, lens: Tensor) -> ViewPositions:
        times = torch.zeros_like(lens[..., 0])
        return cls(cam_from_world, lens, times, torch.zeros(len(times), dtype=torch.bool, device=times.device))

    @classmethod
    def from_times(cls, times: Float[Tensor, "batch views"]) -> ViewPositions:
        """Positions of videos; ``times`` in [0, 1)."""
        times = exact(times)
        eye = torch.eye(4, dtype=times.dtype, device=times.device).expand(*times.shape, 4, 4)
        is_video = torch.ones(len(times), dtype=torch.bool, device=times.device)
        return cls(eye, _nominal_lens(times), times, is_video)

    @classmethod
    def concatenate(cls, parts: list[ViewPositions]) -> ViewPositions:
        """Join batches with equally many views."""
        names = ("cam_from_world", "lens", "times", "is_video")
        return cls(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})

    def join(self, others: ViewPositions) -> ViewPositions:
        """These views and others of the same scenes behind them."""
        return ViewPositions(
            torch.cat([self.cam_from_world, others.cam_from_world], 1),
            torch.cat([self.lens, others.lens], 1),
            torch.cat([self.times, others.times], 1),
            self.is_video,
        )

    def repeat(self, times: int) -> ViewPositions:
        """``times`` copies of each scene, next to each other."""
        parts = (self.cam_from_world, self.lens, self.times, self.is_video)
        return ViewPositions(*(part.repeat_interleave(times, 0) for part in parts))

    def scene(self, number: int) -> ViewPositions:
        """One scene of the batch."""
        at = slice(number, number + 1)
        return ViewPositions(self.cam_from_world[at], self.lens[at], self.times[at], self.is_video[at])

    def select(self, views: slice) -> ViewPositions:
        """A range of the views."""
        return ViewPositions(self.cam_from_world[:, views], self.lens[:, views], self.times[:, views], self.is_video)

    def tangents(self, grid: tuple[int, int]) -> Float[Tensor, "batch views tokens 2"]:
        """``(x / z, y / z)`` of the ray through the centre of each token, in the camera's own axes."""
        rows, cols = grid
        device = self.lens.device
        y, x = torch.meshgrid(
            (torch.arange(rows, dtype=self.lens.dtype, device=device) + 0.5) / rows,
            (torch.arange(cols, dtype=self.lens.dtype, device=device) + 0.5) / cols,
            indexing="ij",
        )
        return self.tangents_at(torch.stack([x, y], dim=-1).reshape(rows * cols, 2))

    def tangents_at(self, places: Float[Tensor, "places 2"]) -> Float[Tensor, "batch views places 2"]:
        """The same at any places, ``(x, y)`` as shares of the image's sides."""
        return (places - self.lens[..., None, 2:]) / self.lens[..., None, :2]

    def rays(
        self, tangents: Float[Tensor, "batch views places 2"]
    ) -> tuple[Float[Tensor, "batch views 1 3"], Float[Tensor, "batch views places 3"]]:
        """Where the cameras stand and the unit directions of their rays, in normalised world axes."""
        world_from_cam = invert(self.cam_from_world)
        local = torch.nn.functional.normalize(torch.nn.functional.pad(tangents, (0, 1), value=1.0), dim=-1)
        return world_from_cam[..., None, :3, 3], local @ world_from_cam[..., :3, :3].mT

    def plucker(self, size: tuple[int, int]) -> Float[Tensor, "batch views 6 h w"]:
        """Pluecker maps ``(d, o x d)`` in normalised units; zero for videos, which have no pose."""
        with torch.autocast(self.lens.device.type, enabled=False):
            return self._plucker(size)

    def _plucker(self, size: tuple[int, int]) -> Float[Tensor, "batch views 6 h w"]:
        origins, directions = self.rays(self.tangents(size))
        moments = torch.linalg.cross(origins.expand_as(directions), directions)
        rays = torch.cat([directions, moments], dim=-1).unflatten(2, size).movedim(-1, 2)
        return rays * ~self.is_video[:, None, None, None, None]


def _nominal_lens(like: Float[Tensor, "batch views"]) -> Float[Tensor, "batch views 4"]:
    lens = like.new_tensor([NOMINAL_FOCAL, NOMINAL_FOCAL, 0.5, 0.5])
    return lens.expand(*like.shape, 4)
