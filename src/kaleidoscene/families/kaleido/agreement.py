"""How much alike references are at points: evidence for a surface, and for none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.families.kaleido.ray_points import Sighting

TINY = 1e-12
"""Below all weights that count."""


@dataclass(eq=False)
class Agreement:
    """Running sums over references that tell how much alike they are at every point; without gradients.

    Attributes:
        total: Of weights.
        count: References that see the point.
        colour: Weighted sum of colours, and ``plain_colour`` that without weights.
        square: The same of squares, and ``plain_square``.
        cosine: The best of them.
        brightest: Of the darkest channels.
    """

    total: Float[Tensor, "batch *points"]
    count: Float[Tensor, "batch *points"]
    colour: Float[Tensor, "batch c *points"]
    square: Float[Tensor, "batch *points"]
    plain_colour: Float[Tensor, "batch c *points"]
    plain_square: Float[Tensor, "batch *points"]
    cosine: Float[Tensor, "batch *points"]
    brightest: Float[Tensor, "batch *points"]

    @classmethod
    def of_none(cls, zero: Float[Tensor, "batch *points"], channels: int) -> Agreement:
        """Before any reference has been looked at."""
        none = zero.new_zeros(4, *zero.shape)
        colour, plain_colour = zero.new_zeros(2, len(zero), channels, *zero.shape[1:])
        return cls(zero + TINY, none[0], colour, none[1], plain_colour, none[2], zero - 1, none[3] - 1)

    @torch.no_grad()
    def add(self, view: Sighting) -> None:
        """Count one more reference."""
        square = view.colours.square().sum(1)
        self.total += view.weight
        self.count += view.seen
        self.colour.addcmul_(view.weight[:, None], view.colours)
        self.square.addcmul_(view.weight, square)
        self.plain_colour.addcmul_(view.seen[:, None], view.colours)
        self.plain_square.addcmul_(view.seen, square)
        # What is not seen counts as -1, the least that either can be.
        self.cosine = torch.maximum(self.cosine, (view.cosines + 1) * view.seen - 1)
        self.brightest = torch.maximum(self.brightest, (view.colours.amin(1) + 1) * view.seen - 1)

    @torch.no_grad()
    def numbers(self, references: Tensor) -> list[Tensor]:
        """Spread of colours with and without weights, best cosine, whiteness, share that sees the point, weight, and
        the brightest of the darkest channels: a point is empty where any reference sees a white background through it.
        """
        several = self.count.clamp_min(1)
        white = torch.sigmoid(40 * (self.brightest - 0.93))
        return [
            _deviation(self.square / self.total, self.colour / self.total[:, None]),
            _deviation(self.plain_square / several, self.plain_colour / several[:, None]),
            self.cosine, white, self.count / references, self.total.log() / 4, self.brightest,
        ]  # fmt: skip


def _deviation(square: Tensor, mean: Tensor) -> Tensor:
    return (square - mean.square().sum(1)).clamp_min(0).add(1e-4).sqrt()
