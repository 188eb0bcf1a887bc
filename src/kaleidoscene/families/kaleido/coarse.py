"""A coarse pass over the rays of a view: which pixels are worth a close look, and at which of their points.

Ours, not Kaleido's. Most of a picture is flat, and most points of a ray have no part in its pixel. Every second pixel
of every second row, looked at with one point a depth, tells both: where it and its neighbours have one colour, what
lies between them is that colour, and elsewhere only points near those that had a share are looked at. Where outlines
are asked the pass has all points of a ray: of some they leave few.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

STRIDE = 2
"""Of the pixels that the coarse pass looks at."""
# How much neighbours differ at most where nothing is looked at closely, in any channel of pixels in [-1, 1], and the
# share of its pixel from which on a point is looked at, or half of the mean share of its ray where that is less; no
# less than the last. Measured in benchmarks/outlines.md.
_FLAT, _SHARE, _LEAST = 0.01, 0.01, 0.0003


@dataclass(frozen=True, eq=False)
class Coarse:
    """What a coarse pass found in one view.

    Attributes:
        rays: Pixels that are looked at closely, counted row by row.
        smooth: The picture between the pixels of the pass.
        near: Points of the pass near to which its pixels, and their neighbours, have shares.
        cell: The pixel of the pass that stands for each pixel.
        finer: Points of a close look for each of these.
    """

    rays: Int[Tensor, " rays"]
    smooth: Float[Tensor, "c h w"]
    near: Bool[Tensor, "points cells"]
    cell: Int[Tensor, " pixels"]
    finer: int

    @classmethod
    def of(
        cls,
        picture: Float[Tensor, "c rows cols"],
        shares: Float[Tensor, "points rows cols"],
        painted: Float[Tensor, "c h w"],
        finer: int,
    ) -> Coarse:
        """Of a view, from the pixels of the pass and the shares of their points.

        What is ``painted`` shows through where shares leave something: there it has to be smooth, too. The close look
        has ``finer`` times as many points.
        """
        size, total = painted.shape[-2:], shares.sum(0)
        highest, lowest = (sign * nn.functional.max_pool2d(sign * picture, 3, 1, 1) for sign in (1, -1))
        busy = ((highest - lowest) > _FLAT).any(0).flatten()
        limit = (total / (2 * len(shares))).clamp(_LEAST, _SHARE)
        near = nn.functional.max_pool2d((shares > limit).float(), 3, 1, 1).flatten(1)
        near = nn.functional.max_pool2d(near[None], (3, 1), 1, (1, 0))[0] > 0
        row, col = (torch.arange(side, device=picture.device) / STRIDE for side in size)
        rows, cols = picture.shape[-2:]
        cell = (row.long()[:, None] * cols + col.long()).flatten()
        y, x = torch.meshgrid((2 * row + 1) / rows - 1, (2 * col + 1) / cols - 1, indexing="ij")
        places = torch.stack([x, y], -1)[None].to(picture)
        coarse = torch.cat([picture, painted[:, ::STRIDE, ::STRIDE], 1 - total[None]])[None]
        between = nn.functional.grid_sample(coarse, places, align_corners=False, padding_mode="border")[0]
        smooth, blurred, left = between.split([len(picture), len(painted), 1])
        rough = ((painted - blurred) * left).abs().amax(0).flatten() > _FLAT
        return cls((busy[cell] | rough).nonzero()[:, 0], smooth, near, cell, finer)

    def points(self, rays: Int[Tensor, " some"]) -> Bool[Tensor, "points some"]:
        """Which points of some pixels are looked at."""
        return self.near[:, self.cell[rays]].repeat_interleave(self.finer, 0)
