"""The world of a scene: that of its first view, in units of the farthest other one (method C.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import nearest_to_axes
from kaleidoscene.geometry.poses import invert, rigid, transform_points

_NO_DISTANCE = 1e-6
# How much the point in front of the first view counts, and half of the cube's side in distances of the cameras.
_SLIGHTLY, _HALF_SIDE = 1e-3, 0.3


@dataclass(frozen=True, eq=False)
class RelativeWorld:
    """Between the world that cameras are given in and the one of the first view.

    Attributes:
        first: Of the first view, in the given world.
        scale: Given units in a unit of the relative world: the distance of the farthest view from the first; 1 where
            all stand in one place.
        bounds: Middle and half of the side of a cube around what all look at, in the relative world: what located
            latents stand in (ours).
    """

    first: Float[Tensor, "batch 4 4"]
    scale: Float[Tensor, " batch"]
    bounds: Float[Tensor, "batch 4"]

    @classmethod
    def of(cls, references: Cameras, targets: Cameras | None = None) -> RelativeWorld:
        """The world of references ``(batch, views)`` and, where they are known, targets."""
        first = references.world_from_cam[:, 0]
        given = [cameras for cameras in (references, targets) if cameras is not None]
        centres = torch.cat([cameras.centres for cameras in given], dim=1)
        axes = torch.cat([cameras.directions for cameras in given], dim=1)
        first = first.to(centres)
        centres, axes = transform_points(invert(first), centres), axes @ first[:, :3, :3]
        farthest = centres.norm(dim=-1).amax(1)
        scale = torch.where(farthest > _NO_DISTANCE, farthest, 1.0)
        return cls(first, scale, _looked_at(centres / scale[:, None, None], axes))

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


def _looked_at(
    centres: Float[Tensor, "batch views 3"], axes: Float[Tensor, "batch views 3"]
) -> Float[Tensor, "batch 4"]:
    """Middle and half of the side of a cube around what views of the relative world look at.

    The middle is nearest to all axes in the least-squares sense, and by a little to a point in front of the first view,
    which tells it where axes are parallel. Axes that part meet behind the cameras: there it is the mean of the points
    that lie a unit ahead of each.
    """
    matrix, right = nearest_to_axes(centres, axes)
    eye = _SLIGHTLY * axes.shape[1] * torch.eye(3, dtype=axes.dtype, device=axes.device)
    middle = torch.linalg.solve(matrix + eye, right + eye[2])
    depth = ((middle[:, None] - centres) * axes).sum(-1).mean(1, keepdim=True)
    middle = torch.where(depth > 0, middle, (centres + axes).mean(1))
    distance = (centres - middle[:, None]).norm(dim=-1).mean(1)
    return torch.cat([middle, _HALF_SIDE * distance[:, None]], dim=-1)
