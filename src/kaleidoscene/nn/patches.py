"""Images or latents to tokens and back."""

from jaxtyping import Float
from torch import Tensor


def patchify(x: Float[Tensor, "*batch c h w"], size: int) -> Float[Tensor, "*batch tokens patch"]:
    """Cut into ``size`` x ``size`` patches, row by row; a patch is laid out as (c, row, col)."""
    *batch, c, h, w = x.shape
    x = x.reshape(*batch, c, h // size, size, w // size, size)
    n = len(batch)
    order = (*range(n), n + 1, n + 3, n, n + 2, n + 4)
    return x.permute(*order).reshape(*batch, (h // size) * (w // size), c * size * size)


def unpatchify(
    x: Float[Tensor, "*batch tokens patch"], size: int, grid: tuple[int, int]
) -> Float[Tensor, "*batch c h w"]:
    """Inverse of :func:`patchify` for a token grid of ``grid`` rows and columns."""
    *batch, _, patch = x.shape
    rows, cols = grid
    x = x.reshape(*batch, rows, cols, patch // size**2, size, size)
    n = len(batch)
    order = (*range(n), n + 2, n, n + 3, n + 1, n + 4)
    return x.permute(*order).reshape(*batch, patch // size**2, rows * size, cols * size)
