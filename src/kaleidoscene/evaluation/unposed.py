"""Photographs without cameras: poses, depth, new views and shape under RnG's protocol (method B.11)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.depth import depth_errors
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.evaluation.metrics.poses import relative_pose_scores
from kaleidoscene.evaluation.metrics.shape import chamfer
from kaleidoscene.evaluation.scene_views import CaptureViews
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import unproject
from kaleidoscene.reconstruction.fusion import FusionConfig, PointViews, pixels_that_count
from kaleidoscene.reconstruction.surface import eroded
from kaleidoscene.rendering.renderer import Renderer, Rendering, Scene, estimated_cameras

DRAWN, TARGETS, CLOUD_POINTS = 14, 10, 8192
"""Views that are drawn of a scene, the last of them that are targets, and points of a cloud that are compared."""


@dataclass(frozen=True)
class UnposedSplit:
    """Views of a scene.

    Attributes:
        sources: In the order in which they are added; the first ones are RnG's four.
        targets: The same for any number of sources.
    """

    sources: tuple[int, ...]
    targets: tuple[int, ...]


def draw_splits(names: Sequence[str], views: int, *, seed: int = 0) -> dict[str, UnposedSplit]:
    """RnG's draw: 14 views of each scene, of which the first 4 are sources and the last 10 targets.

    Sources beyond the fourth are views that were not drawn.

    Args:
        names: Of the scenes, in the order in which they draw.
        views: Of every scene.
        seed: Of all draws.

    Raises:
        KaleidosceneError: There are fewer than 14 views.
    """
    if views < DRAWN:
        raise KaleidosceneError(f"The protocol draws {DRAWN} views of a scene, which has {views}.")
    draw, splits = random.Random(seed), {}
    for name in names:
        chosen = draw.sample(range(views), DRAWN)
        others = [view for view in range(views) if view not in chosen]
        splits[name] = UnposedSplit((*chosen[: DRAWN - TARGETS], *others), tuple(chosen[-TARGETS:]))
    return splits


@dataclass(frozen=True, eq=False)
class TrueViews:
    """All views of a scene with what is known of them, at the size of the model.

    Attributes:
        images: RGB in [0, 1].
        depths: True ones, 0 in the background.
        cameras: True ones; the object is at the origin.
    """

    images: Float[Tensor, "views 3 h w"]
    depths: Float[Tensor, "views h w"]
    cameras: Cameras

    @classmethod
    def read(cls, views: CaptureViews) -> TrueViews:
        """Of a capture with depth maps."""
        every = list(range(len(views.capture)))
        images, cameras, _ = views.views(every)
        return cls(images, views.depths(every), cameras)


def score_unposed(
    renderer: Renderer, truth: TrueViews, split: UnposedSplit, count: int, fusion: FusionConfig
) -> dict[str, float]:
    """What a model makes of the first ``count`` sources; percent, dB, and distances of the first camera.

    Where a model estimates cameras it sees none: the first true camera and its distance say in which world targets are
    asked for, and nothing else is told.

    Args:
        renderer: It may lack what it cannot do; those numbers are left out.
        truth: All views of the scene.
        split: Which are sources and targets.
        count: Sources.
        fusion: Which pixels count for the shape.

    Raises:
        KaleidosceneError: There are not so many sources.
    """
    sources, targets = list(split.sources[:count]), list(split.targets)
    if not 0 < count <= len(split.sources):
        raise KaleidosceneError(f"{count} sources were asked for, the split has {len(split.sources)}.")
    scene = renderer.encode(truth.images[None, sources], truth.cameras[sources].reshape(1, count))
    scene = renderer.expect(scene, truth.cameras.reshape(1, len(truth.cameras)))
    numbers: dict[str, float] = {}
    estimated = estimated_cameras(scene)
    if estimated is not None and count > 1:
        poses = relative_pose_scores(estimated.world_from_cam[0], truth.cameras.world_from_cam[sources])
        numbers |= {name: float(value) for name, value in vars(poses).items()}
    new = render_some(renderer, scene, truth.cameras[targets])
    numbers["psnr"] = float(psnr(new.images[0], truth.images[targets]).mean())
    numbers["ssim"] = float(ssim(new.images[0], truth.images[targets], window="gaussian-sample").mean())  # RnG's
    if new.depths is None:
        return numbers
    for name, chosen, rendering in (
        ("target", targets, new),
        ("source", sources, render_some(renderer, scene, truth.cameras[sources])),
    ):
        assert rendering.depths is not None
        score = depth_errors(rendering.depths[0], truth.depths[chosen], truth.depths[chosen] > 0)
        numbers |= {f"{name} rel": 100 * score.rel, f"{name} a1": 100 * score.a1}
    others = [view for view in range(len(truth.images)) if view not in sources]
    parts = [point_views(render_some(renderer, scene, truth.cameras[chosen])) for chosen in (sources, others)]
    parts[0] = replace(parts[0], images=truth.images[sources])
    numbers["chamfer"] = chamfer_of_views(parts[0], parts[1], truth, sources[0], fusion)
    return numbers


def chamfer_of_views(sources: PointViews, new: PointViews, truth: TrueViews, first: int, fusion: FusionConfig) -> float:
    """Chamfer distance (sum of both directions, not squared) of the union of points to that of all true maps.

    Where RnG's script thins by Poisson disks, points are drawn at random.

    Args:
        sources: Views at the sources.
        new: All others.
        truth: All views.
        first: The first source, whose distance is the unit.
        fusion: Which pixels count.
    """
    unit = float(truth.cameras.centres[first].norm())
    kept = [
        views.points[pixels_that_count(views, fusion, is_source=is_source)]
        for views, is_source in ((sources, True), (new, False))
    ]
    ours = torch.cat(kept)
    if not len(ours):
        return float("inf")
    return chamfer(_some(ours / unit), _some(true_points(truth) / unit), combine="sum")


def true_points(truth: TrueViews) -> Float[Tensor, "n 3"]:
    """Points of all true depth maps, eroded by 3 x 3 pixels."""
    inner: Bool[Tensor, "views h w"] = eroded(truth.depths > 0, 3)
    return unproject(truth.cameras, truth.depths)[inner]


def _some(points: Float[Tensor, "n 3"]) -> Float[np.ndarray, "m 3"]:
    chosen = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:CLOUD_POINTS]
    return points[chosen].double().numpy()


def render_some(renderer: Renderer, scene: Scene, cameras: Cameras) -> Rendering:
    """Targets ``(targets,)`` of one scene, each by itself; on the CPU."""
    made = renderer.render(scene, cameras.reshape(1, len(cameras)), seeds=[0] * len(cameras), independent=True)
    moved = [None if x is None else x.cpu() for x in (made.depths, made.points, made.confidence)]
    return Rendering(made.images.cpu(), made.cameras, *moved)


def point_views(rendering: Rendering) -> PointViews:
    """A rendering of one scene with depths; points are those of the depths where it has none of its own."""
    assert rendering.depths is not None
    depths, cameras = rendering.depths[0], rendering.cameras[0]
    if rendering.points is None or rendering.confidence is None:
        return PointViews(rendering.images[0], depths, unproject(cameras, depths), torch.ones_like(depths), cameras)
    return PointViews(rendering.images[0], depths, rendering.points[0], rendering.confidence[0], cameras)
