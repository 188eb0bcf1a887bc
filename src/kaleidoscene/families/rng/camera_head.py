"""The head that tells cameras from the camera tokens of sources, in several goes (method B.6; VGGT)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.rng.camera_encoding import NUMBERS
from kaleidoscene.families.rng.config import CameraHeadConfig
from kaleidoscene.nn.precision import exact, no_autocast
from kaleidoscene.nn.vit import ViTBlock


class CameraHead(nn.Module):
    """Estimates cameras, and corrects what it estimated; computed in fp32 always.

    Args:
        width: Channels of a token of a layer.
        heads: Of attention among the sources.
        config: Size.
    """

    def __init__(self, width: int, heads: int, config: CameraHeadConfig) -> None:
        super().__init__()
        self.iterations = config.iterations
        self.token_norm, self.last_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.plain_norm = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.nothing_yet = nn.Parameter(torch.empty(NUMBERS))
        self.embed = nn.Linear(NUMBERS, width)
        self.modulation = nn.Linear(width, 3 * width)
        self.blocks = nn.ModuleList(
            [ViTBlock(width, heads, layer_scale=config.layer_scale) for _ in range(config.depth)]
        )
        self.hidden, self.out = nn.Linear(width, width // 2), nn.Linear(width // 2, NUMBERS)

    def forward(self, tokens: Float[Tensor, "batch views width"]) -> Float[Tensor, "iterations batch views 9"]:
        """All estimates, the best one last (:mod:`kaleidoscene.families.rng.camera_encoding`)."""
        with no_autocast(tokens):
            return self._estimates(self.token_norm(exact(tokens)))

    def _estimates(self, tokens: Tensor) -> Tensor:
        estimate, out = None, []
        for _ in range(self.iterations):
            known = self.nothing_yet.expand(*tokens.shape[:2], -1) if estimate is None else estimate.detach()
            shift, scale, gate = self.modulation(nn.functional.silu(self.embed(known))).chunk(3, dim=-1)
            x = tokens + gate * (self.plain_norm(tokens) * (1 + scale) + shift)
            for block in self.blocks:
                x, _ = block(x)
            change = self.out(nn.functional.gelu(self.hidden(self.last_norm(x))))
            estimate = change if estimate is None else known + change
            # Angles of view are never negative; gradients pass, or what was negative once would stay so (ours).
            angles = estimate[..., 7:]
            out.append(torch.cat([estimate[..., :7], angles + (angles.relu() - angles).detach()], dim=-1))
        return torch.stack(out)
