"""First weights of a 3DRAE network."""

from __future__ import annotations

from torch import nn

from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.nn.vit import LayerScale


def initialise(unit: nn.Module) -> None:
    """First weights of a part: normal matrices and latents of 0.02, convolutions as PyTorch has them.

    Args:
        unit: A child of :class:`kaleidoscene.families.rae3d.model.Rae3d`, or the network itself for its latents.
    """
    if isinstance(unit, Rae3d):
        nn.init.trunc_normal_(unit.latents, std=0.02)
    for module in unit.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.GroupNorm | nn.LayerNorm | LayerScale):
            module.reset_parameters()
