"""One Kaleido block: spatial attention, windowed cross-view attention, SwiGLU (Kaleido Fig. 4)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.families.kaleido.cross_view import CrossViewAttention
from kaleidoscene.families.kaleido.spatial import SpatialAttention
from kaleidoscene.families.kaleido.view_geometry import ViewGeometry
from kaleidoscene.nn.kv_cache import LayerCache
from kaleidoscene.nn.mlp import GeluMLP, SwiGLU
from kaleidoscene.nn.modulation import Modulation


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
        geometry: ViewGeometry,
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
