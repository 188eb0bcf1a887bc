"""The world of a scene: that of its first view, in units of the farthest other one (method C.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import invert, rigid, transform_points

_NO_DISTANCE = 1e-6


@dataclass(frozen=True, eq=False)
class RelativeWorld:
    """Between the world that cameras are given in and the one of the first view.

    Attributes:
        first: Of the first view, in the given world.
        scale: Given units in a unit of the relative world: the distance of the farthest view from the first; 1 where
            all stand in one place.
    """

    first: Float[Tensor, "batch 4 4"]
    scale: Float[Tensor, " batch"]

    @classmethod
    def of(cls, references: Cameras, targets: Cameras | None = None) -> RelativeWorld:
        """The world of references ``(batch, views)`` and, where they are known, targets."""
        first = references.world_from_cam[:, 0]
        centres = [cameras.centres for cameras in (references, targets) if cameras is not None]
        farthest = (torch.cat(centres, dim=1) - first[:, None, :3, 3]).norm(dim=-1).amax(1)
        return cls(first, torch.where(farthest > _NO_DISTANCE, farthest, 1.0))

    def enter(self, cameras: Cameras) -> Cameras:
        """Cameras ``(batch, views)`` of the given world in the world of the first view."""
        poses = cameras.world_from_cam
        relative = invert(self.first.to(poses))[:, None] @ poses
        scaled = rigid(relative[..., :3, :3], relative[..., :3, 3] / self.scale.to(poses)[:, None, None])
        return replace(cameras, world_from_cam=scaled)

    def leave_points(self, points: Float[Tensor, "batch *places 3"]) -> Float[Tensor, "batch *places 3"]:
        """Points of the world of the first view in the given one."""
        scaled = points.flatten(1, -2) * self.scale.to(points)[:, None, None]
        return transform_points(self.first.to(points), scaled).reshape(points.shape)
