"""Which way is up, where the world is that of one camera: cameras held level tell it (RnG, method B.10)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras

# Mean square of the sine between x axes, of 5 degrees: errors of cameras that look more alike would tell what is up.
_ALIKE = 0.0076
_OPPOSITE = 1e-6


def level_up(cameras: Cameras) -> Float[Tensor, " 3"] | None:
    """The direction to which the x axes of all cameras are most nearly orthogonal, in world axes.

    Cameras without roll have their x axes in the ground plane. Up is sought in the plane that is orthogonal to the x
    axis of the first camera, and found in closed form: the eigenvector of the smaller eigenvalue of the sum of
    ``r r^T`` over the other x axes ``r``, laid in that plane. Of its two signs the one is taken that lies nearer to
    what is up in the images.

    Args:
        cameras: Of one scene; the first fixes the plane.

    Returns:
        A unit vector; None where the cameras do not tell it: a single one, or all turned about nearly the same x axis.
    """
    axes = cameras.world_from_cam[:, :3, :3].double()
    plane = axes[0, :, 1:]  # y and z of the first camera
    others = axes[1:, :, 0] @ plane
    if not len(others):
        return None
    values, vectors = torch.linalg.eigh(others.mT @ others / len(others))
    if float(values[1]) < _ALIKE:
        return None
    up = plane @ vectors[:, 0]
    in_images = -axes[:, :, 1].sum(0)
    return (-up if float(up @ in_images) < 0 else up).to(cameras.world_from_cam)


def rotation_between(source: Float[Tensor, " 3"], target: Float[Tensor, " 3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes one direction to another; of opposite ones any half turn."""
    a, b = (torch.nn.functional.normalize(x, dim=0) for x in (source, target))
    half = a + b
    if float(half.norm()) < _OPPOSITE:
        aside = torch.eye(3, dtype=a.dtype, device=a.device)[a.abs().argmin()]
        half = torch.nn.functional.normalize(torch.linalg.cross(a, aside, dim=0), dim=0)
        return 2 * torch.outer(half, half) - torch.eye(3, dtype=a.dtype, device=a.device)
    half = torch.nn.functional.normalize(half, dim=0)
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    # Two half turns: about the source, and about the bisector.
    return (2 * torch.outer(half, half) - eye) @ (2 * torch.outer(a, a) - eye)
