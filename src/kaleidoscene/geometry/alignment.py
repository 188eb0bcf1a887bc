"""Similarity alignment of two point sets, for comparing camera paths."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras


@dataclass(frozen=True, eq=False)
class Similarity:
    """A map of Sim(3): ``target = scale * rotation @ source + translation``."""

    scale: Float[Tensor, ""]
    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, " 3"]

    def points(self, source: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Map points."""
        return self.scale * source @ self.rotation.mT + self.translation

    def cameras(self, source: Cameras) -> Cameras:
        """Map cameras: centres by the similarity, axes by its rotation."""
        poses = source.world_from_cam.clone()
        poses[..., :3, :3] = self.rotation @ poses[..., :3, :3]
        poses[..., :3, 3] = self.points(source.centres)
        return replace(source, world_from_cam=poses)


def umeyama(source: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Similarity:
    """Least-squares similarity that takes ``source`` to ``target`` (Umeyama 1991, eq. 40 to 43).

    Raises:
        KaleidosceneError: Fewer than three points, or all on one line, so that the rotation is not determined.
    """
    if len(source) < 3:
        raise KaleidosceneError(f"Similarity alignment needs at least 3 points, got {len(source)}.")
    source_mean, target_mean = source.mean(0), target.mean(0)
    source_zero, target_zero = source - source_mean, target - target_mean
    u, singular, vh = torch.linalg.svd(target_zero.mT @ source_zero / len(source))
    if singular[1] <= 100 * torch.finfo(source.dtype).eps * singular[0].clamp_min(1e-30):
        raise KaleidosceneError("Similarity alignment is not determined: the points lie on one line.")
    sign = torch.ones(3, dtype=source.dtype, device=source.device)
    sign[2] = torch.sign(torch.linalg.det(u) * torch.linalg.det(vh))
    rotation = u @ torch.diag(sign) @ vh
    scale = (singular * sign).sum() / source_zero.square().sum(-1).mean()
    return Similarity(scale, rotation, target_mean - scale * rotation @ source_mean)
