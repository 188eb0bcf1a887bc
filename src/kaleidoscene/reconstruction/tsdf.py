"""Depth maps of one object become a mesh: distances to surfaces are averaged in a grid, and marching cubes cut it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.choices import check_choices, check_range
from kaleidoscene.errors import NoSurface
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project, to_sampling_grid, unproject
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh, cut_surface

_MOST_RESOLUTION = 512
_OUTVOTED = 4


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How depth maps become a mesh."""

    resolution: int = 128
    """Cells along the longest side of the object."""
    truncation: float = 3.0
    """Cells before and behind a surface in which distances to it are kept."""
    unseen: Literal["open", "inside"] = "open"
    """What no view has looked into: left open, where a mesh may end, or inside of the object, so that it is closed
    (for objects that are seen from all sides)."""
    least_part: float = 0.01
    """Parts of the mesh that hang together and have a smaller share of its faces are dropped."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, 8, _MOST_RESOLUTION, "resolution")
        check_range(self, 1, 32, "truncation")
        check_range(self, 0, 1, "least_part")

    @property
    def memory(self) -> int:
        """Peak bytes of a fusion, of an object as deep and high as it is long; 20 to 29 a cell were measured."""
        return 30 * (self.resolution + 2) ** 3


@dataclass(frozen=True, eq=False)
class _Grid:
    """Cells of a box.

    Attributes:
        origin: Centre of the first cell.
        cell: Side of a cell, world units.
        shape: Cells along x, y, z.
    """

    origin: Float[Tensor, " 3"]
    cell: float
    shape: tuple[int, int, int]

    @classmethod
    def around(cls, points: Float[Tensor, "n 3"], config: MeshConfig) -> _Grid:
        """A box about points, with room for distances that are kept; one stray in a thousand does not stretch it."""
        low, high = (torch.quantile(_some(points), share, dim=0) for share in (0.001, 0.999))
        cell = float((high - low).amax()) / config.resolution
        if not cell > 0:
            raise NoSurface("All points of the depth maps are in one place: there is no surface to find.")
        margin = _margin(config)
        counts = [int(count) + 2 * margin for count in ((high - low) / cell).ceil().tolist()]
        return cls(low - margin * cell, cell, (counts[0], counts[1], counts[2]))

    def slab(self, x: int) -> Float[Tensor, "y z 3"]:
        """Centres of the cells of one x."""
        _, ys, zs = self.shape
        y, z = torch.meshgrid(torch.arange(ys), torch.arange(zs), indexing="ij")
        return self.origin + self.cell * torch.stack([torch.full_like(y, x), y, z], dim=-1).to(self.origin)


def _margin(config: MeshConfig) -> int:
    return int(np.ceil(config.truncation)) + 2


def _some(points: Tensor) -> Tensor:
    return points[:: max(1, len(points) // 2**20)]  # more than 2^24 numbers have no quantile in PyTorch


def mesh_of(
    depths: Float[Tensor, "views h w"],
    cameras: Cameras,
    *,
    surface: Bool[Tensor, "views h w"] | None = None,
    empty: Bool[Tensor, "views h w"] | None = None,
    config: MeshConfig = MeshConfig(),
    on_slab: Callable[[int, int], None] | None = None,
) -> TriangleMesh:
    """The surface that depth maps agree on.

    Args:
        depths: Along the optical axis, world units, 0 where nothing is known.
        cameras: ``(views,)``.
        surface: Pixels whose depth counts; by default all that have one.
        empty: Pixels that meet nothing, so that all along their rays is free; by default those without depth.
        config: Size of the grid and what is kept.
        on_slab: Called with how much of the grid is done, and of how much.

    Raises:
        KaleidosceneError: No depth counts, no surface is found, or scikit-image is not there.
    """
    surface = depths > 0 if surface is None else surface & (depths > 0)
    empty = depths == 0 if empty is None else empty
    if not bool(surface.any()):
        raise NoSurface("No pixel of the depth maps shows a surface.")
    points = unproject(cameras.to(torch.float32), depths)[surface]
    grid = _Grid.around(points, config)
    # What each pixel says: the depth of its surface, infinitely far where there is none, NaN where that is not known.
    said = torch.where(surface, depths, torch.where(empty, torch.inf, torch.nan))
    distance, seen = torch.empty(grid.shape), torch.empty(grid.shape, dtype=torch.bool)
    for x in range(grid.shape[0]):
        distance[x], seen[x] = _distances(grid.slab(x), said, cameras, config.truncation * grid.cell)
        if on_slab is not None:
            on_slab(x + 1, grid.shape[0])
    return _cut(distance, seen, grid, config)


def _distances(
    places: Float[Tensor, "y z 3"], said: Float[Tensor, "views h w"], cameras: Cameras, truncation: float
) -> tuple[Float[Tensor, "y z"], Bool[Tensor, "y z"]]:
    """Mean of the distances to the surface in shares of the truncation, positive outside; and which cells were seen.

    A cell is free that lies near no surface, or that four times as many views look through as see one at it.
    """
    flat = places.flatten(0, 1)
    total, near, free = torch.zeros(3, len(flat)).unbind(0)
    for number in range(len(said)):
        camera = cameras[number].to(torch.float32)
        pixels, depth = project(camera, flat)
        sampled = to_sampling_grid(pixels, camera.image_size)
        inside = (sampled.abs() <= 1).all(-1) & (depth > 0)
        h, w = camera.image_size
        column = pixels[:, 0].nan_to_num().floor().clamp(0, w - 1).long()
        row = pixels[:, 1].nan_to_num().floor().clamp(0, h - 1).long()
        nearest = said[number][row, column]
        # Between four pixels of a surface its depth is in proportion; at an outline it is the nearest pixel's.
        between = torch.nn.functional.grid_sample(
            said[number][None, None], sampled.nan_to_num()[None, None], padding_mode="border", align_corners=False
        )[0, 0, 0]
        ahead = torch.where(between.isfinite() & nearest.isfinite(), between, nearest) - depth
        at_surface = inside & (ahead.abs() <= truncation)  # what lies behind a surface is not seen; NaN is nothing
        total += torch.where(at_surface, ahead / truncation, 0.0)
        near += at_surface
        free += inside & (ahead > truncation)
    # Views that look past a surface at half a pixel's distance would eat from it: they have to be many.
    is_free = free > _OUTVOTED * near
    distance = torch.where(is_free, 1.0, total / near.clamp_min(1))
    return distance.unflatten(0, places.shape[:2]), (near + free > 0).unflatten(0, places.shape[:2])


def _cut(
    distance: Float[Tensor, "x y z"], seen: Bool[Tensor, "x y z"], grid: _Grid, config: MeshConfig
) -> TriangleMesh:
    """Marching cubes, cleaned of small parts."""

    def is_kept(vertices: np.ndarray) -> np.ndarray:
        return _between_seen(vertices, seen.numpy()) | (config.unseen != "open")

    return cut_surface(torch.where(seen, distance, -1.0), grid.origin, grid.cell, config.least_part, is_kept)


def _between_seen(vertices: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Which vertices lie between two cells that were seen; each lies on an edge of the grid."""
    ends = (tuple(round_(vertices).astype(np.int64).T) for round_ in (np.floor, np.ceil))
    before, after = (seen[end] for end in ends)
    return before & after
