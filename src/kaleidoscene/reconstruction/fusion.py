"""Views with points and confidence become one cloud (RnG, complete 3D generation; method B.10)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError, NoSurface
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project, to_sampling_grid
from kaleidoscene.reconstruction.surface import SurfacePoints, eroded, normals_of


@dataclass(frozen=True, kw_only=True)
class FusionConfig:
    """Which pixels become points; the filters are those of the authors' release, whose images have 256 pixels.

    Colours from sources, the tolerance and the cells are ours.
    """

    white: float = 12 / 255
    """A pixel is background if its three channels together are less than this from white."""
    new_quantile: float = 0.03
    """Share of the object's pixels of a new view that is dropped, the least sure first."""
    new_erosion: float = 13 / 256
    """Side of the square that new views are eroded by, in image heights."""
    source_quantile: float = 0.1
    """As ``new_quantile``, of sources."""
    source_erosion: float = 3 / 256
    """As ``new_erosion``, of sources."""
    source_colours: bool = True
    """Points take the colours of the sources that see them."""
    tolerance: float = 0.03
    """A source sees a point if its own depth differs by less than this share."""
    cell: float = 0.7
    """One point is kept for each cell of a grid whose side is so many pixels wide at the object; 0 keeps all."""

    def __post_init__(self) -> None:
        for name in ("new_quantile", "source_quantile"):
            if not 0 <= getattr(self, name) < 1:
                raise KaleidosceneError(f"{name} is a share from 0 to below 1, got {getattr(self, name)}.")
        for name in ("white", "new_erosion", "source_erosion", "tolerance", "cell"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise KaleidosceneError(f"{name} must be at least 0, got {getattr(self, name)}.")


@dataclass(frozen=True, eq=False)
class PointViews:
    """Rendered views of one scene with points.

    Attributes:
        images: RGB in [0, 1] on white; of sources the photographs.
        depths: Along the optical axis, world units, 0 where nothing is met.
        points: In the world.
        confidence: Of the points.
        cameras: ``(views,)``.
    """

    images: Float[Tensor, "views 3 h w"]
    depths: Float[Tensor, "views h w"]
    points: Float[Tensor, "views h w 3"]
    confidence: Float[Tensor, "views h w"]
    cameras: Cameras

    def __len__(self) -> int:
        return len(self.images)


def fuse(sources: PointViews, new: PointViews | None, config: FusionConfig = FusionConfig()) -> SurfacePoints:
    """One cloud of sources and new views.

    Args:
        sources: Photographs with the points that were told at their cameras.
        new: Views of the rest.
        config: Which pixels count.

    Raises:
        KaleidosceneError: No pixel is left, or the photographs are white all over.
    """
    if not bool(((1 - sources.images).sum(1) >= config.white).any()):
        raise NoSurface("The photographs are white all over: they show no object.")
    parts = _parts(sources, config, is_source=True)
    if new is not None:
        # Colours are looked up between pixels, of which all have to be of the object.
        inner = max(config.source_erosion, 3 / sources.images.shape[-2])
        seen = replace(sources, depths=sources.depths * object_pixels(sources, 0.0, inner, config.white))
        for part in _parts(new, config, is_source=False):
            parts.append(recoloured(part, seen, config.tolerance) if config.source_colours else part)
    cloud = SurfacePoints.concatenate(parts)
    if not len(cloud):
        raise NoSurface("No pixel shows an object: all are white, of next to no confidence, or too near an outline.")
    return cloud.thinned(config.cell * pixel_width(sources.cameras)) if config.cell else cloud


def pixel_width(cameras: Cameras) -> float:
    """Of the first camera at the distance of the world's origin, world units."""
    return float(cameras.centres[0].norm() / cameras.intrinsics[0, 1, 1])


def object_pixels(
    views: PointViews, quantile: float, erosion: float, white: float, *, erode_first: bool = False
) -> Bool[Tensor, "views h w"]:
    """Pixels that show an object, surely enough, and not at its outline.

    Args:
        views: To look at.
        quantile: Share of them that is dropped, the least sure first.
        erosion: Side of the eroding square over image height.
        white: See :class:`FusionConfig`.
        erode_first: Drop the least sure of what erosion leaves (of sources); otherwise what is around them goes with
            them (of new views), as in the authors' release.
    """
    shown = ((1 - views.images).abs().sum(1) > white) & (views.depths > 0) & views.points.isfinite().all(-1)
    side = int(erosion * views.images.shape[-2] + 1e-6) // 2 * 2 + 1
    shown = eroded(shown, side) if erode_first else shown
    for number, mask in enumerate(shown):
        if quantile and bool(mask.any()):
            least = views.confidence[number][mask].quantile(quantile)
            shown[number] &= views.confidence[number] >= least
    return shown if erode_first else eroded(shown, side)


def pixels_that_count(views: PointViews, config: FusionConfig, *, is_source: bool) -> Bool[Tensor, "views h w"]:
    """:func:`object_pixels` by the shares and squares of sources or of new views.

    Args:
        views: To look at.
        config: The shares and squares.
        is_source: Whether they are sources.
    """
    quantile, erosion = (
        (config.source_quantile, config.source_erosion) if is_source else (config.new_quantile, config.new_erosion)
    )
    return object_pixels(views, quantile, erosion, config.white, erode_first=is_source)


def _parts(views: PointViews, config: FusionConfig, *, is_source: bool) -> list[SurfacePoints]:
    kept = pixels_that_count(views, config, is_source=is_source)
    parts = []
    for number in range(len(views)):
        points = views.points[number]
        normals, known = normals_of(points, views.depths[number] > 0, views.cameras.centres[number])
        chosen = kept[number] & known
        colours = views.images[number].movedim(0, -1)[chosen]
        parts.append(SurfacePoints(points[chosen], normals[chosen], colours, views.confidence[number][chosen]))
    return parts


def recoloured(part: SurfacePoints, sources: PointViews, tolerance: float) -> SurfacePoints:
    """Points with the colour of the source that sees them most squarely; what none sees keeps its own.

    Args:
        part: The points.
        sources: With their depths, 0 where nothing is to be taken from them.
        tolerance: A source sees a point if its depth differs by less than this share.
    """
    best, colours = torch.zeros(len(part)), part.colours.clone()
    for number in range(len(sources)):
        camera = sources.cameras[number]
        facing = torch.nn.functional.normalize(camera.centres - part.positions, dim=-1)
        squarely = (facing * part.normals).sum(-1)
        pixels, depth = project(camera, part.positions)
        grid = to_sampling_grid(pixels, camera.image_size)[None, None]
        seen_depth = _looked_up(sources.depths[number][None], grid, "nearest")[0]
        inside = (grid[0, 0].abs() <= 1).all(-1) & (depth > 0)
        sees = inside & (seen_depth > 0) & ((depth - seen_depth).abs() < tolerance * seen_depth) & (squarely > best)
        colours[sees] = _looked_up(sources.images[number], grid, "bilinear").T[sees]
        best = torch.where(sees, squarely, best)
    return SurfacePoints(part.positions, part.normals, colours, part.confidence)


def _looked_up(planes: Float[Tensor, "c h w"], grid: Tensor, mode: str) -> Float[Tensor, "c n"]:
    found = torch.nn.functional.grid_sample(planes[None], grid, mode=mode, padding_mode="border", align_corners=False)
    return found[0, :, 0]
