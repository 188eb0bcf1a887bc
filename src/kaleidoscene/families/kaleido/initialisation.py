"""First weights of a Kaleido network."""

from __future__ import annotations

from torch import nn

from kaleidoscene.families.kaleido.embedding import Embedder
from kaleidoscene.families.kaleido.head import FinalModulation, Head
from kaleidoscene.families.kaleido.ray_bias import RayBias
from kaleidoscene.families.kaleido.refinement import Refinement
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.nn.modulation import Modulation
from kaleidoscene.nn.registers import Registers
from kaleidoscene.nn.timestep import TimestepEmbedding


def initialise(unit: nn.Module) -> None:
    """First weights of a part of the network: Xavier linears, zero AdaLN and head, as in DiT (method A.3).

    Args:
        unit: A block, or another child of :class:`Kaleido`.
    """
    for module in unit.modules():
        if isinstance(module, nn.Linear) and not isinstance(module, Head):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, Embedder) and hasattr(module, "null_feature"):
            nn.init.zeros_(module.null_feature)
        elif isinstance(module, Registers | RayBias | Head):
            module.reset_parameters()
    for module in unit.modules():
        if isinstance(module, Modulation | FinalModulation | TimestepEmbedding | Reprojection | Refinement):
            module.reset_parameters()
