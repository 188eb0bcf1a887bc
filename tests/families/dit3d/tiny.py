"""A tiny 3DDiT over the tokens of the tiny 3DRAE."""

from pathlib import Path

import torch

from kaleidoscene.families.dit3d.checkpoint import Autoencoder
from kaleidoscene.families.dit3d.config import Dit3dConfig
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.renderer import Dit3dRenderer
from kaleidoscene.families.dit3d.settings import Dit3dSampling, Dit3dSettings
from kaleidoscene.families.rae3d.checkpoint import save_model
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.statistics import TokenStatistics
from tests.conftest import randomised
from tests.families.rae3d.tiny import SIZE, tiny_rae3d, tiny_rae3d_settings


def tiny_dit3d_config(**changes) -> Dit3dConfig:
    values = {
        "depth": 2, "width": 18, "heads": 3, "tokens": 7, "channels": 24, "head_depth": 2, "head_width": 20,
        "head_heads": 5,
    }  # fmt: skip
    return Dit3dConfig(**(values | changes))


def tiny_dit3d_settings(
    autoencoder: Path | str = "none", *, steps=3, guidance=2.0, decode_from=None, **changes
) -> Dit3dSettings:
    return Dit3dSettings(
        model=tiny_dit3d_config(**changes), autoencoder=str(autoencoder), image_size=SIZE, field_of_view=49.1,
        sampling=Dit3dSampling(steps=steps, guidance=guidance, poses=2, decode_from=decode_from),
    )  # fmt: skip


def tiny_dit3d(**changes) -> Dit3d:
    """With random weights in every parameter."""
    return randomised(Dit3d(tiny_dit3d_config(**changes))).eval()


def tiny_statistics() -> TokenStatistics:
    draw = torch.Generator().manual_seed(4)
    return TokenStatistics(torch.randn(7, 24, generator=draw), 0.5 + torch.rand(7, 24, generator=draw))


def tiny_autoencoder() -> Autoencoder:
    return Autoencoder(Rae3dRenderer(tiny_rae3d(), tiny_rae3d_settings()), tiny_statistics())


def write_autoencoder(folder: Path) -> Path:
    save_model(folder, tiny_rae3d_settings(), dict(tiny_rae3d().named_parameters()))
    tiny_statistics().save(folder)
    return folder


def tiny_renderer(model=None, **changes) -> Dit3dRenderer:
    sampling = {name: changes.pop(name) for name in ("steps", "guidance", "decode_from") if name in changes}
    settings = tiny_dit3d_settings(**sampling, **changes)
    return Dit3dRenderer(model or tiny_dit3d(**changes), settings, tiny_autoencoder())
