"""Tokens of views: patches of source images, rays of targets, and the learned ones beside them (method B.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.encoders.features import IMAGENET_MEAN, IMAGENET_STD
from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.nn.patches import patchify
from kaleidoscene.nn.precision import exact
from kaleidoscene.nn.rotary import grid_angles
from kaleidoscene.nn.vit import ViTBlock

FIRST, OTHER = 0, 1
"""Which set of camera and register tokens a view gets: the first source has its own, all others and targets share."""


class PatchEncoder(nn.Module):
    """Patches of an image through a linear layer and a few blocks of their own."""

    def __init__(self, config: RngConfig) -> None:
        super().__init__()
        self.patch_size, self.head_dim = config.patch_size, config.width // config.heads
        self.embed = nn.Linear(3 * config.patch_size**2, config.width)
        self.blocks = nn.ModuleList([
            ViTBlock(config.width, config.heads, mlp_ratio=config.mlp_ratio, query_key_norm=True)
            for _ in range(config.encoder.depth)
        ])  # fmt: skip
        self.norm = nn.LayerNorm(config.width)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n tokens width"]:
        """Tokens of images that are standardised."""
        grid = (images.shape[-2] // self.patch_size, images.shape[-1] // self.patch_size)
        angles = grid_angles(grid, self.head_dim, device=images.device)
        x = exact(self.embed(patchify(images, self.patch_size)))
        for block in self.blocks:
            x, _ = block(x, angles)
        return self.norm(x)


class SpecialTokens(nn.Module):
    """Two sets of a camera token and registers, for the first source and for all other views."""

    def __init__(self, width: int, registers: int) -> None:
        super().__init__()
        self.tokens = nn.Parameter(torch.empty(2, 1 + registers, width))

    def reset_parameters(self) -> None:
        """Next to nothing."""
        nn.init.normal_(self.tokens, std=1e-6)

    def of_sources(self, views: int) -> Float[Tensor, "views special width"]:
        """One set a source."""
        return torch.cat([self.tokens[FIRST][None], self.tokens[OTHER].expand(views - 1, -1, -1)])

    def of_targets(self) -> Float[Tensor, "special width"]:
        """The set of every target."""
        return self.tokens[OTHER]


class Embedder(nn.Module):
    """Source images and target rays to tokens, the special ones first.

    Args:
        config: Of the network.
    """

    def __init__(self, config: RngConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.special = SpecialTokens(config.width, config.registers)
        self.images = PatchEncoder(config) if config.encoder.kind == "patch" else None
        self.rays = nn.Linear(6 * config.patch_size**2, config.width, bias=False)

    def sources(
        self, images: Float[Tensor, "batch views 3 h w"], features: Float[Tensor, "batch views tokens width"] | None
    ) -> Float[Tensor, "batch views all_tokens width"]:
        """Tokens of sources.

        Args:
            images: RGB in [0, 1].
            features: Tokens of a frozen encoder, where the network has none of its own, and only there.

        Raises:
            ValueError: They are missing, or would not be looked at.
        """
        if (features is None) != (self.images is not None):
            raise ValueError("Features of sources go into a network that has no encoder of its own, and into no other.")
        if self.images is not None:
            features = self.images(standardise(images).flatten(0, 1)).unflatten(0, images.shape[:2])
        assert features is not None
        special = self.special.of_sources(images.shape[1]).to(features.dtype)
        return torch.cat([special.expand(len(images), -1, -1, -1), features], dim=2)

    def targets(self, rays: Float[Tensor, "batch views h w 6"]) -> Float[Tensor, "batch views all_tokens width"]:
        """Tokens of targets from the Pluecker coordinates ``(d, o x d)`` of their pixels; moments come first."""
        x = self.rays(patchify(rays.roll(3, dims=-1).movedim(-1, 2), self.patch_size))
        special = self.special.of_targets().to(x.dtype)
        return torch.cat([special.expand(*x.shape[:2], -1, -1), x], dim=2)


def standardise(images: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """RGB in [0, 1] less ImageNet's mean, over its deviation."""
    mean, std = (torch.tensor(x, dtype=images.dtype, device=images.device) for x in (IMAGENET_MEAN, IMAGENET_STD))
    return (images - mean[:, None, None]) / std[:, None, None]
