"""What true depths say of the surfaces that refinement finds. Ours, not Kaleido's (``refinement.py``)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.families.kaleido.ray_points import EXTENT, Lattice, along_of_axis
from kaleidoscene.families.kaleido.refinement import Surfaces
from kaleidoscene.nn.positions import ViewPositions

# A pixel is background below this share of an object, and object above one minus it.
_EDGE = 0.05


@dataclass(frozen=True, eq=False)
class KnownSurfaces:
    """Where views truly see surfaces.

    Attributes:
        along: Behind the place of a pixel's ray that is nearest to the origin, in normalised units.
        known: Whether ``along`` is.
        nothing: Whether the pixel is known to show background alone.
    """

    along: Float[Tensor, "batch views h w"]
    known: Bool[Tensor, "batch views h w"]
    nothing: Bool[Tensor, "batch views h w"]

    @classmethod
    def of(
        cls,
        positions: ViewPositions,
        depth: Float[Tensor, "batch views h w"],
        mask: Float[Tensor, "batch views h w"],
    ) -> KnownSurfaces:
        """From depths along optical axes in normalised units (0: not known, or nothing there) and masks."""
        start, slant = along_of_axis(positions, depth.shape[-2:])
        along = start + depth * slant
        known = (depth > 0) & (mask > 1 - _EDGE) & (along.abs() < EXTENT)
        return cls(along, known, (mask < _EDGE) & (depth == 0))

    def at(self, pixels: Lattice, views: slice) -> KnownSurfaces:
        """Of some pixels of some views."""
        return KnownSurfaces(*(pixels.of(x[:, views]) for x in (self.along, self.known, self.nothing)))


def depth_losses(
    found: Surfaces,
    known: KnownSurfaces,
    references: int,
    lattice: Lattice | None,
    counts: Bool[Tensor, "batch targets"],
    present: Bool[Tensor, "batch views"] | None,
) -> dict[str, Tensor]:
    """How far what was found is from what is known, each a mean over what is known.

    Returns:
        ``bins``: cross-entropy of cells over bins of depth and none, nats. ``references``: where references see their
        surface, normalised units. ``pixels``: the same of composed pixels. ``outline``: cross-entropy of pixels over
        something and nothing, nats.
    """
    stride = known.along.shape[-1] // found.left.shape[-1]  # a cell is judged by the pixel nearest to its middle
    cells = Lattice(stride // 2, stride // 2, stride)
    targets, sources = slice(references, None), slice(0, references)
    seen = known.at(cells, sources)
    usable = seen.known if present is None else seen.known & present[:, sources, None, None]
    counts = counts[..., None, None]
    of_cells, of_pixels = known.at(cells, targets), known.at(lattice or Lattice(), targets)
    shares, depths = found.shares, found.shares.shape[2]
    place = ((of_cells.along / EXTENT + 1) * depths / 2 - 0.5).clamp(0, depths - 1)
    low = place.floor().clamp_max(max(depths - 2, 0)).long()
    part = (place - low)[:, :, None]
    high = (low + 1).clamp_max(depths - 1)
    met = (1 - part) * shares.gather(2, low[:, :, None]) + part * shares.gather(2, high[:, :, None])
    something = torch.log(-torch.expm1(found.nothing.clamp_max(-1e-6)))
    return {
        "bins": _mean(-met[:, :, 0], of_cells.known & counts) + _mean(-found.left, of_cells.nothing & counts),
        "references": _mean((found.references - seen.along).abs(), usable),
        "pixels": _mean((found.along - of_pixels.along).abs(), of_pixels.known & counts),
        "outline": _mean(-something, of_pixels.known & counts) + _mean(-found.nothing, of_pixels.nothing & counts),
    }


def _mean(x: Tensor, where: Tensor) -> Tensor:
    return (x * where).sum() / where.sum().clamp_min(1)
