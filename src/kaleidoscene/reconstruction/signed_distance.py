"""A surface from images alone: a signed distance and a colour on a grid, rendered as NeuS does, fitted coarse to fine.

For views without depth. After NeuS (Wang et al. 2021: opacity from the logistic of signed distances, equation 13;
eikonal term; masks) on grids in place of a network, begun from the visual hull.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.choices import check_range
from kaleidoscene.errors import NoSurface
from kaleidoscene.reconstruction.hull import Box, box_of, visual_hull
from kaleidoscene.reconstruction.pictures import Pictures, Rays
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh, cut_surface

_LEAST = 1e-5
# fp32 numbers that are held at the peak for each place of a ray, and for each cell of a box that is full.
_POINT_NUMBERS, _CELL_NUMBERS = 30, 18


@dataclass(frozen=True, kw_only=True)
class SurfaceFieldConfig:
    """How a surface is fitted to images."""

    resolution: int = 96
    """Cells along the longest side of the finest grid; the first has a third of it, the second two thirds."""
    steps: int = 200
    """At each of the three grids."""
    rays: int = 2048
    """Of a step."""
    samples: int = 32
    """Along a ray, most of them about the surface."""
    learning_rate: float = 0.1
    """Of Adam: of distances in cells, of colours as logits."""
    mask: float = 0.2
    """Weight of the silhouettes."""
    eikonal: float = 0.05
    """Weight of gradients of length one."""
    smoothness: float = 0.02
    """Weight of the squared curvature of the distances, in cells."""
    agreement: float = 0.93
    """Share of the views that have to see an object somewhere for the hull that the surface is begun from."""
    least_part: float = 0.05
    """Parts of the mesh that hang together and have a smaller share of its faces are dropped."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, 24, 256, "resolution")
        check_range(self, 1, 100_000, "steps")
        check_range(self, 1, 2**20, "rays")
        check_range(self, 8, 512, "samples")
        check_range(self, 0, 1, "agreement", "least_part")
        check_range(self, 0, math.inf, "learning_rate", above=True)
        check_range(self, 0, math.inf, "mask", "eikonal", "smoothness")

    @property
    def memory(self) -> int:
        """Peak bytes of a fit, of an object as deep and high as it is long; measured (2026-11-28)."""
        return 4 * (_POINT_NUMBERS * self.rays * self.samples + _CELL_NUMBERS * (self.resolution + 2) ** 3)


class SurfaceField(nn.Module):
    """Signed distances (positive outside, in cells) and colours on grids over a box; white behind it.

    Args:
        box: That the object lies in.
        distance: At the corners of its cubes, in cells.
        colour: At the corners of cubes of any size, as logits.
    """

    def __init__(self, box: Box, distance: Float[Tensor, "z y x"], colour: Float[Tensor, "3 _ _ _"]) -> None:
        super().__init__()
        self.box = box
        self.distance, self.colour = nn.Parameter(distance[None].contiguous()), nn.Parameter(colour.contiguous())

    def refined(self, box: Box, colours: Box) -> SurfaceField:
        """The same surface on finer grids: of distances, and of colours."""
        distance, colour = (
            nn.functional.interpolate(
                planes.detach()[None], tuple(count + 1 for count in reversed(some.cells)), mode="trilinear",
                align_corners=True,
            )[0] for planes, some in ((self.distance, box), (self.colour, colours))
        )  # fmt: skip
        return SurfaceField(box, distance[0] * (self.box.cell / box.cell), colour)

    def query(self, points: Float[Tensor, "*n 3"]) -> tuple[Float[Tensor, "*n"], Float[Tensor, "*n 3"]]:
        """Distance in cells, and colour."""
        return self._at(self.distance, points)[..., 0], self._at(self.colour, points).sigmoid()

    def _at(self, planes: Float[Tensor, "c z y x"], points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n c"]:
        place = (2 * (points - self.box.low) / self.box.extent - 1).reshape(1, -1, 1, 1, 3)
        found = nn.functional.grid_sample(planes[None], place, align_corners=True, padding_mode="border")
        return found.reshape(len(planes), -1).mT.reshape(*points.shape[:-1], len(planes))

    def shoot(
        self, rays: Rays, samples: int, sharpness: float, generator: torch.Generator
    ) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
        """Colours of rays on white, and how much of each is stopped.

        Args:
            rays: That meet the box.
            samples: Along each.
            sharpness: Of the logistic, in 1 / cells.
            generator: Of the places.
        """
        far = self._places(rays, samples, sharpness, generator)
        points = rays.origins[:, None] + far[..., None] * rays.directions[:, None]
        distance, colour = self.query(points)
        weights = _opaque(distance, sharpness)
        middle = 0.5 * (colour[:, 1:] + colour[:, :-1])
        stopped = weights.sum(1)
        return (weights[..., None] * middle).sum(1) + (1 - stopped)[:, None], stopped

    @torch.no_grad()
    def _places(self, rays: Rays, samples: int, sharpness: float, generator: torch.Generator) -> Float[Tensor, "n s"]:
        """Distances along rays: a quarter even, the others where twice as many even ones have found the surface."""
        count = len(rays.near)
        even = torch.linspace(0, 1, 2 * samples + 1)
        coarse = rays.near[:, None] + even * (rays.far - rays.near)[:, None]
        points = rays.origins[:, None] + coarse[..., None] * rays.directions[:, None]
        weights = _opaque(self._at(self.distance, points)[..., 0], sharpness) + 1e-3
        edges = nn.functional.pad((weights / weights.sum(1, keepdim=True)).cumsum(1), (1, 0))
        few = samples // 4
        asked = (torch.arange(samples - few) + torch.rand(count, samples - few, generator=generator)) / (samples - few)
        above = torch.searchsorted(edges, asked.contiguous()).clamp(1, 2 * samples)
        low, high = edges.gather(1, above - 1), edges.gather(1, above)
        inside = (asked - low) / (high - low).clamp_min(1e-9)
        found = torch.lerp(coarse.gather(1, above - 1), coarse.gather(1, above), inside.clamp(0, 1))
        spread = (torch.arange(few) + torch.rand(count, few, generator=generator)) / few
        spread = rays.near[:, None] + spread * (rays.far - rays.near)[:, None]
        return torch.cat([found, spread], dim=1).sort(dim=1).values

    def mesh(self, least_part: float) -> TriangleMesh:
        """Where distances are zero, in world units, without parts that have a smaller share of the faces; grey.

        Raises:
            KaleidosceneError: There is no surface, or scikit-image is not there.
        """
        distance = self.distance.detach()[0].permute(2, 1, 0)
        return cut_surface(distance, self.box.low, self.box.cell, least_part)

    def irregularity(self, generator: torch.Generator) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """How far gradients are from length one, and squared curvature; of an eighth of the grid."""
        at = torch.randint(2, (3,), generator=generator).tolist()
        inner = self.distance[0, 1:-1, 1:-1, 1:-1][at[0] :: 2, at[1] :: 2, at[2] :: 2]
        slopes, bends = [], []
        for axis in range(3):
            sides = []
            for step in (-1, 1):
                slices = [slice(1 + at[n] + (step if n == axis else 0), None, 2) for n in range(3)]
                side = self.distance[0][tuple(slices)]
                sides.append(side[tuple(slice(0, length) for length in inner.shape)])
            slopes.append(0.5 * (sides[1] - sides[0]))
            bends.append(sides[1] + sides[0] - 2 * inner)
        length = (torch.stack(slopes).square().sum(0) + 1e-9).sqrt()
        return (length - 1).square().mean(), torch.stack(bends).square().sum(0).mean()


def _opaque(distance: Float[Tensor, "n s"], sharpness: float) -> Float[Tensor, "n s-1"]:
    """How much of each ray is stopped between its places (NeuS, equations 11 to 13)."""
    passed = (sharpness * distance).sigmoid()
    opacity = ((passed[:, :-1] - passed[:, 1:]) / passed[:, :-1].clamp_min(_LEAST)).clamp(0, 1)
    through = nn.functional.pad((1 - opacity + 1e-7).cumprod(1)[:, :-1], (1, 0), value=1.0)
    return opacity * through


def fit_surface(
    pictures: Pictures, config: SurfaceFieldConfig = SurfaceFieldConfig(), *,
    on_step: Callable[[int, int], None] | None = None,
) -> SurfaceField:  # fmt: skip
    """Fit a surface to posed images.

    Args:
        pictures: Of one object.
        config: Sizes and lengths.
        on_step: Progress.

    Raises:
        KaleidosceneError: The silhouettes have no hull.
    """
    generator = torch.Generator().manual_seed(config.seed)
    box = box_of(pictures.masks, pictures.cameras, config.agreement, config.resolution // 3)
    hull = visual_hull(pictures.masks, pictures.cameras, box, config.agreement)
    field = SurfaceField(box, hull, torch.zeros(3, *hull.shape))
    rays = Rays.of(pictures, box)
    if not len(rays.near):
        raise NoSurface("No ray of the views meets the object.")
    for times in (1, 2, 3):
        field = field.refined(box.finer(times), box.finer(max(1, times - 1)))
        _fit(field, rays, config, generator, times - 1, on_step)
    return field


def _fit(
    field: SurfaceField, rays: Rays, config: SurfaceFieldConfig, generator: torch.Generator, grid: int,
    on_step: Callable[[int, int], None] | None,
) -> None:  # fmt: skip
    optimiser = torch.optim.Adam(field.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    for step in range(config.steps):
        # Opacity begins wide, so that a surface that is off is pulled at, and ends about half a cell wide.
        sharpness = 1 + 2 * step / config.steps
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - 0.9 * step / config.steps)
        some = rays[torch.randint(len(rays.near), (config.rays,), generator=generator)]
        colour, stopped = field.shoot(some, config.samples, sharpness, generator)
        picture = (some.weights * (colour - some.colours).abs().mean(-1)).mean()
        silhouette = nn.functional.binary_cross_entropy(stopped.clamp(1e-4, 1 - 1e-4), some.masks, some.weights)
        eikonal, curvature = field.irregularity(generator)
        loss = picture + config.mask * silhouette + config.eikonal * eikonal + config.smoothness * curvature
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if on_step is not None:
            on_step(grid * config.steps + step + 1, 3 * config.steps)
