"""Query, key, value and output projections of an attention layer."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.nn.modulation import layer_norm
from kaleidoscene.nn.precision import exact

SCALE = HEAD_DIM**-0.5


class Projections(nn.Module):
    """The four projections of one attention layer, without biases (method A.3)."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.kv_heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.kv_heads * HEAD_DIM, bias=False)
        self.value = nn.Linear(config.width, config.kv_heads * HEAD_DIM, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)
        self.normalise = config.query_key_norm

    def forward(self, x: Float[Tensor, "batch views tokens width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Heads of queries, keys and values, each ``(batch, views, tokens, heads, 64)``, for transforms of at least
        fp32.
        """
        q = exact(self.query(x).unflatten(-1, (self.heads, HEAD_DIM)))
        k = exact(self.key(x).unflatten(-1, (self.kv_heads, HEAD_DIM)))
        v = exact(self.value(x).unflatten(-1, (self.kv_heads, HEAD_DIM)))
        return (layer_norm(q), layer_norm(k), v) if self.normalise else (q, k, v)


def compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products run in here: autocast's, where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
