"""A tiny 3DRAE for tests: every part of it there, sizes pairwise different."""

from kaleidoscene.families.rae3d.config import EncoderConfig, Rae3dConfig
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.nn.dpt import DPTConfig
from tests.conftest import randomised

SIZE = (16, 24)
"""Two rows and three columns of patches."""


def tiny_rae3d_config(**changes) -> Rae3dConfig:
    values = {
        "width": 24, "heads": 3, "patch_size": 8, "tokens": 7, "neck_depth": 2, "decoder_depth": 5, "mlp_ratio": 2.0,
        "encoder": EncoderConfig(kind="image"), "points": DPTConfig(channels=(4, 8, 12, 16), fused=8, last=4),
        "point_layers": (0, 2, 3, 4),
    }  # fmt: skip
    return Rae3dConfig(**(values | changes))


def tiny_rae3d_settings(**changes) -> Rae3dSettings:
    return Rae3dSettings(model=tiny_rae3d_config(**changes), image_size=SIZE, field_of_view=49.1, targets_at_once=2)


def tiny_rae3d(**changes) -> Rae3d:
    """With random weights in every parameter, those of convolutions by what goes into them."""
    network = randomised(Rae3d(tiny_rae3d_config(**changes))).eval()
    for p in network.parameters():
        if p.ndim == 4:
            p.data *= (p.shape[-1] / p[0].numel()) ** 0.5
    return network
