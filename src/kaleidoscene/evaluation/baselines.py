"""Baselines behind the seam of all families: what little or no learning gives under the same protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import unknown_name
from kaleidoscene.evaluation.protocols import direction_cosines, nearest_reference
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project, to_sampling_grid, unproject
from kaleidoscene.reconstruction.radiance_field import FieldConfig, RadianceField, fit_radiance_field
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.renderer import OnStep, PlainRenderer, Rendering, Scene, check_references


class Made(NamedTuple):
    """Images ``(targets, 3, h, w)``, and depths ``(targets, h, w)`` where the method knows them."""

    images: Tensor
    depths: Tensor | None = None


ViewMaker = Callable[["ReferenceViews", Cameras], Made]
"""References and target cameras ``(targets,)`` to views."""
# Plane sweep: depths, pixels along the window over which references are compared, references that are compared, and
# the cost of a depth that is e times nearer or farther than the middle of the scene.
_PLANES, _WINDOW, _NEAREST, _PRIOR = 48, 5, 4, 0.05


@dataclass(eq=False)
class ReferenceViews:
    """A scene that is nothing but its references.

    Attributes:
        images: Of one scene.
        cameras: ``(1, refs)``.
        radiance: Fitted to them when it is first asked for.
    """

    images: Float[Tensor, "refs 3 h w"]
    cameras: Cameras
    radiance: RadianceField | None = None

    @property
    def num_references(self) -> int:
        """References in it."""
        return len(self.images)

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        return self.images.nbytes + (0 if self.radiance is None else self.radiance.grid.nbytes)


class BaselineRenderer(PlainRenderer):
    """Renders by one of :data:`BASELINES`; scenes come one at a time and seeds change nothing.

    Args:
        make: Makes the views.
        image_size: ``(height, width)`` of references and targets.
        capabilities: What it can do.
    """

    def __init__(self, make: ViewMaker, image_size: tuple[int, int], capabilities: Capabilities) -> None:
        self.make, self.image_size, self.capabilities = make, image_size, capabilities

    def encode(self, images: Float[Tensor, "1 refs 3 h w"], cameras: Cameras | None) -> ReferenceViews:
        """Keep the references."""
        check_references(images, cameras, self.image_size)
        assert cameras is not None
        return ReferenceViews(images[0], cameras)

    def render(
        self,
        scene: Scene,
        cameras: Cameras,
        *,
        seeds: Sequence[int],
        independent: bool = False,
        depth: bool = True,
        on_step: OnStep | None = None,
    ) -> Rendering:
        """Targets, each made without the others."""
        assert isinstance(scene, ReferenceViews)
        images, depths = self.make(scene, cameras[0])
        if on_step is not None:
            on_step(1, 1)
        return Rendering(images.clamp(0, 1)[None], cameras, None if depths is None or not depth else depths[None])

    def extend(
        self, scene: Scene, images: Float[Tensor, "1 new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> ReferenceViews:
        """Some of the references and new ones behind them."""
        assert isinstance(scene, ReferenceViews)
        old = list(keep)
        together = Cameras.concatenate([scene.cameras[0][old], cameras[0]])
        return ReferenceViews(torch.cat([scene.images[old], images[0]]), together.reshape(1, len(together)))


def nearest_view(scene: ReferenceViews, cameras: Cameras) -> Made:
    """The reference that sees the middle from the nearest direction, unchanged."""
    return Made(scene.images[nearest_reference(scene.cameras[0], cameras)])


def mean_view(scene: ReferenceViews, cameras: Cameras) -> Made:
    """The mean of all references."""
    return Made(scene.images.mean(0, keepdim=True).expand(len(cameras), -1, -1, -1))


def blended_view(scene: ReferenceViews, cameras: Cameras) -> Made:
    """References blended by the inverse square of the angle between viewing directions, none of them moved."""
    weights = _closeness(scene.cameras[0], cameras)
    return Made(torch.einsum("tr,rchw->tchw", weights / weights.sum(1, keepdim=True), scene.images))


def _closeness(references: Cameras, targets: Cameras) -> Float[Tensor, "targets refs"]:
    return 1 / (torch.acos(direction_cosines(references, targets).clamp(-1, 1)).square() + 1e-4)


def swept_view(scene: ReferenceViews, cameras: Cameras) -> Made:
    """Plane sweep: at every pixel the depth at which the nearest references agree best, and their colours there.

    Planes face the target, spaced evenly in inverse depth about the middle of the scene (Collins 1996). Where colours
    say nothing, as on a plain background, depths near the middle win. With one reference there is nothing to agree: its
    image is warped by the homography of the plane through the middle. There is no depth where no reference sees.
    """
    weights = _closeness(scene.cameras[0], cameras)
    out: list[tuple[Tensor, Tensor]] = []
    for number in range(len(cameras)):
        chosen = weights[number].topk(min(_NEAREST, len(scene.images))).indices
        near = ReferenceViews(scene.images[chosen], scene.cameras[:, chosen])
        out.append(_sweep(near, cameras[number], weights[number][chosen]))
    return Made(torch.stack([image for image, _ in out]), torch.stack([depth for _, depth in out]))


def _sweep(
    scene: ReferenceViews, target: Cameras, weights: Float[Tensor, " refs"]
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"]]:
    middle = max(float(target.cam_from_world[2, 3].abs()), 1e-3)
    depths = [middle]
    if len(scene.images) > 1:
        depths = (1 / torch.linspace(1 / (3 * middle), 1 / (0.5 * middle), _PLANES)).tolist()
    pool = partial(torch.nn.functional.avg_pool2d, padding=_WINDOW // 2, count_include_pad=False)
    costs, colours, seen_at = [], [], []
    for depth in depths:
        warped, seen = _warp(scene, target, depth)
        share = (weights[:, None, None] * seen)[:, None]
        total = share.sum(0)
        colour = (share * warped).sum(0) / total.clamp_min(1e-9) + (total == 0).float()  # white where nobody sees
        spread = (share * (warped - colour).square()).sum(0).mean(0) / total[0].clamp_min(1e-9)
        # What fewer than two references see agrees with everything.
        spread = torch.where(seen.sum(0) >= min(2, len(scene.images)), spread, 1.0)
        costs.append(pool(spread[None, None], _WINDOW, 1)[0, 0] + _PRIOR * math.log(depth / middle) ** 2)
        colours.append(colour)
        seen_at.append(total[0] > 0)
    best = torch.stack(costs).argmin(0)
    chosen = torch.tensor(depths)[best] * torch.stack(seen_at).gather(0, best[None])[0]
    return torch.stack(colours).gather(0, best.expand(1, 3, -1, -1))[0], chosen


def _warp(
    scene: ReferenceViews, target: Cameras, depth: float
) -> tuple[Float[Tensor, "refs 3 h w"], Float[Tensor, "refs h w"]]:
    """References as the target would see them if all they show lay at one depth before it; and where they show it."""
    points = unproject(target, torch.full(target.image_size, depth)).flatten(0, 1)
    pixels, z = project(scene.cameras[0], points.expand(len(scene.images), -1, -1))
    grid = to_sampling_grid(pixels, target.image_size).unflatten(1, target.image_size)
    seen = (grid.abs() <= 1).all(-1) & (z.unflatten(1, target.image_size) > 0)
    warped = torch.nn.functional.grid_sample(scene.images, grid, align_corners=False, padding_mode="border")
    return warped, seen.float()


def field_view(scene: ReferenceViews, cameras: Cameras, *, config: FieldConfig | None = None) -> Made:
    """A radiance field fitted to the references of the scene."""
    config = config or FieldConfig()
    if scene.radiance is None:
        scene.radiance = fit_radiance_field(scene.images, scene.cameras[0], config)
    return Made(*scene.radiance.render(cameras, config.samples))


BASELINES: dict[str, ViewMaker] = {
    "nearest": nearest_view,
    "mean": mean_view,
    "blend": blended_view,
    "plane-sweep": swept_view,
    "radiance-field": field_view,
}
"""By the name that the command line knows them by, after ``baseline:``."""
WITH_DEPTH = ("plane-sweep", "radiance-field")
"""Those that know how far away things are."""


def make_baseline(name: str, image_size: tuple[int, int]) -> BaselineRenderer:
    """The renderer of a baseline.

    Args:
        name: Of :data:`BASELINES`.
        image_size: ``(height, width)``.

    Raises:
        KaleidosceneError: There is no such baseline.
    """
    if name not in BASELINES:
        raise unknown_name("baseline", name, BASELINES)
    return BaselineRenderer(BASELINES[name], image_size, baseline_capabilities(name))


def baseline_capabilities(name: str) -> Capabilities:
    """What a baseline can do."""
    return Capabilities(renders_depth=name in WITH_DEPTH, any_lens=True, any_size=True)
