"""Everything that the attention layers of a forward pass know of places and poses; made once for all blocks."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool
from torch import Tensor

from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.families.kaleido.ray_bias import TokenRays
from kaleidoscene.nn.gta import Rotations, ViewTransforms, image_rotations, view_transforms
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.view_parallel import ViewGroup
from kaleidoscene.nn.windows import Windows


@dataclass(frozen=True, eq=False)
class ViewGeometry:
    """Transforms of the views of a forward pass.

    Attributes:
        spatial: Rotations by row and column for attention within a view.
        cross_view: Likewise across views, with half as many bands.
        views: GTA blocks by pose or time.
        windows: Of cross-view attention.
        rays: Where the network has a ray bias.
        visible: Which views see which; None where nothing but the direction of attention is to be masked.
        group: Where the views of a scene are spread over processes; all else here is of this process's views, but
            for ``visible``.
    """

    spatial: Rotations
    cross_view: Rotations
    views: ViewTransforms
    windows: Windows
    rays: TokenRays | None
    visible: Bool[Tensor, "batch views views"] | None
    group: ViewGroup | None = None

    @classmethod
    def of(
        cls,
        config: KaleidoConfig,
        positions: ViewPositions,
        grid: tuple[int, int],
        visible: Bool[Tensor, "batch views views"] | None,
        group: ViewGroup | None = None,
    ) -> ViewGeometry:
        """What a network of this configuration needs of views at ``positions`` with a token grid of ``grid``."""
        encoding, device, dtype = config.encoding, positions.times.device, positions.times.dtype
        return cls(
            spatial=image_rotations(grid, HEAD_DIM // 2, encoding.image_frequencies, device, dtype),
            cross_view=image_rotations(grid, HEAD_DIM // 4, encoding.image_frequencies, device, dtype),
            views=view_transforms(
                positions, HEAD_DIM // 2, representation=encoding.representation,
                time_frequencies=encoding.time_frequencies, use_poses=encoding.pose == "gta",
                use_lens=encoding.lens == "projective",
            ),
            windows=Windows(grid, config.window),
            rays=TokenRays.of(positions, grid) if config.ray_bias else None,
            visible=visible, group=group,
        )  # fmt: skip
