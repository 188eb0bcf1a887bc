"""A geometric prior for cross-view attention: look at tokens whose rays pass near a point on one's own ray.

Ours, not Kaleido's. GTA can learn to follow rays, but its logits are linear in pose entries, so that telling
neighbouring tokens apart takes large weights and long training. Here every head has a depth and a sharpness: query i
stands for the point p on its ray at that depth, key j for its ray, and the logit gets

    sharpness * (d_j . (p - c_j) / |c_j| - 1),

which is greatest for the ray of each view that passes through p. The term is an inner product of 4 numbers of the
query with 4 of the key, so that it rides along as channels of plain attention, and keys can be cached. Rotations of
the world leave it unchanged; the origin is that of the scene (its normalisation), from which depths are counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.nn.positions import ViewPositions

CHANNELS = 4
_CLOSEST = 0.1  # cameras nearer to the origin than this count as this far, in normalised units


@dataclass(frozen=True, eq=False)
class TokenRays:
    """Rays of the tokens of every view, in normalised world axes; zero for videos, which have none."""

    foot: Float[Tensor, "batch views tokens 3"]
    """The point of the ray nearest to the origin."""
    direction: Float[Tensor, "batch views tokens 3"]
    key: Float[Tensor, "batch views tokens 4"]
    """What the ray is as a key: ``(d, -d . c - |c|) / |c|``."""

    @classmethod
    def of(cls, positions: ViewPositions, grid: tuple[int, int]) -> TokenRays:
        """Rays through the centres of tokens, fp32."""
        with torch.autocast(positions.times.device.type, enabled=False):
            centre, direction = positions.rays(positions.tangents(grid))
            along = (direction * centre).sum(-1, keepdim=True)
            distance = centre.norm(dim=-1, keepdim=True).clamp_min(_CLOSEST)
            # "-1" is the same for all keys and so changes nothing, but keeps numbers small for bf16.
            key = torch.cat([direction / distance, -along / distance - 1], dim=-1)
            there = ~positions.is_video[:, None, None, None]
            return cls((centre - along * direction) * there, direction * there, key * there)


class RayBias(nn.Module):
    """Depth and sharpness of every head; starts with a spread of both."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.log_sharpness = nn.Parameter(torch.empty(heads))
        self.depth = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Sharpness from 10 to 250, depths from the origin's to 0.3 in front of it."""
        heads = len(self.depth)
        place = torch.arange(heads) / max(heads - 1, 1)
        with torch.no_grad():
            self.log_sharpness.copy_(torch.log(10 * 25**place))
            self.depth.copy_(-0.3 * ((torch.arange(heads) * 0.618 + 0.4) % 1))

    def queries(self, rays: TokenRays, scale: float) -> Float[Tensor, "batch views tokens heads 4"]:
        """Channels of the queries, such that logits that are multiplied by ``scale`` get the bias."""
        point = rays.foot[..., None, :] + self.depth[:, None] * rays.direction[..., None, :]
        there = (rays.key.abs().sum(-1) > 0).to(point.dtype)[..., None, None].expand(*point.shape[:-1], 1)
        return torch.cat([point, there], dim=-1) * (self.log_sharpness.exp() / scale)[:, None]
