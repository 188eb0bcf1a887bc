"""First weights of an RnG network."""

from __future__ import annotations

from torch import nn

from kaleidoscene.families.rng.camera_head import CameraHead
from kaleidoscene.families.rng.tokens import SpecialTokens
from kaleidoscene.nn.vit import LayerScale


def initialise(unit: nn.Module) -> None:
    """First weights of a part: normal linears of 0.02 as in DINOv2, convolutions as PyTorch has them.

    Args:
        unit: A layer, or another child of :class:`kaleidoscene.families.rng.model.Rng`.
    """
    for module in unit.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.LayerNorm | LayerScale | SpecialTokens):
            module.reset_parameters()
        elif isinstance(module, CameraHead):
            nn.init.zeros_(module.nothing_yet)
