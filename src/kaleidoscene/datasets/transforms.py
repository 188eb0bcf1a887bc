"""Augmentations of whole scenes that keep their geometry true."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras

# Deviations between photographs of one scene: logarithm of exposure, of each channel beside it, most of the noise,
# degrees by which a camera is turned and by how much of its distance from the origin it is shifted.
_EXPOSURE, _BALANCE, _NOISE, _TURN, _SHIFT = 0.06, 0.02, 0.02, 0.15, 0.002


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities of the augmentations; each is drawn once for a scene."""

    permute_colours: float = 0.5
    gamma: float = 0.5
    mirror: float = 0.5
    random_background: float = 0.1
    """Share of scenes on a random plain colour instead of white."""
    photographs: float = 0.0
    """Share of the scenes without a transparent pixel whose views differ as photographs do: in exposure and white
    balance, by noise, and by small errors of their cameras. In all others views agree exactly."""

    @classmethod
    def none(cls) -> Augmentation:
        """No augmentation."""
        return cls(permute_colours=0.0, gamma=0.0, mirror=0.0, random_background=0.0)


def augment(
    rgba: Float[Tensor, "views 4 h w"], cameras: Cameras | None, options: Augmentation, generator: torch.Generator
) -> tuple[Float[Tensor, "views 3 h w"], Cameras | None, bool]:
    """Augment one scene (of a video if it has no cameras) and lay it on its background.

    Returns:
        RGB in [0, 1], the cameras, and whether the world was mirrored (depth and masks must then be flipped too).
    """
    chance = torch.rand(4, generator=generator).tolist()
    rgb, alpha = rgba[:, :3], rgba[:, 3:]
    if chance[0] < options.permute_colours:
        rgb = rgb[:, torch.randperm(3, generator=generator)]
    if chance[1] < options.gamma:
        rgb = rgb ** torch.exp(0.25 * torch.randn((), generator=generator))
    background = torch.ones(3, 1, 1)
    if chance[3] < options.random_background:
        background = torch.rand(3, 1, 1, generator=generator)
    image = rgb * alpha + background * (1 - alpha)
    # Without it nothing more is drawn, so that runs of before stay what they were.
    if options.photographs and cameras is not None and bool((alpha == 1).all()):
        if float(torch.rand((), generator=generator)) < options.photographs:
            image, cameras = photographed(image, cameras, generator)
    if chance[2] < options.mirror:
        return image.flip(-1), None if cameras is None else mirror_world(cameras), True
    return image, cameras, False


def photographed(
    images: Float[Tensor, "views 3 h w"], cameras: Cameras, generator: torch.Generator
) -> tuple[Float[Tensor, "views 3 h w"], Cameras]:
    """Views as a camera would have taken them, with cameras as structure from motion would have told them."""
    views = len(images)
    exposure = _EXPOSURE * torch.randn(views, 1, 1, 1, generator=generator)
    balance = _BALANCE * torch.randn(views, 3, 1, 1, generator=generator)
    noise = _NOISE * float(torch.rand((), generator=generator)) * torch.randn(images.shape, generator=generator)
    images = (images * torch.exp(exposure + balance) + noise).clamp(0, 1)
    poses = cameras.world_from_cam.clone()
    turn = math.radians(_TURN) * torch.randn(views, 3, generator=generator).to(poses)
    shift = _SHIFT * cameras.centres.norm(dim=-1, keepdim=True) * torch.randn(views, 3, generator=generator).to(poses)
    poses[:, :3, :3] = poses[:, :3, :3] @ torch.linalg.matrix_exp(_cross(turn))
    poses[:, :3, 3] += shift
    return images, replace(cameras, world_from_cam=poses)


def _cross(axes: Float[Tensor, "views 3"]) -> Float[Tensor, "views 3 3"]:
    x, y, z = axes.unbind(-1)
    none = torch.zeros_like(x)
    return torch.stack([none, -z, y, z, none, -x, -y, x, none], -1).unflatten(-1, (3, 3))


def mirror_world(cameras: Cameras) -> Cameras:
    """Cameras of the world mirrored in x; they see the mirrored images exactly.

    With M = diag(-1, 1, 1) the poses become ``M R M`` and ``M c``, and the principal point changes sides.
    """
    flip = torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=cameras.world_from_cam.dtype)
    poses = flip[:, None] * cameras.world_from_cam * flip
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., 0, 2] = cameras.image_size[1] - intrinsics[..., 0, 2]
    intrinsics[..., 0, 1] = -intrinsics[..., 0, 1]
    return replace(cameras, world_from_cam=poses, intrinsics=intrinsics)
