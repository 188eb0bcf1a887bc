"""Some points of some rays, packed into dense blocks: nothing is gathered point by point."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Chosen:
    """Points of rays that are looked at, packed: as many for each ray as the ray with most of them has.

    Attributes:
        rays: Which rays.
        at: Where they stand among all rays that have points, those with most points first.
        number: Of points on their rays, nearest first.
        real: False where a ray has fewer points; the number is 0 there.
    """

    rays: Int[Tensor, " rays"]
    at: slice
    number: Int[Tensor, "points rays"]
    real: Bool[Tensor, "points rays"]

    @classmethod
    def packed(cls, mask: Bool[Tensor, "all_points all_rays"], most: int) -> Iterator[Chosen]:
        """The points of a mask, about ``most`` at a time, rays with like numbers of points together."""
        counts = mask.sum(0)
        order = counts.argsort(descending=True)
        order = order[: int((counts > 0).sum())]
        counts = counts[order]
        rays, points = mask.T[order].nonzero().unbind(-1)
        ends = counts.cumsum(0)
        slots = torch.arange(len(rays), device=rays.device) - (ends - counts)[rays]
        start = before = 0
        while start < len(order):
            count = int(counts[start])
            end = min(start + max(1, most // count), len(order))
            here = slice(before, int(ends[end - 1]))
            number = points.new_zeros(count, end - start)
            number[slots[here], rays[here] - start] = points[here]
            real = torch.arange(count, device=rays.device)[:, None] < counts[start:end]
            yield cls(order[start:end], slice(start, end), number, real)
            start, before = end, here.stop
