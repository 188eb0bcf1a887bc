"""First weights of a 3DDiT network."""

from __future__ import annotations

from torch import nn

from kaleidoscene.families.dit3d.model import Block, Dit3d, Last


def initialise(unit: nn.Module) -> None:
    """First weights of a part: normal matrices of 0.02; modulation and what leaves the network begin at zero.

    Args:
        unit: A child of :class:`kaleidoscene.families.dit3d.model.Dit3d`, a block, or the network itself for its slots.
    """
    if isinstance(unit, Dit3d):
        nn.init.trunc_normal_(unit.slots, std=0.02)
    for module in unit.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.RMSNorm):
            module.reset_parameters()
    for module in unit.modules():
        if isinstance(module, Block | Last):
            nn.init.zeros_(module.modulation.weight)
        if isinstance(module, Last):
            nn.init.zeros_(module.out.weight)
