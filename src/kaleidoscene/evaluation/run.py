"""Score the views that a renderer makes of a scene, for every number of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol as Interface
from typing import runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.evaluation.metrics.poses import RelativePoseScore, relative_pose_scores
from kaleidoscene.evaluation.metrics.registry import PairMetric
from kaleidoscene.evaluation.protocols import FirstViews, Split, SweepAxes, nearest_reference
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.renderer import TARGET_SEEDS, Renderer, estimated_cameras

Box = tuple[int, int, int, int]
"""Top, left, bottom, right."""
DEFAULT_METRICS: dict[str, PairMetric] = {"psnr": psnr, "ssim": ssim}
_CHUNK = 16


@runtime_checkable
class SceneViews(Interface):
    """Views of one scene at the size of a model, world origin in the middle of the scene; read when asked for."""

    @property
    def name(self) -> str:
        """For messages and results."""
        ...

    def views(self, indices: Sequence[int]) -> tuple[Float[Tensor, "n 3 h w"], Cameras, list[Box] | None]:
        """Images, cameras, and what of each image is real and not padding (None: all of it)."""
        ...


@dataclass(frozen=True, eq=False)
class HeldOutObject:
    """A scene in memory."""

    name: str
    images: Float[Tensor, "views 3 h w"]
    cameras: Cameras

    def views(self, indices: Sequence[int]) -> tuple[Float[Tensor, "n 3 h w"], Cameras, list[Box] | None]:
        """Some views."""
        return self.images[list(indices)], self.cameras[list(indices)], None


@dataclass(frozen=True, eq=False)
class Score:
    """Of one scene at one number of references.

    Attributes:
        scene: Its name.
        references: N.
        values: By metric, of every target.
        copy: Likewise, of copying the reference with the nearest viewing direction.
        images: What was rendered.
        depths: Likewise, along the optical axis in world units; None where they were not wanted or are not known.
        oracle_scale: The factor on the distance of targets that scores best, where a sweep was asked for.
        oracle_axes: What of the distance it was applied to.
        oracle: Scores at that factor, chosen by looking at the truth.
        poses: How well the renderer told the cameras of the references; None of those that tell none, and of one.
    """

    scene: str
    references: int
    values: dict[str, list[float]]
    copy: dict[str, list[float]]
    images: Float[Tensor, "targets 3 h w"]
    depths: Float[Tensor, "targets h w"] | None = None
    oracle_scale: float | None = None
    oracle_axes: SweepAxes | None = None
    oracle: dict[str, list[float]] | None = None
    poses: RelativePoseScore | None = None

    def mean(self, metric: str) -> float:
        """Over the targets."""
        return sum(self.values[metric]) / len(self.values[metric])


def score_scene(
    renderer: Renderer,
    scene: SceneViews,
    split: Split,
    count: int,
    *,
    metrics: dict[str, PairMetric] = DEFAULT_METRICS,
    seed: int = 0,
    independent: bool = True,
    depth: bool = False,
    scale_sweep: Sequence[float] = (),
    sweep_axes: Sequence[SweepAxes] = ("all",),
) -> Score:
    """Render and score the targets of a split from ``count`` of its references.

    Args:
        renderer: Of any family, or a baseline.
        scene: Where views come from.
        split: Which views are what.
        count: N.
        metrics: By name; ``psnr`` is among them where there is a sweep.
        seed: Of the noise.
        independent: Render every target alone; else all targets see each other.
        depth: Depths are wanted as well, of renderers that know them.
        scale_sweep: See :class:`kaleidoscene.evaluation.protocols.Protocol`; used with one reference.
        sweep_axes: Likewise.

    Raises:
        KaleidosceneError: An image holds numbers that are not finite.
    """
    targets = list(split.targets)
    references, at, _ = scene.views(split.references[count])
    truth, cameras, boxes = scene.views(targets)
    _check_finite(references, f"{scene.name}: a reference")
    _check_finite(truth, f"{scene.name}: a target")
    made = renderer.encode(references[None], at.reshape(1, count))
    seeds = [seed * TARGET_SEEDS + target for target in targets]

    def shoot(cameras: Cameras) -> tuple[Tensor, Tensor | None]:
        ready = renderer.expect(made, cameras.reshape(1, len(targets)))
        step = _CHUNK if independent else len(targets)
        parts, depths = [], []
        for start in range(0, len(targets), step):
            part = cameras[list(range(start, min(start + step, len(targets))))]
            views = renderer.render(
                ready, part.reshape(1, len(part)), seeds=seeds[start : start + step], independent=independent,
                depth=depth,
            )  # fmt: skip
            parts.append(views.images[0].cpu())
            depths += [] if views.depths is None else [views.depths[0].cpu()]
        images = torch.cat(parts)
        _check_finite(images, f"{scene.name}: a rendered view")
        return images, torch.cat(depths) if depths else None

    def judge(images: Tensor) -> dict[str, list[float]]:
        return _values(metrics, images, truth, boxes)

    images, depths = shoot(cameras)
    told = estimated_cameras(made)
    score = Score(
        scene.name, count, judge(images), judge(references[nearest_reference(at, cameras)]), images, depths,
        poses=None if told is None or count < 2 else relative_pose_scores(told.world_from_cam[0], at.world_from_cam),
    )  # fmt: skip
    if count > 1 or not scale_sweep:
        return score
    tries = {(factor, axes): _moved(cameras, at, factor, axes) for axes in sweep_axes for factor in scale_sweep}
    tried = {choice: judge(shoot(moved)[0]) for choice, moved in tries.items()}
    best = max(tried, key=lambda choice: sum(tried[choice]["psnr"]))
    return replace(score, oracle_scale=best[0], oracle_axes=best[1], oracle=tried[best])


def _moved(cameras: Cameras, reference: Cameras, factor: float, axes: SweepAxes) -> Cameras:
    """Cameras whose distance from the reference is multiplied, or its part along an axis of the reference."""
    poses = cameras.world_from_cam.clone()
    centre, rotation = reference.centres[0], reference.world_from_cam[0, :3, :3]
    factors = torch.tensor([factor if axes in ("all", axis) else 1.0 for axis in "xyz"], dtype=poses.dtype)
    poses[:, :3, 3] = centre + (poses[:, :3, 3] - centre) @ rotation * factors @ rotation.mT
    return replace(cameras, world_from_cam=poses)


def _values(
    metrics: dict[str, PairMetric], images: Tensor, truth: Tensor, boxes: list[Box] | None
) -> dict[str, list[float]]:
    if boxes is None or len(set(boxes)) == 1:
        top, left, bottom, right = boxes[0] if boxes else (0, 0, *truth.shape[-2:])
        cut = (images[..., top:bottom, left:right], truth[..., top:bottom, left:right])
        pieces = list(zip(*(x.split(_CHUNK) for x in cut), strict=True))
        return {name: [float(v) for piece in pieces for v in metric(*piece)] for name, metric in metrics.items()}
    rows = [_values(metrics, images[n : n + 1], truth[n : n + 1], [box]) for n, box in enumerate(boxes)]
    return {name: [row[name][0] for row in rows] for name in metrics}


def _check_finite(images: Tensor, what: str) -> None:
    if not bool(torch.isfinite(images).all()):
        raise KaleidosceneError(f"{what} holds numbers that are not finite (NaN or infinity).")


def evaluate(
    renderer: Renderer,
    objects: Sequence[HeldOutObject],
    rule: FirstViews,
    counts: list[int],
    *,
    seed: int = 0,
    independent: bool = True,
) -> list[Score]:
    """Score scenes in memory with every number of references.

    Args:
        renderer: Of any family.
        objects: Captures with as many views as the rule needs.
        rule: Which views are what.
        counts: Numbers of references.
        seed: Of the noise.
        independent: Render every target alone.

    Raises:
        KaleidosceneError: An object has too few views, or references would overlap with targets.
    """
    if not objects:
        raise KaleidosceneError("There is nothing to evaluate: no objects.")
    splits = splits_of(objects, rule, counts)
    return [
        score_scene(renderer, thing, split, count, seed=seed, independent=independent)
        for thing, split in zip(objects, splits, strict=True)
        for count in counts
    ]


def splits_of(objects: Sequence[HeldOutObject], rule: FirstViews, counts: list[int]) -> list[Split]:
    """Which views of each object are what.

    Raises:
        KaleidosceneError: As of :func:`evaluate`.
    """
    return [rule.split(len(thing.cameras), counts, thing.name) for thing in objects]


def means(scores: Sequence[Score]) -> dict[int, dict[str, float]]:
    """Means over the targets of a scene, then over scenes, for every number of references."""
    out: dict[int, dict[str, float]] = {}
    for count in sorted({score.references for score in scores}):
        group = [score for score in scores if score.references == count]
        out[count] = {name: sum(score.mean(name) for score in group) / len(group) for name in group[0].values}
    return out
