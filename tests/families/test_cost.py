"""Counted operations and memory against PyTorch's own counter and real tensors."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.families.kaleido.cost import Request, cache_bytes, forward_flops
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions
from tests.conftest import CAUSAL, tiny_config


@pytest.mark.parametrize(
    "changes",
    [
        dict(), dict(window=2), dict(depth=5, kv_heads=2), dict(reprojection_depths=200),
        dict(latent_channels=3, patch_size=16, reprojection_depths=40, matched_windows=(3, 5, 7)),
        dict(latent_channels=3, patch_size=16, reprojection_depths=20, refined_points=9),
    ],
)  # fmt: skip
def test_operations_agree_with_the_counter(changes):
    config: KaleidoConfig = tiny_config(**changes)
    model = Kaleido(config).eval()
    latents = torch.randn(2, 5, config.latent_channels, 4 * config.patch_size, 6 * config.patch_size)
    positions = ViewPositions.from_poses(random_rigid(2, 5))
    # The counter knows matrix products, not the fused CPU kernel.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(latents, torch.tensor([0.5, 0.6]), positions, 2)
    expected = forward_flops(config, Request(5, 5, (4, 6), batch=2, composed=3 / 5))
    # Not counted: registers, transforms and the timestep embedding; the counter sees targets alone at the head.
    assert expected == pytest.approx(counter.get_total_flops(), rel=0.12)


@pytest.mark.parametrize("ray_bias", [False, True])
def test_cache_memory_is_exact(ray_bias):
    config = tiny_config(**CAUSAL, ray_bias=ray_bias)
    cache = Kaleido(config).allocate_cache(1, 3, (4, 6), torch.float32)
    assert cache.nbytes == cache_bytes(config, 3, (4, 6), 4)
