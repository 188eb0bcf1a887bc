"""Losses of 3DRAE: pixels, what stands in for LPIPS, points with a confidence (section 3.2, eq. 6; method C.3)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.choices import check_range

_SCALES = 4


@dataclass(frozen=True, kw_only=True)
class Rae3dLoss:
    """The training objective.

    Attributes:
        perceptual: Of a distance of VGG19's features (--perceptual-weights), where the paper has LPIPS.
        gradients: Of differences of neighbouring pixels at four scales, which need no weights: ours, for where those
            of the other are not at hand.
        adversarial: Of the adversarial loss, which is first brought to the size of the others at the last matrix; it
            needs a discriminator (``model.discriminator``).
        discriminator_from: Step from which the discriminator learns.
        adversarial_from: Step from which the network plays against it.
        points: Of the points; their term is left out where depth is not known.
        background: Of the size of points where the depth is 0, which says that nothing is met there: they are pulled to
            the first camera, where nothing can be met. 0 for places, whose depth is 0 where it is not known (ours).
        confidence: Of the logarithm of the confidence.
        noise: Largest standard deviation of what is added to the tokens (tau); that of a scene is uniform below it.
        masked: Share of the scenes some of whose references are hidden.
        masked_share: Smallest and largest share of the references that are hidden then.
        all_hidden: Share of those scenes in which every reference is hidden.
        repeated: Share of the scored views that are references themselves (ours; the paper scores none): from nothing,
            small networks learn from them first that tokens have to tell what was seen.
    """

    perceptual: float = 0.0
    gradients: float = 1.0
    adversarial: float = 0.0
    discriminator_from: int = 0
    adversarial_from: int = 0
    points: float = 1.0
    background: float = 0.0
    confidence: float = 0.2
    noise: float = 0.8
    masked: float = 0.1
    masked_share: tuple[float, float] = (0.1, 0.9)
    all_hidden: float = 0.1
    repeated: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.masked_share
        if not (0 <= self.masked <= 1 and 0 <= low <= high <= 1 and 0 <= self.all_hidden <= 1):
            raise ValueError("masked, masked_share and all_hidden are shares from 0 to 1.")
        if not 0 <= self.repeated <= 1:
            raise ValueError(f"repeated is a share of the scored views, got {self.repeated}.")
        if not 0 <= self.discriminator_from <= self.adversarial_from:
            raise ValueError("adversarial_from comes with discriminator_from or after it.")
        weights = ("perceptual", "gradients", "adversarial", "points", "background", "confidence")
        check_range(self, 0, math.inf, *weights, "noise")


def gradient_loss(images: Float[Tensor, "n c h w"], truth: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
    """Mean absolute difference of differences of neighbours, at 1, 2, 4 and 8 pixels' width.

    Args:
        images: Of the network.
        truth: Real ones.
    """
    total, difference = images.new_zeros(()), images - truth
    scales = 0
    for _ in range(_SCALES):
        if min(difference.shape[-2:]) < 2:
            break
        total = total + difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
        scales += 1
        difference = torch.nn.functional.avg_pool2d(difference, 2) if min(difference.shape[-2:]) > 1 else difference
    return total / max(scales, 1)


def point_loss(
    points: Float[Tensor, "n h w 3"],
    confidence: Float[Tensor, "n h w"],
    truth: Float[Tensor, "n h w 3"],
    known: Bool[Tensor, "n h w"],
    *,
    alpha: float,
) -> Float[Tensor, ""]:
    """Errors of points and of their differences, times the confidence, less its logarithm (method C.3).

    Args:
        points: Of the network.
        confidence: Theirs.
        truth: True points.
        known: Where there are such.
        alpha: Weight of the logarithm.
    """
    total = _mean(confidence * (points - truth).norm(dim=-1) - alpha * confidence.log(), known)
    for axis in (1, 2):
        length = points.shape[axis] - 1
        both = known.narrow(axis, 0, length) & known.narrow(axis, 1, length)
        error = (points - truth).diff(dim=axis).norm(dim=-1)
        total = total + 0.5 * _mean(confidence.narrow(axis, 0, length) * error, both)
    return total


def _mean(x: Float[Tensor, "n h w"], where: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """Over some places of every view, of which there may be none, then over views."""
    return (torch.where(where, x, 0.0).flatten(1).sum(1) / where.flatten(1).sum(1).clamp_min(1)).mean()
