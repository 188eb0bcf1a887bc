"""Attention among the tokens of one view."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.families.kaleido.projections import SCALE, Projections, compute_dtype
from kaleidoscene.families.kaleido.view_geometry import ViewGeometry
from kaleidoscene.nn.attention import attend
from kaleidoscene.nn.registers import Registers


class SpatialAttention(nn.Module):
    """Attention among the tokens of one view, with rotations by row and column."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.projections = Projections(config)
        self.registers = Registers(config.registers, config.kv_heads, HEAD_DIM, config.spatial_registers)
        self.transform_values = config.encoding.transform_values

    def forward(self, x: Float[Tensor, "batch views tokens width"], geometry: ViewGeometry) -> Tensor:
        """Attend within each view."""
        dtype = compute_dtype(x)
        plain, k, v = self.projections(x)
        rotations = geometry.spatial
        q, k = rotations.apply(plain), rotations.apply(k)
        if self.transform_values:
            v = rotations.apply(v)
        q = self.registers.extend_query(q, plain)
        q, k, v = (part.to(dtype).flatten(0, 1).transpose(1, 2) for part in (q, k, v))
        k, v = self.registers.extend_keys(k, v)
        out = attend(q, k, v, scale=SCALE).transpose(1, 2).unflatten(0, x.shape[:2])
        out, from_registers = self.registers.split_output(out)
        if self.transform_values:
            out = rotations.apply(out.to(plain.dtype), inverse=True).to(dtype)
        out = out if from_registers is None else out + from_registers
        return self.projections.output(out.flatten(-2))
