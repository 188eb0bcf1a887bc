"""How alike references are around points: the cost volume of a plane sweep, averaged over windows.

Ours, not Kaleido's. Colours of one pixel agree at many depths by chance, those of a neighbourhood seldom do. How far
colours of references differ is averaged, at each depth, over windows of every second pixel of every second row, and
compared with what it comes to at the other depths of the same ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.agreement import TINY
from kaleidoscene.families.kaleido.ray_points import RayPoints, Sources

STRIDE = 2
"""Of the pixels that windows are made of."""
NUMBERS = 2
"""For each window."""
# How much likelier a place of a ray becomes as colours of pixels in [-1, 1] differ by less.
_SHARPNESS = 10.0
_NEVER = -1e4


def around(
    deviation: Float[Tensor, "batch targets points rows cols"],
    several: Bool[Tensor, "batch targets points rows cols"],
    windows: Sequence[int],
) -> Float[Tensor, "batch numbers targets points rows cols"]:
    """How far references differ in each window, and how likely that makes a point among those of its ray.

    The latter is a logarithm, 0 where all are alike. Both are 0 where no point of a window is seen by several.

    Args:
        deviation: Of colours between references.
        several: Whether two references or more see a point.
        windows: Their sides, odd.
    """
    shape, numbers = deviation.shape, []
    square, known = (deviation.square() * several).flatten(0, 1), several.to(deviation.dtype).flatten(0, 1)
    for window in windows:
        mean, seen = (nn.functional.avg_pool2d(x, window, 1, window // 2) for x in (square, known))
        enough = seen > TINY
        spread = (mean / seen.clamp_min(TINY)).sqrt()
        score = (-_SHARPNESS * spread).masked_fill(~enough, _NEVER)
        score = score - score.logsumexp(1, keepdim=True) + enough.sum(1, keepdim=True).clamp_min(1).log()
        numbers += [(x * enough).view(shape) for x in (spread, score)]
    return torch.stack(numbers, 1)


def spread_at(
    sources: Sources, points: RayPoints
) -> tuple[Float[Tensor, "batch targets depths pixels"], Float[Tensor, "batch targets depths pixels"]]:
    """How far colours of references differ at points, as :class:`Agreement` has it, and how many see each."""
    total, count, square = (torch.zeros_like(points.square) for _ in range(3))
    colour = total.new_zeros(len(total), sources.latents.shape[2], *total.shape[1:])
    for view in points.seen_from(replace(sources, features=None)):
        total, count = total + view.weight, count + view.seen
        colour = colour.addcmul_(view.weight[:, None], view.colours)
        square = square.addcmul_(view.weight, view.colours.square().sum(1))
    total = total + TINY
    mean = colour / total[:, None]
    return (square / total - mean.square().sum(1)).clamp_min(0).add(1e-4).sqrt(), count


@dataclass(frozen=True, eq=False)
class Volume:
    """What windows say of points, at every :data:`STRIDE`-th pixel of every such row of some views.

    Attributes:
        numbers: As :func:`around` has them.
        size: Rows and columns of the views.
    """

    numbers: Float[Tensor, "batch numbers targets points rows cols"]
    size: tuple[int, int]

    def at(self, places: Float[Tensor, "pixels 2"]) -> Float[Tensor, "batch numbers targets points pixels"]:
        """Linearly interpolated, at x and y as shares of the image."""
        shape, (rows, cols) = self.numbers.shape, self.numbers.shape[-2:]
        index = (places * places.new_tensor(self.size[::-1]) - 0.5) / STRIDE
        grid = ((2 * index + 1) / places.new_tensor([cols, rows]) - 1).expand(shape[0], 1, -1, -1)
        maps = self.numbers.flatten(1, 3)
        found = nn.functional.grid_sample(maps, grid, align_corners=False, padding_mode="border")
        return found[:, :, 0].unflatten(1, shape[1:4])
