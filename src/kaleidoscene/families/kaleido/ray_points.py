"""What references show at points along the rays of targets; geometry alone, in normalised units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from kaleidoscene.families.kaleido.packing import Chosen
from kaleidoscene.geometry.poses import invert
from kaleidoscene.nn.positions import ViewPositions

# Half of the length of ray that is searched (cameras stand at distance 1), and how near to a camera a point may lie.
EXTENT, NEAR = 0.5, 0.05
# How much more a reference counts that looks along the ray: weights are exp(FOCUS cos).
FOCUS = 8.0


@dataclass(frozen=True)
class Lattice:
    """Every ``stride``-th pixel of every ``stride``-th row, from ``(row, col)`` on: all, or a patch of ``size``."""

    row: int = 0
    col: int = 0
    stride: int = 1
    size: tuple[int, int] | None = None

    def of(self, x: Shaped[Tensor, "*batch h w"]) -> Shaped[Tensor, "*batch rows cols"]:
        """These pixels of an image (a view)."""
        if self.size is not None:
            x = x[..., : self.row + self.size[0] * self.stride, : self.col + self.size[1] * self.stride]
        return x[..., self.row :: self.stride, self.col :: self.stride]

    def places(self, size: Sequence[int], device: torch.device) -> Float[Tensor, "rows cols 2"]:
        """Centres of its pixels, x and y as shares of the sides of an image."""
        rows, cols = ((torch.arange(side, device=device) + 0.5) / side for side in size)
        y, x = torch.meshgrid(rows, cols, indexing="ij")
        return torch.stack([self.of(x), self.of(y)], dim=-1)


def along_of_axis(
    positions: ViewPositions, size: Sequence[int]
) -> tuple[Float[Tensor, "batch views h w"], Float[Tensor, "batch views h w"]]:
    """How to come from depths along optical axes to places on the rays of pixels: ``along = start + slant depth``.

    ``start`` is where the camera stands on the ray, counted from the place that is nearest to the origin; ``slant`` is
    the length of the ray on which depth grows by 1.
    """
    tangents = positions.tangents_at(Lattice().places(size, positions.lens.device).flatten(0, 1))
    centre, direction = positions.rays(tangents)
    start, slant = (centre * direction).sum(-1), (1 + tangents.square().sum(-1)).sqrt()
    return start.unflatten(-1, tuple(size)), slant.unflatten(-1, tuple(size))


@dataclass(frozen=True, eq=False)
class Sources:
    """What can be copied from.

    Attributes:
        latents: Of the references.
        surfaces: How far along its ray each cell of a reference sees something.
        positions: Of the references.
        present: False for references that must not be seen; None: all may.
        features: Learned features by which places in references are matched; None where nothing is matched.
        outlines: 1 where they may show an object, 0 where they show nothing but white; None where nobody asks.
    """

    latents: Float[Tensor, "batch refs c h w"]
    surfaces: Float[Tensor, "batch refs rows cols"]
    positions: ViewPositions
    present: Bool[Tensor, "batch refs"] | None = None
    features: Float[Tensor, "batch refs features fh fw"] | None = None
    outlines: Float[Tensor, "batch refs h w"] | None = None

    def counts(self) -> Tensor:
        """References of each scene that may be seen, ``(batch, 1, 1, 1)`` or one number."""
        if self.present is None:
            return torch.tensor(self.latents.shape[1])
        return self.present.sum(1).clamp_min(1)[:, None, None, None]

    def join(self, others: Sources) -> Sources:
        """These references and others of the same scenes behind them, all of them present."""

        def both(own: Tensor | None, other: Tensor | None) -> Tensor | None:
            return None if own is None or other is None else torch.cat([own, other], 1)

        return Sources(
            torch.cat([self.latents, others.latents], 1),
            torch.cat([self.surfaces, others.surfaces], 1),
            self.positions.join(others.positions),
            features=both(self.features, others.features),
            outlines=both(self.outlines, others.outlines),
        )

    def repeat(self, times: int) -> Sources:
        """``times`` copies of each scene, next to each other; all references are present."""

        def repeat(x: Tensor) -> Tensor:
            return x.expand(times, *x.shape[1:]) if len(x) == 1 else x.repeat_interleave(times, 0)  # no copies of one

        return Sources(
            repeat(self.latents), repeat(self.surfaces), self.positions.repeat(times),
            features=None if self.features is None else repeat(self.features),
            outlines=None if self.outlines is None else repeat(self.outlines),
        )  # fmt: skip

    def nearest(self, target: ViewPositions, count: int) -> Sources:
        """Of one scene the ``count`` references whose cameras are nearest to that of one target (0, or more: all)."""
        if not 0 < count < self.latents.shape[1]:
            return self
        centres = invert(self.positions.cam_from_world)[0, :, :3, 3]
        distance = (centres - invert(target.cam_from_world)[0, 0, :3, 3]).norm(dim=-1)
        if self.present is not None:
            distance = distance.masked_fill(~self.present[0], torch.inf)
        chosen = distance.argsort(stable=True)[:count].sort().values
        at = self.positions
        positions = ViewPositions(at.cam_from_world[:, chosen], at.lens[:, chosen], at.times[:, chosen], at.is_video)
        optional = (self.present, self.features, self.outlines)
        present, features, outlines = (None if x is None else x[:, chosen] for x in optional)
        return Sources(self.latents[:, chosen], self.surfaces[:, chosen], positions, present, features, outlines)

    def scene(self, number: int) -> Sources:
        """One scene alone."""
        at = slice(number, number + 1)
        present, features, outlines = (
            None if x is None else x[at] for x in (self.present, self.features, self.outlines)
        )
        return Sources(self.latents[at], self.surfaces[at], self.positions.scene(number), present, features, outlines)


@dataclass(frozen=True, eq=False)
class Sighting:
    """What one reference shows at all points.

    Attributes:
        colours: Its latents where the points project to.
        weight: ``exp(FOCUS (cos - 1))``; 0 where it does not see the point.
        seen: 1 where the point lies before both cameras and inside the image, else 0.
        cosines: Between its ray to the point and that of the target.
        along: Where the point lies on its ray, counted from the place nearest to the origin.
        surface: Where it says that its surface lies, likewise; it and ``features`` have gradients.
        features: Its features there, where there are any.
    """

    colours: Float[Tensor, "batch c targets depths pixels"]
    weight: Float[Tensor, "batch targets depths pixels"]
    seen: Float[Tensor, "batch targets depths pixels"]
    cosines: Float[Tensor, "batch targets depths pixels"]
    along: Float[Tensor, "batch targets depths pixels"]
    surface: Float[Tensor, "batch targets depths pixels"]
    features: Float[Tensor, "batch features targets depths pixels"] | None = None


@dataclass(frozen=True, eq=False)
class RayPoints:
    """Points along the rays of pixels of targets, nearest first.

    Pixels are the last axis: there are many, and what belongs to a ray or a depth alone is spread over long rows.

    Attributes:
        foot: The places of the rays that are nearest to the origin, in world axes.
        direction: Unit vectors.
        steps: How far behind the foot the points lie; ``depths x 1`` where they do so on all rays alike.
        square: Of the distances from the origin.
        usable: Whether a point lies before its camera and the scene has poses.
    """

    foot: Float[Tensor, "batch targets 3 pixels"]
    direction: Float[Tensor, "batch targets 3 pixels"]
    steps: Float[Tensor, "*#rays depths #pixels"]
    square: Float[Tensor, "batch targets depths pixels"]
    usable: Bool[Tensor, "batch targets depths pixels"]

    @classmethod
    def of(
        cls,
        targets: ViewPositions,
        places: Float[Tensor, "pixels 2"],
        steps: Float[Tensor, "*#rays depths #pixels"],
    ) -> RayPoints:
        """Of pixels at ``places`` (x and y as shares of the image), ``steps`` behind the foot of a ray."""
        centre, direction = targets.rays(targets.tangents_at(places))
        centre, direction = centre.mT.contiguous(), direction.mT.contiguous()
        along = (direction * centre).sum(-2, keepdim=True)
        foot = centre - along * direction
        usable = (steps > along + NEAR) & ~targets.is_video[:, None, None, None]
        return cls(foot, direction, steps, foot.square().sum(-2, keepdim=True) + steps.square(), usable)

    def only(self, chosen: Chosen) -> RayPoints:
        """Some points of some rays of one view, whose steps are those of all rays."""
        foot, direction = self.foot[..., chosen.rays], self.direction[..., chosen.rays]
        steps = self.steps.reshape(-1)[chosen.number][None, None]
        square = foot.square().sum(-2, keepdim=True) + steps.square()
        return RayPoints(foot, direction, steps, square, chosen.real[None, None])

    @staticmethod
    def even_steps(depths: int, device: torch.device) -> Float[Tensor, "depths 1"]:
        """The middles of ``depths`` bins of equal width that share the length of ray that is searched."""
        return EXTENT * ((2 * torch.arange(depths, device=device)[:, None] + 1) / depths - 1)

    @staticmethod
    def steps_beyond(depths: int, near: int, far: int, device: torch.device) -> Float[Tensor, "points 1"]:
        """Those of :meth:`even_steps` between more points, nearest first, in normalised units.

        Args:
            depths: As there.
            near: Points before, evenly from -1 (the distance of the farthest reference) on.
            far: Points behind, evenly in disparity to infinity.
            device: Where they are to be.
        """
        before = -1 + (1 - EXTENT) * (torch.arange(near, device=device)[:, None] + 0.5) / max(near, 1)
        behind = EXTENT / (1 - (torch.arange(far, device=device)[:, None] + 0.5) / max(far, 1))
        return torch.cat([before, RayPoints.even_steps(depths, device), behind])

    def seen_from(self, sources: Sources) -> Iterator[Sighting]:
        """What each reference shows, one after the other."""
        for number in range(sources.latents.shape[1]):
            yield self._sighting(sources, number)

    def _sighting(self, sources: Sources, number: int) -> Sighting:
        pose = sources.positions.cam_from_world[:, number]
        places, seen = self._project(pose, sources.positions.lens[:, number])
        if sources.present is not None:
            seen = seen & sources.present[:, number, None, None, None]
        cosines, along = self._angles(invert(pose)[:, None, :3, 3:])
        grid = places.flatten(1, 2)

        def read(images: Tensor) -> Tensor:
            found = nn.functional.grid_sample(images, grid, align_corners=False, padding_mode="border")
            return found.unflatten(2, seen.shape[1:3])

        colours = read(sources.latents[:, number].float())
        surface = read(sources.surfaces[:, number, None])[:, 0]
        features = None if sources.features is None else read(sources.features[:, number].float())
        shown = seen.to(colours.dtype)
        return Sighting(colours, torch.exp(FOCUS * (cosines - 1)) * shown, shown, cosines, along, surface, features)

    def _project(
        self, pose: Float[Tensor, "batch 4 4"], lens: Float[Tensor, "batch 4"]
    ) -> tuple[Float[Tensor, "batch targets depths pixels 2"], Bool[Tensor, "batch targets depths pixels"]]:
        """Places in an image, from -1 to 1 over its sides, and whether the points are seen there."""
        fx, fy, cx, cy = (2 * lens).unbind(-1)
        none, one = torch.zeros_like(fx), torch.ones_like(fx)
        rows = [torch.stack(row, -1) for row in ((fx, none, cx - 1), (none, fy, cy - 1), (none, none, one))]
        image_from_world = torch.stack(rows, -2) @ pose[:, :3]
        turn = image_from_world[:, None, :, :3]
        start, slope = turn @ self.foot + image_from_world[:, None, :, 3:], turn @ self.direction
        x, y, z = (torch.addcmul(start[:, :, None, axis], self.steps, slope[:, :, None, axis]) for axis in range(3))
        seen = self.usable & (z > NEAR) & (torch.maximum(x.abs(), y.abs()) < z)
        return self._pairs(start, slope, [0, 1]) / self._pairs(start, slope, [2, 2]).clamp_min(NEAR), seen

    def _pairs(self, start: Tensor, slope: Tensor, axes: list[int]) -> Float[Tensor, "batch targets depths pixels 2"]:
        """Two coordinates of each point next to each other: cheaper than to interleave them when all is done."""
        start, slope = (x[:, :, axes].mT.contiguous()[:, :, None] for x in (start, slope))
        return torch.addcmul(start, self.steps[..., None], slope)

    def _angles(self, eye: Float[Tensor, "batch 1 3 1"]) -> tuple[Tensor, Tensor]:
        """With q the points, d the rays and e an eye: ``(q - e) . d`` and ``(q - e) . q`` over ``|q - e|``."""
        towards = (eye * self.direction).sum(-2, keepdim=True)
        inner = torch.addcmul((eye * self.foot).sum(-2, keepdim=True), self.steps, towards)
        square = torch.add(self.square + eye.square().sum(-2, keepdim=True), inner, alpha=-2)
        inverse = square.clamp_min(1e-6).rsqrt()
        return (self.steps - towards) * inverse, (self.square - inner) * inverse
