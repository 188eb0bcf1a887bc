"""How long reprojection takes on this machine, from a moment of it."""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.families.kaleido.ray_points import Sources
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.nn.positions import ViewPositions


def seconds_of_lookups(lookups: int, device: str) -> float:
    """Time that so many lookups of reprojection take here, from some of them; 0 for none."""
    if not lookups:
        return 0.0
    views, depths, references, h, w = 1, 32, 2, 48, 80
    positions = ViewPositions.from_poses(_facing(views + references).to(device))
    layer = Reprojection(64, 3, depths).to(device).eval()
    images = torch.rand(1, views + references, 3, h, w, device=device)
    surfaces = torch.zeros(1, references, h // 4, w // 4, device=device)
    sources = Sources(images[:, views:], surfaces, positions.select(slice(views, None)))
    tokens = torch.randn(1, views, 15, 64, device=device)

    @torch.no_grad()
    def once() -> None:
        layer(images[:, :views], tokens, sources, positions.select(slice(0, views)), (3, 5)).sum().item()

    once()
    started = time.perf_counter()
    for _ in range(3):
        once()
    return lookups * (time.perf_counter() - started) / (3 * h * w * depths * (references + 2))


def _facing(count: int) -> Float[Tensor, "1 count 4 4"]:
    """World-to-camera poses side by side at distance 1 from the origin."""
    poses = torch.eye(4).repeat(1, count, 1, 1)
    poses[..., 0, 3] = 0.1 * torch.arange(count)
    poses[..., 2, 3] = 1.0
    return poses
