"""A coarse pass over the rays of a view: which pixels are worth a close look, and at which of their points.

Ours, not Kaleido's. Most of a picture is flat, and most points of a ray have no part in its pixel. Every second pixel
of every second row, looked at with one point a depth, tells both: where it and its neighbours have one colour, what
lies between them is that colour, and elsewhere only points near those that had a share are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

STRIDE = 2
"""Of the pixels that the coarse pass looks at."""
# How much neighbours differ at most where nothing is looked at closely, in any channel of pixels in [-1, 1], and the
# share of its pixel from which on a point is looked at. Measured in benchmarks/outlines.md.
_FLAT, _SHARE = 0.01, 0.01


@dataclass(frozen=True, eq=False)
class Coarse:
    """What a coarse pass found in one view.

    Attributes:
        rays: Pixels that are looked at closely, counted row by row.
        smooth: The picture between the pixels of the pass.
        near: Depths near to which the pixels of the pass, and their neighbours, have shares.
        cell: The pixel of the pass that stands for each pixel.
        finer: Points of a close look for each of these depths.
    """

    rays: Int[Tensor, " rays"]
    smooth: Float[Tensor, "c h w"]
    near: Bool[Tensor, "depths cells"]
    cell: Int[Tensor, " pixels"]
    finer: int

    @classmethod
    def of(
        cls,
        picture: Float[Tensor, "c rows cols"],
        shares: Float[Tensor, "depths rows cols"],
        size: tuple[int, int],
        finer: int,
    ) -> Coarse:
        """Of a view of ``size`` pixels, from the pixels of the pass and the shares of their points.

        The close look has ``finer`` times as many points.
        """
        highest, lowest = (sign * nn.functional.max_pool2d(sign * picture, 3, 1, 1) for sign in (1, -1))
        busy = ((highest - lowest) > _FLAT).any(0).flatten()
        near = nn.functional.max_pool2d((shares > _SHARE).float(), 3, 1, 1).flatten(1)
        near = nn.functional.max_pool2d(near[None], (3, 1), 1, (1, 0))[0] > 0
        row, col = (torch.arange(side, device=picture.device) / STRIDE for side in size)
        rows, cols = picture.shape[-2:]
        cell = (row.long()[:, None] * cols + col.long()).flatten()
        y, x = torch.meshgrid((2 * row + 1) / rows - 1, (2 * col + 1) / cols - 1, indexing="ij")
        places = torch.stack([x, y], -1)[None].to(picture)
        smooth = nn.functional.grid_sample(picture[None], places, align_corners=False, padding_mode="border")[0]
        return cls(busy[cell].nonzero()[:, 0], smooth, near, cell, finer)

    def points(self, rays: Int[Tensor, " some"]) -> Bool[Tensor, "points some"]:
        """Which points of some pixels are looked at."""
        return self.near[:, self.cell[rays]].repeat_interleave(self.finer, 0)
