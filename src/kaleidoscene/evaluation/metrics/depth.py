"""Depth: relative error and the share of near-right pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError


@dataclass(frozen=True)
class DepthScore:
    """Of one or several views, first by view, then their mean.

    Attributes:
        rel: Mean of ``|d - d_true| / d_true``; printed in percent by RnG. Where nothing is met (0) it is 1.
        a1: Share of pixels whose ratio to the truth is below 1.25 either way (RnG's code says 1.25, not 1.03).
    """

    rel: float
    a1: float


def depth_errors(
    depth: Float[Tensor, "views h w"], truth: Float[Tensor, "views h w"], mask: Bool[Tensor, "views h w"]
) -> DepthScore:
    """Means over views of :func:`depth_errors_by_view`."""
    rel, a1 = depth_errors_by_view(depth, truth, mask)
    return DepthScore(float(rel.mean()), float(a1.mean()))


def depth_errors_by_view(
    depth: Float[Tensor, "views h w"], truth: Float[Tensor, "views h w"], mask: Bool[Tensor, "views h w"]
) -> tuple[Float[Tensor, " views"], Float[Tensor, " views"]]:
    """Rel and a1 of depth maps, with no alignment of scale (RnG's convention; method D).

    Args:
        depth: Along the optical axis, in world units; 0 where nothing is met.
        truth: Likewise, positive where ``mask`` is set.
        mask: Where there is something to compare.

    Raises:
        KaleidosceneError: A view has nothing to compare, or a depth there that is negative or not finite.
    """
    rel, a1 = [], []
    for number in range(len(depth)):
        at, want = depth[number][mask[number]], truth[number][mask[number]]
        if not len(at):
            raise KaleidosceneError(f"Depth of view {number} has no pixel to compare: its mask is empty.")
        if not bool((want > 0).all()):
            raise KaleidosceneError(
                f"The true depth of view {number} has values that are not positive inside its mask."
            )
        if not bool((at >= 0).all() and torch.isfinite(at).all()):
            raise KaleidosceneError(
                f"Depth of view {number} has values that are negative or not finite inside its mask."
            )
        rel.append(((at - want).abs() / want).mean())
        a1.append((torch.maximum(at / want, want / at) < 1.25).float().mean())
    return torch.stack(rel), torch.stack(a1)
