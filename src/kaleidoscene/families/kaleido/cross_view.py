"""Attention among the views: tokens are brought to a common frame by GTA, attend, and go back to their own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.families.kaleido.projections import SCALE, Projections, compute_dtype
from kaleidoscene.families.kaleido.ray_bias import CHANNELS as RAY_CHANNELS
from kaleidoscene.families.kaleido.ray_bias import RayBias
from kaleidoscene.families.kaleido.view_geometry import ViewGeometry
from kaleidoscene.families.kaleido.windowed import attend_across_views
from kaleidoscene.nn.gta import ViewTransforms
from kaleidoscene.nn.kv_cache import LayerCache
from kaleidoscene.nn.registers import Registers


class CrossViewAttention(nn.Module):
    """Attention among the views, within windows, with rotations by place and GTA blocks by pose or time."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.projections = Projections(config)
        reserved = RAY_CHANNELS if config.ray_bias else 0
        self.registers = Registers(
            config.registers, config.kv_heads, HEAD_DIM, config.cross_view_registers, reserved=reserved
        )
        self.transform_values = config.encoding.transform_values
        self.causal = config.reference_attention == "causal"
        self.ray_bias = RayBias(config.num_heads) if config.ray_bias else None

    def forward(
        self,
        x: Float[Tensor, "batch views tokens width"],
        geometry: ViewGeometry,
        num_references: int,
        cache: LayerCache | None,
        fill_cache: bool,
    ) -> Tensor:
        """Attend across views; with a cache its views stand before those of ``x``.

        Args:
            x: Tokens of references and targets, or of one of the two where a cache takes part.
            geometry: Transforms of the views of ``x``.
            num_references: How many of the views of the scene are references (they come first).
            cache: Where references are kept; read, or written to if ``fill_cache``.
            fill_cache: The views of ``x`` are references, to be appended to the cache.
        """
        dtype = compute_dtype(x)
        plain, k, v = self.projections(x)
        exact = plain.dtype
        q = _transform(plain, geometry, geometry.views.query)
        k = _transform(k, geometry, geometry.views.key).to(dtype)
        if self.transform_values:
            v = _transform(v, geometry, geometry.views.key)
        v = v.to(dtype)
        if self.ray_bias is not None and geometry.rays is not None:
            q = torch.cat([q, self.ray_bias.queries(geometry.rays, SCALE)], dim=-1)
            k = torch.cat([k, geometry.rays.key.to(dtype)[..., None, :].expand(*k.shape[:-1], -1)], dim=-1)
        q = self.registers.extend_query(q, plain).to(dtype)
        if cache is not None:
            past_k, past_v = cache.read()
            if fill_cache:
                cache.write(k, v)
            k, v = torch.cat([past_k, k], dim=1), torch.cat([past_v, v], dim=1)
        out = self._attend(q, k, v, geometry, num_references)
        out, from_registers = self.registers.split_output(out)
        if self.transform_values:
            out = _transform_back(out.to(exact), geometry).to(dtype)
        out = out if from_registers is None else out + from_registers
        return self.projections.output(out.flatten(-2))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, geometry: ViewGeometry, num_references: int) -> Tensor:
        group, windows = geometry.group, geometry.windows
        if group is not None:
            # All views of some windows in place of all windows of some views.
            q, k, v = group.gather_views(windows, q, k, v)
            windows = group.own_windows(windows)
        out = attend_across_views(
            q, k, v, windows=windows, registers=self.registers, visible=geometry.visible,
            causal_references=num_references if self.causal else 0,
        )  # fmt: skip
        return out if group is None else group.scatter_views(geometry.windows, out)


def _transform(x: Tensor, geometry: ViewGeometry, matrix: Tensor) -> Tensor:
    place, view = x.chunk(2, dim=-1)
    with torch.autocast(x.device.type, enabled=False):
        return torch.cat([*geometry.cross_view.halves(place), ViewTransforms.apply(view, matrix)], dim=-1)


def _transform_back(x: Tensor, geometry: ViewGeometry) -> Tensor:
    place, view = x.chunk(2, dim=-1)
    with torch.autocast(x.device.type, enabled=False):
        place = geometry.cross_view.halves(place, inverse=True)
        return torch.cat([*place, ViewTransforms.apply(view, geometry.views.output)], dim=-1)
