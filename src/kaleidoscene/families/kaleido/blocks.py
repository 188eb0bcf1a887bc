"""One Kaleido block: spatial attention, windowed cross-view attention, SwiGLU (Kaleido Fig. 4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.nn.attention import attend
from kaleidoscene.nn.gta import Rotations, ViewTransforms
from kaleidoscene.nn.kv_cache import LayerCache
from kaleidoscene.nn.mlp import GeluMLP, SwiGLU
from kaleidoscene.nn.modulation import Modulation, layer_norm
from kaleidoscene.nn.ray_bias import CHANNELS as RAY_CHANNELS
from kaleidoscene.nn.ray_bias import RayBias, TokenRays
from kaleidoscene.nn.registers import Registers
from kaleidoscene.nn.windows import Windows

_SCALE = HEAD_DIM**-0.5


@dataclass(frozen=True, eq=False)
class Geometry:
    """Everything that attention layers know of places and poses; made once for a forward pass."""

    spatial: Rotations
    cross_view: Rotations
    views: ViewTransforms
    windows: Windows
    rays: TokenRays | None
    """Where the network has a ray bias."""
    visible: Bool[Tensor, "batch views views"] | None
    """None where nothing but the direction of attention is to be masked."""


class Projections(nn.Module):
    """Query, key, value and output projections of one attention layer, without biases (method A.3)."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.kv_heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.kv_heads * HEAD_DIM, bias=False)
        self.value = nn.Linear(config.width, config.kv_heads * HEAD_DIM, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)
        self.normalise = config.query_key_norm

    def forward(self, x: Float[Tensor, "batch views tokens width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Heads of queries, keys and values, each ``(batch, views, tokens, heads, 64)``, fp32 for the transforms."""
        q = self.query(x).unflatten(-1, (self.heads, HEAD_DIM)).float()
        k = self.key(x).unflatten(-1, (self.kv_heads, HEAD_DIM)).float()
        v = self.value(x).unflatten(-1, (self.kv_heads, HEAD_DIM)).float()
        return (layer_norm(q), layer_norm(k), v) if self.normalise else (q, k, v)


class SpatialAttention(nn.Module):
    """Attention among the tokens of one view, with rotations by row and column."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.projections = Projections(config)
        self.registers = Registers(config.registers, config.kv_heads, HEAD_DIM, config.spatial_registers)
        self.transform_values = config.encoding.transform_values

    def forward(self, x: Float[Tensor, "batch views tokens width"], geometry: Geometry) -> Tensor:
        """Attend within each view."""
        dtype = _compute_dtype(x)
        plain, k, v = self.projections(x)
        rotations = geometry.spatial
        q, k = rotations.apply(plain), rotations.apply(k)
        if self.transform_values:
            v = rotations.apply(v)
        q = self.registers.extend_query(q, plain)
        q, k, v = (part.to(dtype).flatten(0, 1).transpose(1, 2) for part in (q, k, v))
        k, v = self.registers.extend_keys(k, v)
        out = attend(q, k, v, scale=_SCALE).transpose(1, 2).unflatten(0, x.shape[:2])
        out, from_registers = self.registers.split_output(out)
        if self.transform_values:
            out = rotations.apply(out.float(), inverse=True).to(dtype)
        out = out if from_registers is None else out + from_registers
        return self.projections.output(out.flatten(-2))


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
        geometry: Geometry,
        num_references: int,
        cache: LayerCache | None,
        fill_cache: bool,
    ) -> Tensor:
        """Attend across views; with a cache its views stand before those of ``x``.

        Args:
            x: Tokens of references and targets, or of one of the two where a cache takes part.
            geometry: Transforms of the views of ``x``.
            num_references: How many of the views of ``x`` are references (they come first).
            cache: Where references are kept; read, or written to if ``fill_cache``.
            fill_cache: The views of ``x`` are references, to be appended to the cache.
        """
        dtype = _compute_dtype(x)
        plain, k, v = self.projections(x)
        q = self._transform(plain, geometry, geometry.views.query)
        k = self._transform(k, geometry, geometry.views.key).to(dtype)
        if self.transform_values:
            v = self._transform(v, geometry, geometry.views.key)
        v = v.to(dtype)
        if self.ray_bias is not None and geometry.rays is not None:
            q = torch.cat([q, self.ray_bias.queries(geometry.rays, _SCALE)], dim=-1)
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
            out = self._transform_back(out.float(), geometry).to(dtype)
        out = out if from_registers is None else out + from_registers
        return self.projections.output(out.flatten(-2))

    @staticmethod
    def _transform(x: Tensor, geometry: Geometry, matrix: Tensor) -> Tensor:
        place, view = x.chunk(2, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            return torch.cat([*geometry.cross_view.halves(place), ViewTransforms.apply(view, matrix)], dim=-1)

    @staticmethod
    def _transform_back(x: Tensor, geometry: Geometry) -> Tensor:
        place, view = x.chunk(2, dim=-1)
        with torch.autocast(x.device.type, enabled=False):
            place = geometry.cross_view.halves(place, inverse=True)
            return torch.cat([*place, ViewTransforms.apply(view, geometry.views.output)], dim=-1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, geometry: Geometry, n: int) -> Tensor:
        """Windowed attention; what references may not see is left out instead of masked where views are not ragged."""
        windows = geometry.windows
        joint = q.shape[1] == k.shape[1]
        if self.causal and joint and geometry.visible is None and 0 < n < q.shape[1]:
            references = self._windowed(q[:, :n], k[:, :n], v[:, :n], windows, None)
            return torch.cat([references, self._windowed(q[:, n:], k, v, windows, None)], dim=1)
        return self._windowed(q, k, v, windows, geometry.visible)

    def _windowed(
        self, q: Tensor, k: Tensor, v: Tensor, windows: Windows, visible: Bool[Tensor, "batch q_views k_views"] | None
    ) -> Tensor:
        mask = windows.mask(visible, (q.shape[1], k.shape[1]), q.device)
        if mask is not None and self.registers.count:
            mask = nn.functional.pad(mask, (0, self.registers.count), value=True)
        if mask is not None and visible is None and q.shape[0] > 1:
            mask = mask.repeat(q.shape[0], 1, 1, 1)
        keys, values = self.registers.extend_keys(windows.partition(k), windows.partition(v))
        return windows.merge(attend(windows.partition(q), keys, values, scale=_SCALE, mask=mask), q.shape[0])


class KaleidoBlock(nn.Module):
    """Spatial attention, cross-view attention and a feed-forward layer, each modulated by the timestep of its view."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.modulation = Modulation(config.modulation, config.condition_channels, config.width, sublayers=3)
        self.spatial = SpatialAttention(config)
        self.cross_view = CrossViewAttention(config)
        feed_forward = SwiGLU if config.feed_forward == "swiglu" else GeluMLP
        self.feed_forward = feed_forward(config.width, config.feed_forward_width)

    def forward(
        self,
        x: Float[Tensor, "batch views tokens width"],
        condition: Float[Tensor, "batch views condition"],
        geometry: Geometry,
        num_references: int,
        cache: LayerCache | None = None,
        fill_cache: bool = False,
    ) -> Float[Tensor, "batch views tokens width"]:
        """Three residual sub-layers; the residual stream stays fp32."""
        spatial, cross_view, feed_forward = self.modulation(condition)
        x = spatial.leave(x, self.spatial(spatial.enter(x), geometry))
        update = self.cross_view(cross_view.enter(x), geometry, num_references, cache, fill_cache)
        x = cross_view.leave(x, update)
        return feed_forward.leave(x, self.feed_forward(feed_forward.enter(x)))


def _compute_dtype(x: Tensor) -> torch.dtype:
    """The type that matrix products run in here: autocast's, where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
