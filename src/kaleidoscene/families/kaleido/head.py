"""From tokens to patches: the last norm and the last projection."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.nn.modulation import layer_norm
from kaleidoscene.nn.precision import exact


class FinalModulation(nn.Module):
    """Layer norm before the head, with shift and scale from the timestep (DiT's final layer).

    Without modulation (``modulation="none"``, Kaleido Table 4 (vi)) the timestep does not enter here either.
    """

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.condition_channels, 2 * config.width) if config.modulation != "none" else None

    def reset_parameters(self) -> None:
        """Zero: plain layer norm at the start."""
        if self.linear is not None:
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(
        self, x: Float[Tensor, "batch views tokens width"], condition: Float[Tensor, "batch views condition"]
    ) -> Float[Tensor, "batch views tokens width"]:
        """``LN(x) * (1 + scale) + shift``."""
        normed = layer_norm(x)
        if self.linear is None:
            return normed
        shift, scale = exact(self.linear(nn.functional.silu(condition)))[:, :, None].chunk(2, dim=-1)
        return torch.addcmul(shift, normed, 1 + scale)


class Head(nn.Linear):
    """The last projection, from tokens to patches; zero at first."""

    def reset_parameters(self) -> None:
        """Zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)
