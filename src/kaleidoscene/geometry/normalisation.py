"""Where the origin of a scene lies and how long its unit is, for the network (Kaleido section 3.2.1 (ii))."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras

FARTHEST_TARGET = 4.0
"""Largest norm of a target's translation where the scale is that of the references; GTA's matrices grow with it."""
_NO_DISTANCE = 1e-8


@dataclass(frozen=True, eq=False)
class SceneNormalisation:
    """An invertible change of world: ``normalised = (world - origin) / scale``.

    Kaleido scales translations so that the largest norm over the views of a scene is 1. The paper does not say
    from where norms are measured; docs/papers.md (open choice E3) has what we chose and why.

    Attributes:
        origin: World position of the new origin, in world units.
        scale: World units per normalised unit.
    """

    origin: Float[Tensor, "*batch 3"]
    scale: Float[Tensor, "*batch"]

    @classmethod
    def from_cameras(cls, cameras: Cameras, origin: Float[Tensor, "*batch 3"]) -> SceneNormalisation:
        """Scale such that the farthest of ``cameras`` (last batch axis = views) is at distance 1 from ``origin``.

        Raises:
            KaleidosceneError: All cameras sit at the origin, so that no scale can be told.
        """
        distance = (cameras.centres - origin[..., None, :]).norm(dim=-1).amax(-1)
        if bool((distance < _NO_DISTANCE).any()):
            raise KaleidosceneError(
                "The scene has no scale: every camera sits at its origin; give an origin or a scale."
            )
        return cls(origin, distance)

    @classmethod
    def from_references(
        cls, references: Cameras, targets: Cameras | None, origin: Float[Tensor, "*batch 3"]
    ) -> SceneNormalisation:
        """Scale such that the farthest reference is at distance 1, and no target beyond :data:`FARTHEST_TARGET`.

        References near the origin say little of the scale: the only one may stand in the middle of a track, or of a
        drive. Where all cameras are at the origin, none of them moves, and any scale is right: it is 1.

        Args:
            references: Last batch axis = views, of which there may be none.
            targets: Likewise; None where they are not known.
            origin: Of the normalised world.
        """
        zero = torch.zeros_like(origin[..., 0])

        def farthest(cameras: Cameras | None) -> Tensor:
            if cameras is None or not cameras.batch_shape[-1]:
                return zero
            return (cameras.centres - origin[..., None, :]).norm(dim=-1).amax(-1)

        scale = torch.maximum(farthest(references), farthest(targets) / FARTHEST_TARGET)
        return cls(origin, torch.where(scale < _NO_DISTANCE, torch.ones_like(scale), scale))

    def normalise(self, cameras: Cameras) -> Cameras:
        """Cameras in normalised units; rotations and intrinsics stay."""
        return self._move(cameras, (cameras.centres - self.origin[..., None, :]) / self.scale[..., None, None])

    def denormalise(self, cameras: Cameras) -> Cameras:
        """Inverse of :meth:`normalise`."""
        return self._move(cameras, cameras.centres * self.scale[..., None, None] + self.origin[..., None, :])

    @staticmethod
    def _move(cameras: Cameras, centres: Tensor) -> Cameras:
        poses = cameras.world_from_cam.clone()
        poses[..., :3, 3] = centres
        return replace(cameras, world_from_cam=poses)


def mean_centre(cameras: Cameras) -> Float[Tensor, "*batch 3"]:
    """Mean of the camera centres over the last batch axis: the origin for scenes (open choice E3)."""
    return cameras.centres.mean(dim=-2)


def focus_point(cameras: Cameras) -> Float[Tensor, "*batch 3"]:
    """The point nearest to all optical axes in the least-squares sense: the centre of an inward-looking capture.

    Raises:
        KaleidosceneError: The optical axes are parallel, so that they meet nowhere.
    """
    matrix, right = nearest_to_axes(cameras.centres, cameras.directions)
    if bool((torch.linalg.eigvalsh(matrix)[..., 0] < 1e-6 * matrix.shape[-1]).any()):
        raise KaleidosceneError(
            "The cameras look in parallel directions, so they have no common centre; give an origin."
        )
    return torch.linalg.solve(matrix, right)


def nearest_to_axes(
    centres: Float[Tensor, "*batch views 3"], directions: Float[Tensor, "*batch views 3"]
) -> tuple[Float[Tensor, "*batch 3 3"], Float[Tensor, "*batch 3"]]:
    """Normal equations ``matrix @ point = right`` of the point that is nearest to all optical axes.

    Args:
        centres: Of the cameras.
        directions: Of their axes, of length 1.
    """
    eye = torch.eye(3, dtype=centres.dtype, device=centres.device)
    off_axis = eye - directions[..., :, None] * directions[..., None, :]
    return off_axis.sum(dim=-3), (off_axis @ centres[..., None]).sum(dim=-3)[..., 0]
