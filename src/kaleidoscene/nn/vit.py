"""Pre-norm transformer blocks as vision transformers have them, with keys and values that may come from elsewhere."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.nn.attention import attend
from kaleidoscene.nn.mlp import GeluMLP
from kaleidoscene.nn.rotary import rotate

KeysAndValues = tuple[Float[Tensor, "_ heads _ dim"], Float[Tensor, "_ heads _ dim"]]


class ViTAttention(nn.Module):
    """Multi-head attention with biases; queries and keys may be normalised and turned by their place.

    Args:
        width: Channels of a token.
        heads: Number of heads.
        query_key_norm: LayerNorm of the queries and keys of a head, before they are turned.
    """

    def __init__(self, width: int, heads: int, *, query_key_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.query_norm = nn.LayerNorm(width // heads) if query_key_norm else nn.Identity()
        self.key_norm = nn.LayerNorm(width // heads) if query_key_norm else nn.Identity()
        self.out = nn.Linear(width, width)

    def project(
        self, x: Float[Tensor, "batch tokens width"], angles: Float[Tensor, "tokens dim"] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values ``(batch, heads, tokens, dim)`` as attention meets them."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = self.query_norm(q), self.key_norm(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        return q.to(v.dtype), k.to(v.dtype), v

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, bias: Tensor | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """What the queries take of the values."""
        out = attend(q, k, v, scale=q.shape[-1] ** -0.5, mask=mask, bias=bias)
        return self.out(out.transpose(1, 2).flatten(2))


class LayerScale(nn.Module):
    """A learned factor for every channel of a residual branch (Touvron et al. 2021)."""

    def __init__(self, width: int, initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.gamma = nn.Parameter(torch.empty(width))

    def reset_parameters(self) -> None:
        """Start at the initial factor."""
        nn.init.constant_(self.gamma, self.initial)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Scale every channel."""
        return x * self.gamma


class ViTBlock(nn.Module):
    """Attention and feed-forward, each behind a LayerNorm.

    Args:
        width: Channels of a token.
        heads: Of attention.
        mlp_ratio: Hidden channels of the feed-forward over ``width``.
        query_key_norm: See :class:`ViTAttention`.
        layer_scale: First value of LayerScale; None: without.
    """

    def __init__(
        self, width: int, heads: int, *, mlp_ratio: float = 4.0, query_key_norm: bool = False,
        layer_scale: float | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = ViTAttention(width, heads, query_key_norm=query_key_norm)
        self.mlp = GeluMLP(width, round(width * mlp_ratio), approximate="none")
        scaled = layer_scale is not None
        self.attention_scale = LayerScale(width, layer_scale) if scaled else nn.Identity()
        self.mlp_scale = LayerScale(width, layer_scale) if scaled else nn.Identity()

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        angles: Float[Tensor, "tokens dim"] | None = None,
        earlier: KeysAndValues | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], KeysAndValues]:
        """Update every token.

        Args:
            x: Tokens.
            angles: Places of the tokens.
            earlier: Keys and values that stand before those of ``x``; they see nothing and are not changed.
            mask: True where a query may attend, over the keys of ``earlier`` and ``x``.
            bias: Added to the logits of the same keys.

        Returns:
            The tokens, and the keys and values of ``x`` as attention met them.
        """
        q, k, v = self.attention.project(self.attention_norm(x), angles)
        keys, values = (k, v) if earlier is None else (torch.cat([earlier[0], k], 2), torch.cat([earlier[1], v], 2))
        x = x + self.attention_scale(self.attention.mix(q, keys, values, mask, bias))
        return x + self.mlp_scale(self.mlp(self.mlp_norm(x))), (k, v)
