"""What tokens say of parts of their patch: numbers of cells, and of pixels between them."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

CELLS = 4
"""Rows and columns of a token in which a network speaks of depths."""


def cells_of(
    x: Float[Tensor, "batch views tokens numbers"], grid: tuple[int, int]
) -> Float[Tensor, "batch views some rows cols"]:
    """Numbers of tokens, ``CELLS`` x ``CELLS`` times some, as maps."""
    x = x.unflatten(-1, (CELLS, CELLS, -1)).unflatten(2, grid)
    return x.permute(0, 1, 6, 2, 4, 3, 5).flatten(3, 4).flatten(4, 5)


def between_cells(
    maps: Float[Tensor, "batch views numbers rows cols"], places: Float[Tensor, "pixels 2"]
) -> Float[Tensor, "batch views numbers pixels"]:
    """Numbers of cells, linearly interpolated at ``places`` (x and y as shares of the image)."""
    grid = (2 * places - 1).expand(maps.shape[0] * maps.shape[1], 1, -1, -1)
    found = nn.functional.grid_sample(maps.flatten(0, 1), grid, align_corners=False, padding_mode="border")
    return found[:, :, 0].unflatten(0, maps.shape[:2])


def between_depths(
    numbers: Float[Tensor, "batch views depths pixels"], times: int
) -> Float[Tensor, "batch views finer pixels"]:
    """Numbers of ``times`` as many points on rays, linearly interpolated."""
    size = (times * numbers.shape[2], numbers.shape[3])
    return nn.functional.interpolate(numbers, size, mode="bilinear") if numbers.shape[2] else numbers
