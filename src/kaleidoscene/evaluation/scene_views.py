"""The views of benchmark scenes as a model sees them, and whether they can be scored at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.benchmark_scenes import BenchmarkScene
from kaleidoscene.evaluation.metrics.registry import IMAGE_METRICS, SEQUENCE_METRICS, SequenceMetric, needs_true_depth
from kaleidoscene.evaluation.protocols import Protocol, Split
from kaleidoscene.evaluation.run import Box
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.fitting import fit_depths, fit_views, seen_boxes


@dataclass(frozen=True, eq=False)
class CaptureViews:
    """Views of a capture as a model sees them; each is read when it is first asked for, and kept at that size.

    Attributes:
        name: Of the scene.
        capture: Recentred.
        image_size: ``(height, width)`` of the model.
        focal_over_height: Likewise.
    """

    name: str
    capture: Capture
    image_size: tuple[int, int]
    focal_over_height: float
    _fitted: dict[int, tuple[Tensor, Cameras]] = field(default_factory=dict)

    def views(self, indices: Sequence[int]) -> tuple[Float[Tensor, "n 3 h w"], Cameras, list[Box] | None]:
        """Some views, and what of them is real."""
        cameras = self.capture.cameras[list(indices)]
        for number, index in enumerate(indices):
            if index not in self._fitted:  # one after the other: full-size images of many targets may not fit together
                image, camera = self.capture.images(only=[index]), cameras[number : number + 1]
                self._fitted[index] = fit_views(image, camera, self.image_size, self.focal_over_height)
        parts = [self._fitted[index] for index in indices]
        boxes = seen_boxes(cameras, self.image_size, self.focal_over_height)
        return torch.cat([images for images, _ in parts]), Cameras.concatenate([cam for _, cam in parts]), boxes

    def depths(self, indices: Sequence[int]) -> Float[Tensor, "n h w"]:
        """True depths of some views, 0 where they are not known."""
        return torch.cat([
            fit_depths(
                self.capture.depths(only=[index]), self.capture.cameras[[index]], self.image_size,
                self.focal_over_height,
            )
            for index in indices
        ])  # fmt: skip


def check_scenes(scenes: Sequence[BenchmarkScene], protocol: Protocol, focal_over_height: float) -> None:
    """Refuse what does not fit before anything is rendered.

    Args:
        scenes: To be scored.
        protocol: Under what.
        focal_over_height: Of what is rendered.

    Raises:
        KaleidosceneError: A scene cannot be read, has no cameras, too few views or no depth maps where metrics need
            them, targets that were interpolated, or shows too little of what is rendered.
    """
    fewest = max((metric.least_views for metric in sequence_metrics(protocol).values()), default=1)
    smallest = max(IMAGE_METRICS[name].least_side for name in protocol.metrics if name in IMAGE_METRICS)
    for scene in scenes:
        capture = scene.read()
        split = scene.split(capture, protocol.counts)
        if len(split.targets) < fewest:
            raise KaleidosceneError(
                f"{scene.name}: {len(split.targets)} targets, the metrics of sequences need {fewest}."
            )
        if guessed := [target for target in split.targets if capture.frames[target].interpolated]:
            raise KaleidosceneError(
                f"{scene.name}: view {guessed[0]} was put between others ('kaleidoscene interpolate'); nothing is "
                "scored against it."
            )
        if needs_true_depth(protocol.metrics):
            _check_depths(scene.name, capture, split, protocol, focal_over_height)
        cameras = capture.recentred().cameras[list(split.targets)]
        for target, (top, left, bottom, right) in zip(
            split.targets, seen_boxes(cameras, protocol.image_size, focal_over_height), strict=True
        ):
            if min(bottom - top, right - left) < smallest:
                shown = f"{max(0, bottom - top)}x{max(0, right - left)}"
                raise KaleidosceneError(
                    f"{scene.name}: view {target} shows {shown} pixels of what is rendered; the metrics need "
                    f"{smallest}."
                )


def _check_depths(name: str, capture: Capture, split: Split, protocol: Protocol, focal_over_height: float) -> None:
    """Raise if a target has no depth map, or none that says anything of what is rendered."""
    views = CaptureViews(name, capture.recentred(), protocol.image_size, focal_over_height)
    for target in split.targets:
        if capture.frames[target].depth is None:
            raise KaleidosceneError(f"{name}: view {target} has no depth map; the metrics need them.")
        if not bool((views.depths([target]) > 0).any()):
            raise KaleidosceneError(f"{name}: the depth map of view {target} is empty where it is rendered.")


def sequence_metrics(protocol: Protocol) -> dict[str, SequenceMetric]:
    """Those of a protocol, by name."""
    return {name: SEQUENCE_METRICS[name] for name in protocol.metrics if name in SEQUENCE_METRICS}
