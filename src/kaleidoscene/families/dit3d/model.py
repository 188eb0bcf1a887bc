"""3DDiT: the velocity of noisy scene tokens, given the tokens of what is seen (appendix B; method C.5).

A backbone of plain width and a wide head, whose modulation differs from token to token. A pure network: tensors in,
tensors out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from kaleidoscene.families.dit3d.config import Dit3dConfig
from kaleidoscene.nn.attention import attend
from kaleidoscene.nn.precision import exact

_FREQUENCIES = 256


class Dit3d(nn.Module):
    """The network; see the module's docstring.

    Args:
        config: Architecture.
    """

    other_forwards = ()

    def __init__(self, config: Dit3dConfig) -> None:
        super().__init__()
        self.config = config
        width, inside = config.width, config.channels * (2 if config.condition == "channels" else 1)
        self.slots = nn.Parameter(torch.empty(config.tokens, width))
        self.times = TimeEmbedding(width)
        self.labels = nn.Embedding(config.classes + 1, width) if config.classes else None
        self.embed = nn.Linear(inside, width)
        self.condition = nn.Linear(config.channels, width) if config.condition == "tokens" else None
        self.blocks = nn.ModuleList([Block(width, config.heads, width) for _ in range(config.depth)])
        self.to_head = nn.Linear(width, config.head_width) if width != config.head_width else nn.Identity()
        self.head_embed = nn.Linear(inside, config.head_width)
        wide = config.head_width
        self.head = nn.ModuleList([Block(wide, config.head_heads, wide) for _ in range(config.head_depth)])
        self.last = Last(wide, config.channels)

    def units(self) -> Mapping[str, nn.Module]:
        """Blocks of backbone and head, in the order they run."""
        units: dict[str, nn.Module] = {f"block {number}": block for number, block in enumerate(self.blocks)}
        return units | {f"head {number}": block for number, block in enumerate(self.head)}

    def muon_parameters(self) -> Sequence[str]:
        """Matrices of attention and feed-forwards."""
        inner = (".attention.", ".mlp.")
        return [name for name, p in self.named_parameters() if p.ndim == 2 and any(part in name for part in inner)]

    def forward(
        self,
        tokens: Float[Tensor, "batch latents channels"],
        t: Float[Tensor, " batch"],
        condition: Float[Tensor, "batch latents channels"],
        labels: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch latents channels"]:
        """The velocity, noise less data.

        Args:
            tokens: Noisy ones.
            t: Time, 0 is data and 1 is noise.
            condition: Tokens of the views that are seen, and of the poses of those that are not.
            labels: Class of each scene, ``classes`` for none; for networks that have labels.

        Raises:
            ValueError: Labels are given to a network without, or are missing.
        """
        if (labels is None) != (self.labels is None):
            raise ValueError("Labels go into a network that has classes, and into no other.")
        time = self.times(t)
        if self.labels is not None:
            time = time + self.labels(labels)
        together = torch.cat([tokens, condition], dim=-1) if self.condition is None else tokens
        x = self.embed(together) + self.slots
        if self.condition is not None:
            x = torch.cat([x, self.condition(condition) + self.slots], dim=1)
        for block in self.blocks:
            x = block(x, time[:, None])
        guide = self.to_head(nn.functional.silu(time[:, None] + x[:, : self.config.tokens]))
        y = exact(self.head_embed(together))  # the residual stream, as that of the backbone
        for block in self.head:
            y = block(y, guide)
        return exact(self.last(y, guide))


class TimeEmbedding(nn.Module):
    """Fixed Gaussian frequencies, then two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2 * _FREQUENCIES, width), nn.Linear(width, width)

    def forward(self, t: Float[Tensor, " batch"]) -> Float[Tensor, "batch width"]:
        """Embed times in [0, 1]."""
        angles = 2 * torch.pi * exact(t)[:, None] * _frequencies().to(t.device)
        return self.second(nn.functional.silu(self.first(torch.cat([angles.sin(), angles.cos()], dim=-1))))


@cache
def _frequencies() -> Float[Tensor, " frequencies"]:
    """The same for every network: drawn once and for all, so that no checkpoint has to hold them."""
    with torch.device("cpu"):
        return torch.randn(_FREQUENCIES, generator=torch.Generator().manual_seed(0))


class Attention(nn.Module):
    """Self-attention with biases of queries, keys and values, without their normalisation."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Mix all tokens."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(attend(q, k, v, scale=q.shape[-1] ** -0.5).transpose(1, 2).flatten(2))


class GatedMLP(nn.Module):
    """SwiGLU with biases and 8/3 of the width between its products, as LightningDiT has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = int(8 * width / 3)
        self.gate_and_up, self.down = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply to every token."""
        gate, up = self.gate_and_up(x).chunk(2, dim=-1)
        return self.down(nn.functional.silu(gate) * up)


class Block(nn.Module):
    """Attention and feed-forward behind RMSNorms, each shifted, scaled and gated by a condition of a scene or token."""

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention, self.mlp = Attention(width, heads), GatedMLP(width)
        self.modulation = nn.Linear(condition, 6 * width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], condition: Float[Tensor, "batch tokens_or_1 condition"]
    ) -> Float[Tensor, "batch tokens width"]:
        """Update every token."""
        vectors = exact(self.modulation(nn.functional.silu(condition))).chunk(6, dim=-1)
        shift, scale, gate = vectors[:3]
        x = x + gate * exact(self.attention(self.attention_norm(x) * (1 + scale) + shift))
        shift, scale, gate = vectors[3:]
        return x + gate * exact(self.mlp(self.mlp_norm(x) * (1 + scale) + shift))


class Last(nn.Module):
    """The last layer, shifted and scaled token by token."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.modulation, self.out = nn.Linear(width, 2 * width), nn.Linear(width, channels)

    def forward(self, x: Tensor, condition: Tensor) -> Float[Tensor, "batch tokens channels"]:
        """Channels of the tokens."""
        shift, scale = exact(self.modulation(nn.functional.silu(condition))).chunk(2, dim=-1)
        return self.out(self.norm(x) * (1 + scale) + shift)
