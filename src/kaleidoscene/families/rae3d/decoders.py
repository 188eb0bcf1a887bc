"""Transformer blocks of 3DRAE, and its decoders: latents and rays to images and points (method C.1, C.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.places import Nearness
from kaleidoscene.nn.dpt import DPTHead
from kaleidoscene.nn.patches import unpatchify
from kaleidoscene.nn.precision import exact
from kaleidoscene.nn.vit import KeysAndValues, ViTBlock


class Blocks(nn.Module):
    """Pre-norm transformer blocks over one sequence, or over targets that see latents (method C.1, C.2)."""

    def __init__(self, config: Rae3dConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([
            ViTBlock(config.width, config.heads, mlp_ratio=config.mlp_ratio) for _ in range(depth)
        ])  # fmt: skip

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        earlier: Sequence[KeysAndValues] | None = None,
        bias: Float[Tensor, "batch_or_1 heads queries keys"] | None = None,
    ) -> tuple[Tensor, list[Tensor], list[KeysAndValues]]:
        """The tokens at the end and behind every block, and the keys and values of every block."""
        behind, kept = [], []
        for number, block in enumerate(self.blocks):
            x, own = block(x, None, None if earlier is None else earlier[number], None, bias)
            behind.append(x)
            kept.append(own)
        return x, behind, kept


class Decoder(nn.Module):
    """Latents and rays of a view to its image."""

    def __init__(self, config: Rae3dConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = Blocks(config, config.decoder_depth)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, 3 * config.patch_size**2)

    def forward(
        self, latents: Tensor, rays: Tensor, grid: tuple[int, int], near: Nearness | None = None
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n tokens width"]]:
        """Images of ``n`` views, as many for each scene, and what the last matrix was applied to."""
        x = self.norm(behind_blocks(self.blocks, latents, rays, self.config.decoder, near)[-1])
        return 0.5 + 0.5 * unpatchify(exact(self.out(x)), self.config.patch_size, grid), x


class PointDecoder(nn.Module):
    """Latents and rays of a view to a world point for every pixel, with a confidence."""

    def __init__(self, config: Rae3dConfig) -> None:
        super().__init__()
        assert config.points is not None
        self.config = config
        self.blocks = Blocks(config, config.decoder_depth)
        self.head = DPTHead(config.width, config.patch_size, 4, config.points)

    def forward(
        self, latents: Tensor, rays: Tensor, grid: tuple[int, int], near: Nearness | None = None
    ) -> tuple[Float[Tensor, "n h w 3"], Float[Tensor, "n h w"]]:
        """Points and confidence of ``n`` views, as many for each scene."""
        behind = behind_blocks(self.blocks, latents, rays, self.config.decoder, near)
        dense = self.head([behind[number] for number in self.config.point_layers], grid)
        places = dense[:, :3]
        return (places.sign() * places.abs().expm1()).movedim(1, -1), 1 + dense[:, 3].exp()


def behind_blocks(
    blocks: Blocks,
    latents: Float[Tensor, "batch latents width"],
    rays: Float[Tensor, "views tokens width"],
    kind: str,
    near: Nearness | None = None,
) -> list[Float[Tensor, "views tokens width"]]:
    """Tokens of views behind every block, each view with the latents of its scene.

    Args:
        blocks: Of a decoder.
        latents: Of scenes.
        rays: Tokens of the views of all scenes, as many for each, scene by scene.
        kind: ``full`` or ``causal``, see :class:`kaleidoscene.families.rae3d.config.Rae3dConfig`.
        near: Of located latents; None of others.
    """
    views, count = len(rays) // len(latents), latents.shape[1]
    latents = latents.to(rays.dtype)
    if kind == "full":
        together = torch.cat([latents.repeat_interleave(views, 0), rays], dim=1)
        return [x[:, count:] for x in blocks(together, bias=None if near is None else near.of_all)[1]]
    _, _, kept = blocks(latents, bias=None if near is None else near.of_latents)
    repeated = [(_for_views(k, views), _for_views(v, views)) for k, v in kept]
    return blocks(rays, repeated, None if near is None else near.of_tokens)[1]


def _for_views(x: Float[Tensor, "batch heads tokens dim"], views: int) -> Tensor:
    """The same scene for every view; without a copy where there is one scene."""
    return x.expand(views, -1, -1, -1) if len(x) == 1 else x.repeat_interleave(views, 0)
