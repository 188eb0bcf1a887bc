"""Embedding of the flow time."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.nn.precision import exact


def sinusoid(
    t: Float[Tensor, "*batch"], channels: int = 256, max_period: float = 10_000.0
) -> Float[Tensor, "*batch c"]:
    """Cosines and sines of ``1000 t`` at geometric frequencies (DiT's timestep embedding)."""
    half = channels // 2
    t = exact(t)
    frequency = torch.exp(-math.log(max_period) * torch.arange(half, dtype=t.dtype, device=t.device) / half)
    angle = 1000.0 * t[..., None] * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


class TimestepEmbedding(nn.Module):
    """``Linear SiLU Linear`` on the sinusoid of t; t = 0 is data, t = 1 is noise."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(256, width)
        self.second = nn.Linear(width, width)

    def reset_parameters(self) -> None:
        """Normal with standard deviation 0.02, as in DiT."""
        for layer in (self.first, self.second):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Embed times in [0, 1]."""
        return self.second(nn.functional.silu(self.first(sinusoid(t))))
