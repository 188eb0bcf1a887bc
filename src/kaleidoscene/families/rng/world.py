"""The world of a scene: that of its first source, whose distance from the origin is its unit (eq. 1, method B.1)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import invert, rigid, transform_points

_NO_DISTANCE = 1e-8


def first_pose(like: Tensor) -> Float[Tensor, "4 4"]:
    """Where every first source stands: at (0, 0, -1), looking along +z at the origin."""
    pose = torch.eye(4, dtype=like.dtype, device=like.device)
    pose[2, 3] = -1.0
    return pose


@dataclass(frozen=True, eq=False)
class SourceWorld:
    """Between the world that cameras are given in and the one of the first source.

    Both are right-handed and differ by a rotation, a translation and a unit: a map of Sim(3).

    Attributes:
        first: Of the first source, in the given world.
        scale: Given units in a unit of the source's world: the distance of the first source from the given origin,
            where the object is.
    """

    first: Float[Tensor, "batch 4 4"]
    scale: Float[Tensor, " batch"]

    @classmethod
    def of(cls, cameras: Cameras) -> SourceWorld:
        """The world of sources ``(batch, views)``.

        Raises:
            KaleidosceneError: The first source is at the origin, so that there is no unit.
        """
        first = cameras.world_from_cam[:, 0]
        scale = first[:, :3, 3].norm(dim=-1)
        if bool((scale < _NO_DISTANCE).any()):
            raise KaleidosceneError(
                "The first reference stands at the world's origin, so that the unit of the scene cannot be told."
            )
        return cls(first, scale)

    @classmethod
    def itself(cls, batch: int) -> SourceWorld:
        """Where nothing is given: the world of the source is the world."""
        one = torch.ones(batch)
        return cls(first_pose(one).expand(batch, 4, 4), one)

    def enter(self, cameras: Cameras) -> Cameras:
        """Cameras ``(batch, views)`` of the given world in the world of the first source."""
        poses = cameras.world_from_cam
        scale = self.scale.to(poses)
        first = self._scaled(self.first.to(poses), 1 / scale)
        relative = invert(first)[:, None] @ self._scaled(poses, 1 / scale[:, None])
        return replace(cameras, world_from_cam=first_pose(poses) @ relative)

    def leave(self, cameras: Cameras) -> Cameras:
        """Inverse of :meth:`enter`."""
        poses = cameras.world_from_cam
        relative = invert(first_pose(poses)) @ poses
        first = self._scaled(self.first, 1 / self.scale).to(poses)
        return replace(cameras, world_from_cam=self._scaled(first[:, None] @ relative, self.scale[:, None].to(poses)))

    def leave_points(self, points: Float[Tensor, "batch *places 3"]) -> Float[Tensor, "batch *places 3"]:
        """Points of the world of the first source in the given one."""
        given = (self._scaled(self.first, 1 / self.scale).to(points)) @ invert(first_pose(points))
        moved = transform_points(given, points.flatten(1, -2))
        return moved.reshape(points.shape) * self.scale.to(points).view(-1, *[1] * (points.ndim - 1))

    @staticmethod
    def _scaled(poses: Tensor, factor: Tensor) -> Tensor:
        return rigid(poses[..., :3, :3], poses[..., :3, 3] * factor[..., None])
