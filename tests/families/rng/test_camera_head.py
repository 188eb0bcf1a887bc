"""The head that tells cameras."""

import torch

from kaleidoscene.families.rng.camera_head import CameraHead
from kaleidoscene.families.rng.config import CameraHeadConfig
from tests.conftest import randomised


def test_an_angle_that_is_negative_is_zero_and_learns_to_be_otherwise():
    head = randomised(CameraHead(24, 3, CameraHeadConfig(depth=1, iterations=2)))
    with torch.no_grad():
        head.out.bias[8] = -9.0
    estimates = head(torch.randn(2, 3, 24, generator=torch.Generator().manual_seed(0)))
    assert not estimates[..., 8].any() and (estimates[..., 7:] >= 0).all()
    (0.8 - estimates[..., 8]).abs().mean().backward()
    assert head.out.bias.grad is not None and float(head.out.bias.grad[8]) < 0
