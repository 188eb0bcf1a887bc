"""From latents and what is known of their views to tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.nn.precision import exact


class Embedder(nn.Module):
    """Tokens from latents, auxiliary features of references, ray maps and the role of a view (section 3.2.1 (v))."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        width, self.bands = config.width, config.camera_ray_bands
        rays = 6 * config.patch_size**2 if config.encoding.pose == "plucker" else 0
        self.latent = nn.Linear(config.patch_channels + rays, width, bias=False)
        if config.feature_channels:
            self.feature = nn.Linear(config.feature_channels, width, bias=False)
            self.null_feature = nn.Parameter(torch.zeros(config.feature_channels))
            self.join = nn.Linear(2 * width, width, bias=False)
        if config.role_embedding:
            self.role = nn.Embedding(2, width)
        if config.camera_ray_bands:
            self.camera_ray = nn.Linear(2 + 4 * config.camera_ray_bands, width, bias=False)

    def forward(
        self,
        patches: Float[Tensor, "batch views tokens patch"],
        features: Float[Tensor, "batch views tokens feature"] | None,
        is_target: Bool[Tensor, " views"],
        tangents: Float[Tensor, "batch views tokens 2"],
    ) -> Float[Tensor, "batch views tokens width"]:
        """Embed; targets get the learned null vector in place of features."""
        x = self.latent(patches)
        if hasattr(self, "join"):
            null = self.null_feature.expand(*patches.shape[:3], -1)
            if features is not None:
                null = torch.where(is_target[:, None, None], null, features.to(null.dtype))
            x = self.join(torch.cat([x, self.feature(null)], dim=-1))
        if hasattr(self, "role"):
            x = x + self.role(is_target.long())[:, None]
        if hasattr(self, "camera_ray"):
            x = x + self.camera_ray(_fourier_features(tangents, self.bands).to(self.camera_ray.weight.dtype))
        return exact(x)


def _fourier_features(x: Float[Tensor, "*batch c"], bands: int) -> Float[Tensor, "*batch more"]:
    """``x`` and its sines and cosines at octaves of pi / 2."""
    angle = (x[..., None] * (math.pi / 2 * 2 ** torch.arange(bands, device=x.device))).flatten(-2)
    return torch.cat([x, angle.sin(), angle.cos()], dim=-1)
