"""The visual hull: what silhouettes of several views leave of a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError, NoSurface
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point
from kaleidoscene.geometry.rays import project, to_sampling_grid

# Cubes along the sides of all that the views look at.
_FIRST = 48


@dataclass(frozen=True, eq=False)
class Box:
    """A box of cubes.

    Attributes:
        low: Its lowest corner, world.
        cell: Side of a cube, world units.
        cells: Cubes along x, y, z.
    """

    low: Float[Tensor, " 3"]
    cell: float
    cells: tuple[int, int, int]

    @property
    def extent(self) -> Float[Tensor, " 3"]:
        """Lengths of its sides, world units."""
        return self.cell * torch.tensor(self.cells, dtype=self.low.dtype)

    def finer(self, times: int) -> Box:
        """The same box of smaller cubes."""
        x, y, z = self.cells
        return Box(self.low, self.cell / times, (times * x, times * y, times * z))

    def corners(self) -> Float[Tensor, "z y x 3"]:
        """Corners of all cubes."""
        x, y, z = (torch.arange(count + 1) for count in self.cells)
        z, y, x = torch.meshgrid(z, y, x, indexing="ij")
        return self.low + self.cell * torch.stack([x, y, z], dim=-1)

    def crossed(
        self, origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Where rays enter and leave it; those that miss it leave before they enter."""
        inverse = 1 / torch.where(directions.abs() < 1e-9, 1e-9, directions)
        ends = torch.stack([(corner - origins) * inverse for corner in (self.low, self.low + self.extent)])
        return ends.amin(0).amax(-1), ends.amax(0).amin(-1)


def agreeing(masks: Float[Tensor, "views h w"], cameras: Cameras, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Share of the views, of those that have a point in their image, in whose silhouette it lies; 0 where none has.

    Args:
        masks: Of the object, 0 to 1.
        cameras: ``(views,)``.
        points: In the world.
    """
    inside, seen = torch.zeros(2, len(points)).unbind(0)
    for number, mask in enumerate(masks):
        pixels, depth = project(cameras[number].to(torch.float32), points)
        grid = to_sampling_grid(pixels, cameras.image_size)
        within = (grid.abs() <= 1).all(-1) & (depth > 0)
        found = torch.nn.functional.grid_sample(mask[None, None], grid[None, None], align_corners=False)[0, 0, 0]
        inside += within * (found > 0.5)
        seen += within
    return inside / seen.clamp_min(1)


def box_of(masks: Float[Tensor, "views h w"], cameras: Cameras, agreement: float, cells: int) -> Box:
    """A box with some room around all that lies in the silhouettes of most views.

    Args:
        masks: Of the object, 0 to 1.
        cameras: ``(views,)``, about one object.
        agreement: Share of the views that have to see it.
        cells: Along its longest side.

    Raises:
        KaleidosceneError: Nothing does.
    """
    middle, reach = _middle(cameras)
    whole = Box(middle - reach, 2 * reach / _FIRST, (_FIRST, _FIRST, _FIRST))
    places = whole.corners().reshape(-1, 3)
    kept = places[agreeing(masks, cameras, places) >= agreement]
    if not len(kept):
        raise NoSurface(
            "The silhouettes of the views have nothing in common: no object is seen, or its cameras are wrong."
        )
    low, high = kept.amin(0) - whole.cell, kept.amax(0) + whole.cell
    cell = float((high - low).amax()) / (cells - 2)
    counts = [int(count) + 2 for count in ((high - low) / cell).ceil().tolist()]
    return Box((low + high) / 2 - 0.5 * cell * torch.tensor(counts), cell, (counts[0], counts[1], counts[2]))


def _middle(cameras: Cameras) -> tuple[Float[Tensor, " 3"], float]:
    """The point that the views look at, and how far they reach around it."""
    middle = focus_point(cameras.to(torch.float64))
    h, w = cameras.image_size
    slope = 0.5 * max(h, w) / cameras.intrinsics[:, 1, 1].double()
    return middle.float(), float(((cameras.centres.double() - middle).norm(dim=-1) * slope).amax())


def visual_hull(
    masks: Float[Tensor, "views h w"], cameras: Cameras, box: Box, agreement: float
) -> Float[Tensor, "z y x"]:
    """Signed distances to the hull at the corners of a box's cubes, in cells, positive outside.

    Args:
        masks: Of the object, 0 to 1.
        cameras: ``(views,)``.
        box: Around it.
        agreement: Share of the views that have to see an object.

    Raises:
        KaleidosceneError: scipy is not there.
    """
    try:
        from scipy.ndimage import distance_transform_edt  # noqa: PLC0415  comes with scikit-image
    except ImportError as error:
        raise KaleidosceneError("Surfaces need scipy: pip install 'kaleidoscene[reconstruction]'.") from error
    places = box.corners()
    solid = (agreeing(masks, cameras, places.reshape(-1, 3)) >= agreement).reshape(places.shape[:-1]).numpy()
    outside, inside = (torch.from_numpy(distance_transform_edt(some)).float() for some in (~solid, solid))
    return torch.where(torch.from_numpy(solid), 0.5 - inside, outside - 0.5)
