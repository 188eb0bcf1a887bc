"""Augmentations of whole scenes that keep their geometry true."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities of the augmentations; each is drawn once for a scene, so that its views stay consistent."""

    permute_colours: float = 0.5
    gamma: float = 0.5
    mirror: float = 0.5
    random_background: float = 0.1
    """Share of scenes on a random plain colour instead of white."""

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
    if chance[2] < options.mirror:
        return image.flip(-1), None if cameras is None else mirror_world(cameras), True
    return image, cameras, False


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
