"""Feed-forward layers: gated, and the plain one of earlier transformers."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn


def swiglu_width(width: int) -> int:
    """Hidden channels 8/3 width, rounded up to a multiple of 256 (Llama; method A.3)."""
    return -(-(8 * width) // (3 * 256)) * 256


class SwiGLU(nn.Module):
    """``W2(silu(W1 x) * W3 x)`` without biases (Shazeer 2020); W1 and W3 stand in one matrix."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_and_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply to every token."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(torch.nn.functional.silu(gate) * up)


class GeluMLP(nn.Module):
    """``W2 gelu(W1 x)`` with biases, as in DiT: the baseline of the ablation (Kaleido Table 4 (i)), and of RnG.

    Args:
        width: Channels of a token.
        hidden: Channels between the two products.
        approximate: ``tanh`` as in DiT, or ``none`` as in vision transformers.
    """

    def __init__(self, width: int, hidden: int, *, approximate: Literal["tanh", "none"] = "tanh") -> None:
        super().__init__()
        self.approximate: str = approximate
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply to every token."""
        return self.down(torch.nn.functional.gelu(self.up(x), approximate=self.approximate))
