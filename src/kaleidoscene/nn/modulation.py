"""Adaptive layer norm: how the timestep enters a block (AdaLN-Zero and the two ablated variants)."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.errors import unknown_name
from kaleidoscene.nn.precision import exact

ModulationKind = Literal["full", "shift", "none"]
_VECTORS = {"full": 3, "shift": 1, "none": 0}


def layer_norm(x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Layer norm without affine parameters, epsilon 1e-6, in at least fp32 (method A.3)."""
    x = exact(x)
    return nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)


class Modulation(nn.Module):
    """Shift, scale and gate of ``sublayers`` residual sub-layers from the condition of each view.

    ``full`` is AdaLN-Zero: 3 vectors a sub-layer, 9 a block. ``shift`` keeps the shift alone and ``none`` nothing
    (Kaleido Table 4 (vi)); both add their sub-layers ungated.
    """

    def __init__(self, kind: ModulationKind, condition_width: int, width: int, sublayers: int) -> None:
        super().__init__()
        if kind not in _VECTORS:
            raise unknown_name("kind of modulation", kind, _VECTORS)
        self.kind: ModulationKind = kind
        self.sublayers = sublayers
        if kind != "none":
            self.linear = nn.Linear(condition_width, _VECTORS[kind] * sublayers * width)

    def reset_parameters(self) -> None:
        """Zero, so that every block starts as the identity (kind ``full``)."""
        if self.kind != "none":
            nn.init.zeros_(self.linear.weight)
            nn.init.zeros_(self.linear.bias)

    def forward(self, condition: Float[Tensor, "batch views condition"]) -> list[SublayerModulation]:
        """One modulation for each sub-layer."""
        if self.kind == "none":
            return [SublayerModulation()] * self.sublayers
        vectors = exact(self.linear(nn.functional.silu(condition)))[:, :, None]
        if self.kind == "shift":
            return [SublayerModulation(shift=shift) for shift in vectors.chunk(self.sublayers, dim=-1)]
        parts = vectors.chunk(3 * self.sublayers, dim=-1)
        return [SublayerModulation(*parts[3 * n : 3 * n + 3]) for n in range(self.sublayers)]


class SublayerModulation:
    """Shift and scale before, gate after one sub-layer; vectors are ``(batch, views, 1, width)`` or None."""

    def __init__(self, shift: Tensor | None = None, scale: Tensor | None = None, gate: Tensor | None = None) -> None:
        self.shift, self.scale, self.gate = shift, scale, gate

    def enter(self, x: Float[Tensor, "batch views tokens width"]) -> Float[Tensor, "batch views tokens width"]:
        """``LN(x) * (1 + scale) + shift``."""
        y = layer_norm(x)
        if self.scale is not None and self.shift is not None:
            return torch.addcmul(self.shift, y, 1 + self.scale)
        return y if self.shift is None else y + self.shift

    def leave(
        self, x: Float[Tensor, "batch views tokens width"], update: Float[Tensor, "batch views tokens width"]
    ) -> Float[Tensor, "batch views tokens width"]:
        """``x + gate * update``; the residual stream stays fp32."""
        return x + update if self.gate is None else torch.addcmul(x, self.gate, exact(update))
