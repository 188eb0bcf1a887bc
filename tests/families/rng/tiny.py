"""A tiny RnG for tests: every part of it there, sizes pairwise different."""

import torch

from kaleidoscene.families.rng.config import CameraHeadConfig, EncoderConfig, RngConfig
from kaleidoscene.families.rng.initialisation import initialise
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.nn.dpt import DPTConfig
from tests.conftest import randomised

SIZE = (16, 24)
"""Two rows and three columns of patches."""


def tiny_config(**changes) -> RngConfig:
    values = {
        "width": 24, "depth": 5, "heads": 3, "registers": 2, "layer_scale": 0.5, "mlp_ratio": 2.0,
        "encoder": EncoderConfig(kind="patch", depth=1), "camera": CameraHeadConfig(depth=1, iterations=3),
        "dense": DPTConfig(channels=(4, 8, 12, 16), fused=8, last=4), "dense_layers": (0, 2, 3, 4),
    }  # fmt: skip
    return RngConfig(**(values | changes))


def tiny_settings(**changes) -> RngSettings:
    return RngSettings(model=tiny_config(**changes), image_size=SIZE, field_of_view=49.1, targets_at_once=2)


def tiny_network(**changes) -> Rng:
    """With random weights in every parameter, those of convolutions by what goes into them."""
    network = randomised(Rng(tiny_config(**changes))).eval()
    for p in network.parameters():
        if p.ndim == 4:
            p.data *= (p.shape[-1] / p[0].numel()) ** 0.5
    return network


def fresh_network(**changes) -> Rng:
    """As a training begins."""
    torch.manual_seed(0)
    network = Rng(tiny_config(**changes))
    initialise(network)
    return network
