"""A radiance field of one scene: a voxel grid of density and colour, fitted to images on a CPU.

Without view-dependent colour, proposal network or CUDA. After Plenoxels and DVGO (direct optimisation of grids, coarse
to fine, total variation, empty space left out), in Mip-NeRF 360's contracted space, so that objects and places are
fitted by the same code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import camera_rays

_EMPTY, _AROUND = 0.1, 2
"""Density (in 1 / unit) below which a voxel is taken for empty, and how many voxels around it are asked, too."""


@dataclass(frozen=True, kw_only=True)
class FieldConfig:
    """How a field is fitted.

    Attributes:
        grids: Voxels along a side, coarse to fine.
        steps: At each of them, at most.
        rays: Of a step.
        samples: Along a ray.
        learning_rate: Of Adam, on the raw values of the grid.
        smoothness: Weight of the total variation of density and colour.
        held_out: Share of the pixels that are kept from training, to know when to stop.
        check_every: Steps between looks at them; two looks without a gain end a grid.
        seed: Of rays and jitter.
    """

    grids: tuple[int, ...] = (32, 64, 96)
    steps: int = 300
    rays: int = 4096
    samples: int = 96
    learning_rate: float = 0.2
    smoothness: float = 0.5
    held_out: float = 0.05
    check_every: int = 25
    seed: int = 0


class RadianceField(nn.Module):
    """Density and colour on a grid over contracted space; white behind it.

    Args:
        side: Voxels along a side.
        unit: World units of the sphere that is not contracted, about the world's origin.
    """

    def __init__(self, side: int, unit: float) -> None:
        super().__init__()
        self.unit = unit
        # Channel 0 is density before softplus, which starts low: a haze at the start stays between few views.
        grid = torch.zeros(1, 4, side, side, side)
        grid[:, 0] = -6.0
        self.grid = nn.Parameter(grid)
        self.filled: Bool[Tensor, "side side side"] | None = None
        self.box: tuple[slice, ...] = (slice(None),) * 3  # all that is filled

    def refined(self, side: int) -> RadianceField:
        """The same field on another grid."""
        finer = RadianceField(side, self.unit)
        with torch.no_grad():
            finer.grid.copy_(nn.functional.interpolate(self.grid, (side,) * 3, mode="trilinear", align_corners=True))
        return finer

    @torch.no_grad()
    def find_empty(self) -> None:
        """From now on density is 0 where it is low in a voxel and in all around it; unless it is low everywhere."""
        density = 10 * nn.functional.softplus(self.grid[:, :1])
        around = 2 * _AROUND + 1
        filled = nn.functional.max_pool3d(density, around, stride=1, padding=_AROUND)[0, 0] > _EMPTY
        if bool(filled.any()):
            met = filled.nonzero()
            self.filled = filled
            self.box = tuple(slice(a, b + 1) for a, b in zip(met.amin(0).tolist(), met.amax(0).tolist(), strict=True))

    def query(self, points: Float[Tensor, "*batch 3"]) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch 3"]]:
        """Density (in 1 / unit) and colour at points in world units."""
        place = contract(points / self.unit).reshape(-1, 3) / 2  # to [-1, 1]
        if self.filled is None:
            density, colour = self._inside(place)
        else:
            x, y, z = ((place + 1) / 2 * (len(self.filled) - 1)).round().long().clamp(0, len(self.filled) - 1).unbind(1)
            met = self.filled[z, y, x].nonzero()[:, 0]
            some, paint = self._inside(place[met])
            density = some.new_zeros(len(place)).index_copy(0, met, some)
            colour = paint.new_zeros(len(place), 3).index_copy(0, met, paint)
        return density.reshape(points.shape[:-1]), colour.reshape(points.shape)

    def _inside(self, place: Float[Tensor, "places 3"]) -> tuple[Float[Tensor, " places"], Float[Tensor, "places 3"]]:
        values = nn.functional.grid_sample(
            self.grid, place.reshape(1, -1, 1, 1, 3), align_corners=True, padding_mode="border"
        ).reshape(4, -1)  # fmt: skip
        return 10 * nn.functional.softplus(values[0]), torch.sigmoid(values[1:]).mT

    def shoot(
        self,
        origins: Float[Tensor, "rays 3"],
        directions: Float[Tensor, "rays 3"],
        samples: int,
        jitter: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, " rays"]]:
        """Colours of rays, by quadrature over depths that grow apart (Max 1995; NeRF equation 3).

        The second value is how far along them half is stopped, without a gradient: 0 where more than half passes.
        """
        edges = sample_edges(samples, self.unit, origins, jitter)
        middles = 0.5 * (edges[:, 1:] + edges[:, :-1])
        density, colour = self.query(origins[:, None] + middles[..., None] * directions[:, None])
        thickness = density * (edges[:, 1:] - edges[:, :-1]) / self.unit
        opacity = 1 - torch.exp(-thickness)
        passed = torch.exp(-torch.cumsum(thickness, dim=1) + thickness)
        weights = opacity * passed
        with torch.no_grad():
            before_half = (weights.cumsum(1) < 0.5).sum(1, keepdim=True)
            distance = torch.nn.functional.pad(middles, (0, 1)).gather(1, before_half)[:, 0]
        return (weights[..., None] * colour).sum(1) + (1 - weights.sum(1, keepdim=True)), distance

    @torch.no_grad()
    def render(
        self, cameras: Cameras, samples: int, *, chunk: int = 8192
    ) -> tuple[Float[Tensor, "views 3 h w"], Float[Tensor, "views h w"]]:
        """Images of cameras ``(views,)``, and depths along their optical axes (0 where nothing is met)."""
        h, w = cameras.image_size
        images, depths = [], []
        for number in range(len(cameras)):
            origins, directions = _rays(cameras[number])
            parts = [
                self.shoot(origins[start : start + chunk], directions[start : start + chunk], samples)
                for start in range(0, len(origins), chunk)
            ]
            colours, distances = (torch.cat([part[n] for part in parts]) for n in (0, 1))
            images.append(colours.reshape(h, w, 3).movedim(-1, 0))
            depths.append((distances * (directions @ cameras[number].directions)).reshape(h, w))
        return torch.stack(images).clamp(0, 1), torch.stack(depths)

    def roughness(self) -> Float[Tensor, ""]:
        """Total variation of density and colour: mean absolute difference of neighbours, 0 where all is empty."""
        grid = self.grid[:, :, *self.box]
        values = torch.cat([nn.functional.softplus(grid[:, :1]), torch.sigmoid(grid[:, 1:])], dim=1)
        total = torch.stack([values.diff(dim=axis).abs().sum() for axis in (2, 3, 4)]).sum()
        return total / self.grid.diff(dim=2).numel()


def _rays(camera: Cameras) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    origin, directions = camera_rays(camera)
    directions = directions.reshape(-1, 3)
    return origin.expand_as(directions), directions


def contract(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """All of space into a ball of radius 2, the unit ball unchanged (Mip-NeRF 360, equation 10)."""
    norm = points.norm(dim=-1, keepdim=True).clamp_min(1e-9)
    return torch.where(norm <= 1, points, (2 - 1 / norm.clamp_min(1)) * points / norm)


def sample_edges(
    samples: int, unit: float, origins: Float[Tensor, "rays 3"], jitter: torch.Generator | None
) -> Float[Tensor, "rays edges"]:
    """Edges of the pieces of rays: two thirds even through the unit ball, the rest in inverse depth beyond it."""
    count, distance = len(origins), origins.norm(dim=-1, keepdim=True)
    near, middle = (distance - unit).clamp_min(0.05 * unit), distance + unit
    inner = 2 * samples // 3
    even = torch.linspace(0, 1, inner + 1, device=origins.device)
    beyond = torch.linspace(0, 1, samples - inner + 1, device=origins.device)[1:]
    edges = torch.cat([near + even * (middle - near), 1 / ((1 - beyond) / middle + beyond / (20 * middle))], dim=1)
    if jitter is None:
        return edges
    move = torch.rand(count, samples + 1, generator=jitter, device=origins.device) - 0.5
    step = edges.diff(dim=1)
    room = torch.cat([step[:, :1], torch.minimum(step[:, :-1], step[:, 1:]), step[:, -1:]], dim=1)
    return edges + 0.9 * move * room


def fit_radiance_field(images: Float[Tensor, "views 3 h w"], cameras: Cameras, config: FieldConfig) -> RadianceField:
    """Fit a field to posed images, the middle of the scene at the world's origin.

    Args:
        images: RGB in [0, 1].
        cameras: ``(views,)``, in world units.
        config: Sizes and lengths.
    """
    generator = torch.Generator().manual_seed(config.seed)
    rays = [_rays(cameras[number]) for number in range(len(cameras))]
    origins, directions = (torch.cat([pair[n] for pair in rays]) for n in (0, 1))
    colours = images.movedim(1, -1).reshape(-1, 3)
    order = torch.randperm(len(colours), generator=generator)
    kept = max(1, min(4096, round(config.held_out * len(order))))
    check, training = order[:kept], order[kept:]
    # The cameras look at the middle from outside of what they see.
    field = RadianceField(config.grids[0], 0.6 * float(cameras.centres.norm(dim=-1).mean()))
    for side in config.grids:
        field = field.refined(side)
        field.find_empty()  # nothing, before the first is fitted
        _fit(field, origins, directions, colours, training, check, config, generator)
    return field


def _fit(
    field: RadianceField, origins: Tensor, directions: Tensor, colours: Tensor, training: Tensor, check: Tensor,
    config: FieldConfig, generator: torch.Generator,
) -> None:  # fmt: skip
    optimiser = torch.optim.Adam(field.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), fused=True)
    best, behind = float("inf"), 0
    for step in range(config.steps):
        chosen = training[torch.randint(len(training), (config.rays,), generator=generator)]
        seen, _ = field.shoot(origins[chosen], directions[chosen], config.samples, generator)
        loss = (seen - colours[chosen]).square().mean() + config.smoothness * field.roughness()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % config.check_every == 0:
            with torch.no_grad():
                seen, _ = field.shoot(origins[check], directions[check], config.samples)
                error = float((seen - colours[check]).square().mean())
            behind = 0 if error < 0.995 * best else behind + 1
            best = min(best, error)
            if behind == 2:
                return
