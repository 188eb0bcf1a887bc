"""Rotary position embedding over the rows and columns of a token grid (Su et al. 2021, in two dimensions)."""

import torch
from jaxtyping import Float
from torch import Tensor


def grid_angles(
    grid: tuple[int, int], head_dim: int, *, special: int = 0, base: float = 100.0, device: torch.device | None = None
) -> Float[Tensor, "tokens dim"]:
    """Angles of every token: the first half of the channels turns with the row, the second with the column.

    Args:
        grid: Rows and columns of patch tokens; their positions begin at 1.
        head_dim: Channels of a head, a multiple of 4.
        special: Tokens before the patches that have no place in the image; they stand at position 0, where nothing
            turns.
        base: Of the geometric frequencies.
        device: Of the angles, which are fp32.

    Raises:
        ValueError: ``head_dim`` does not divide by 4.
    """
    if head_dim % 4:
        raise ValueError(f"Two-dimensional rotary embedding needs heads of a multiple of 4 channels, got {head_dim}.")
    quarter = head_dim // 4
    frequencies = base ** (-torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    row, column = (torch.arange(1, side + 1, dtype=torch.float32, device=device) for side in grid)
    places = torch.stack(torch.meshgrid(row, column, indexing="ij"), dim=-1).flatten(0, 1)
    places = torch.cat([places.new_zeros(special, 2), places])
    angles = places[:, :, None] * frequencies
    # The two halves of an axis are the two coordinates that turn together.
    return torch.cat([angles, angles], dim=-1).flatten(1)


def rotate(x: Float[Tensor, "batch heads tokens dim"], angles: Float[Tensor, "tokens dim"]) -> Tensor:
    """Turn queries or keys by the angles of their tokens."""
    quarter = x.shape[-1] // 4
    a, b, c, d = x.split(quarter, dim=-1)
    turned = torch.cat([-b, a, -d, c], dim=-1)
    return x * angles.cos().to(x.dtype) + turned * angles.sin().to(x.dtype)
