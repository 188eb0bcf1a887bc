"""Points of a surface: what a point map tells beside places, and how many points become few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError

_MOST_CELLS = 2**20
"""Along an axis, so that the number of a cell fits 63 bits."""


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points on surfaces, world units.

    Attributes:
        positions: In the world.
        normals: Unit vectors to the side that was looked at.
        colours: RGB in [0, 1].
        confidence: How sure they are, at least 0.
    """

    positions: Float[Tensor, "n 3"]
    normals: Float[Tensor, "n 3"]
    colours: Float[Tensor, "n 3"]
    confidence: Float[Tensor, " n"]

    @classmethod
    def concatenate(cls, parts: Sequence[SurfacePoints]) -> SurfacePoints:
        """All points of some sets."""
        return cls(*(torch.cat(list(columns)) for columns in zip(*(part._columns for part in parts), strict=True)))

    @property
    def _columns(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.positions, self.normals, self.colours, self.confidence

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def bytes(self) -> UInt8[Tensor, "n 3"]:
        """Colours in 8 bits."""
        return (self.colours.clamp(0, 1) * 255).round().to(torch.uint8)

    def thinned(self, cell: float) -> SurfacePoints:
        """One point for each cell of a grid: means weighted by confidence; of that the largest.

        Args:
            cell: Side of a cell, world units.

        Raises:
            KaleidosceneError: Cells are not positive, or so small that they cannot be numbered.
        """
        if not cell > 0:
            raise KaleidosceneError(f"Cells of a grid need a positive side, got {cell}.")
        if not len(self):
            return self
        places = ((self.positions - self.positions.amin(0)) / cell).floor()
        if not bool(places.max() < _MOST_CELLS):
            raise KaleidosceneError(f"Cells of {cell:g} world units are too small for points this far apart.")
        number = (places.long() * torch.tensor([_MOST_CELLS**2, _MOST_CELLS, 1])).sum(-1)
        of = torch.unique(number, return_inverse=True)[1]
        count = int(of.max()) + 1
        weight = self.confidence.clamp_min(1e-12)
        total = weight.new_zeros(count).index_add(0, of, weight)

        def mean(x: Tensor) -> Tensor:
            return x.new_zeros(count, 3).index_add(0, of, x * weight[:, None]) / total[:, None]

        best = self.confidence.new_zeros(count).scatter_reduce(0, of, self.confidence, "amax")
        normals = torch.nn.functional.normalize(mean(self.normals), dim=-1)
        return SurfacePoints(mean(self.positions), normals, mean(self.colours), best)


def normals_of(
    points: Float[Tensor, "h w 3"], known: Bool[Tensor, "h w"], centre: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, "h w 3"], Bool[Tensor, "h w"]]:
    """Normals of a point map from the differences of neighbours, on the camera's side.

    Args:
        points: World points of pixels.
        known: Where there are such.
        centre: Of the camera.

    Returns:
        Unit normals, and where they are known: pixels with a known neighbour along both axes.
    """
    along_x, has_x = _difference(points, known, 1)
    along_y, has_y = _difference(points, known, 0)
    normal = torch.linalg.cross(along_x, along_y, dim=-1)
    length = normal.norm(dim=-1)
    there = known & has_x & has_y & (length > 0)
    normal = torch.where(there[..., None], normal / length.clamp_min(1e-30)[..., None], 0.0)
    away = (normal * (centre - points)).sum(-1, keepdim=True) < 0
    return torch.where(away, -normal, normal), there


def _difference(points: Tensor, known: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Of the next and the last pixel along an axis, or of one of them and the pixel itself."""

    def shifted(x: Tensor, step: int) -> Tensor:
        length = x.shape[axis]
        index = (torch.arange(length) + step).clamp(0, length - 1)
        return x.index_select(axis, index)

    length = known.shape[axis]
    row = torch.arange(length).view(-1, 1) if axis == 0 else torch.arange(length)
    after, before = shifted(known, 1) & (row < length - 1), shifted(known, -1) & (row > 0)
    high = torch.where(after[..., None], shifted(points, 1), points)
    low = torch.where(before[..., None], shifted(points, -1), points)
    return high - low, after | before


def eroded(mask: Bool[Tensor, "*views h w"], side: int) -> Bool[Tensor, "*views h w"]:
    """Pixels whose whole neighbourhood of ``side`` x ``side`` is in a mask; what lies outside of images counts as in.

    Args:
        mask: Of one or several views.
        side: Odd.
    """
    if side < 1 or side % 2 == 0:
        raise KaleidosceneError(f"The side of an erosion must be odd and positive, got {side}.")
    outside = (~mask).float().reshape(-1, 1, *mask.shape[-2:])
    return torch.nn.functional.max_pool2d(outside, side, 1, side // 2).reshape(mask.shape) < 0.5
