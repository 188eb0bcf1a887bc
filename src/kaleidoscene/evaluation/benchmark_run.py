"""Run a benchmark scene by scene into a folder: it can go on, be shared by processes, and never forgets a scene."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.adherence import ESTIMATORS, measure_adherence
from kaleidoscene.evaluation.benchmark_scenes import BenchmarkScene
from kaleidoscene.evaluation.metrics.distribution import Features, frechet_distance
from kaleidoscene.evaluation.metrics.poses import RelativePoseScore
from kaleidoscene.evaluation.metrics.registry import (
    DEPTH_METRICS,
    POSE_METRICS,
    PairMetric,
    needs_true_depth,
)
from kaleidoscene.evaluation.pictures import write_scene_pictures
from kaleidoscene.evaluation.protocols import Protocol, Split
from kaleidoscene.evaluation.results import Method, Report, SceneResult, SetResult, means
from kaleidoscene.evaluation.run import Box, score_scene
from kaleidoscene.evaluation.scene_views import CaptureViews, sequence_metrics
from kaleidoscene.files import read_bytes, read_json
from kaleidoscene.rendering.renderer import Renderer
from kaleidoscene.serialisation import from_plain, to_plain, write_json

IDENTITY = "evaluation.json"
_PIECE = 16


@dataclass(frozen=True, eq=False)
class BenchmarkRun:
    """An evaluation in a folder.

    Attributes:
        folder: Where results go.
        scenes: What is evaluated.
        protocol: Under what.
        method: Said with the numbers.
        renderer: Makes the views.
        focal_over_height: Of what it renders.
        metrics: Of pairs of images.
        features: Of metrics of sets.
        seed: Of the noise.
    """

    folder: Path
    scenes: Sequence[BenchmarkScene]
    protocol: Protocol
    method: Method
    renderer: Renderer
    focal_over_height: float
    metrics: dict[str, PairMetric]
    features: dict[str, Features]
    seed: int

    def begin(self) -> None:
        """Note what is evaluated, or see that it is what was begun here.

        Raises:
            KaleidosceneError: The folder holds something else.
        """
        note = json.loads(json.dumps({
            "protocol": to_plain(self.protocol), "method": to_plain(self.method),
            "scenes": [scene.name for scene in self.scenes],
        }))  # fmt: skip
        path = self.folder / IDENTITY
        if path.is_file():
            before = read_json(path)
            if before != note:
                known = before if isinstance(before, dict) else {}
                what = next((key for key in note if known.get(key) != note[key]), "package")
                raise KaleidosceneError(
                    f"{self.folder}: an evaluation with another {what} was begun here; give another --out, or "
                    "--overwrite."
                )
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise KaleidosceneError(f"{self.folder}: not empty and no evaluation; give another --out, or --overwrite.")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, note)

    def score(self, *, rank: int = 0, ranks: int = 1, on_scene: Callable[[int], None] | None = None) -> None:
        """Score the scenes that are not done yet, and see that those which are were of the same data.

        Args:
            rank: This process.
            ranks: How many share the scenes; each takes every so-manieth.
            on_scene: Called with the number of scenes that this process is through with.

        Raises:
            KaleidosceneError: A scene cannot be scored, or was scored from other images, cameras or views.
        """
        (self.folder / "scenes").mkdir(exist_ok=True)
        for done, scene in enumerate(self.scenes[rank::ranks]):
            capture = scene.read()
            split = scene.split(capture, self.protocol.counts)
            data = fingerprint(capture, split, depth=needs_true_depth(self.protocol.metrics))
            if not self._path(scene.name).is_file():
                self._score(scene.name, capture, split, data)
            elif any(result.data != data for result in self._stored(scene.name)):
                raise KaleidosceneError(
                    f"{self._path(scene.name)}: scored from other images, cameras or views than are there now; give "
                    "another --out, or --overwrite."
                )
            if on_scene is not None:
                on_scene(done + 1)

    def _path(self, name: str) -> Path:
        return self.folder / "scenes" / f"{name}.json"

    def _stored(self, name: str) -> list[SceneResult]:
        path = self._path(name)
        document = read_json(path)
        if not isinstance(document, list):
            raise KaleidosceneError(f"{path}: not the scores of a scene.")
        return [from_plain(SceneResult, entry, str(path)) for entry in document]

    def _score(self, name: str, capture: Capture, split: Split, data: str) -> None:
        views = CaptureViews(name, capture.recentred(), self.renderer.image_size, self.focal_over_height)
        results, features = [], {}
        truth, cameras, boxes = views.views(split.targets)
        estimate = ESTIMATORS.get(self.protocol.adherence)
        own = None if estimate is None else measure_adherence(truth, cameras, estimate)
        sequences = sequence_metrics(self.protocol)
        judged = needs_true_depth(self.protocol.metrics)
        depths = views.depths(split.targets) if judged else truth.new_zeros(0)
        try:
            own_sequences = {key: metric.measure(truth, depths, cameras) for key, metric in sequences.items()}
        except KaleidosceneError as error:
            raise KaleidosceneError(f"{name}: {error}") from error
        for count in self.protocol.counts:
            score = score_scene(
                self.renderer, views, split, count, metrics=self.metrics, seed=self.seed,
                independent=not self.protocol.joint, depth=judged, scale_sweep=self.protocol.scale_sweep,
                sweep_axes=self.protocol.sweep_axes,
            )  # fmt: skip
            shown = within(score.images, boxes)
            kept = None if estimate is None else measure_adherence(shown, cameras, estimate)
            results.append(SceneResult.of(
                score, split, data, adherence=kept, truth_adherence=own,
                sequence={key: metric.measure(shown, depths, cameras) for key, metric in sequences.items()},
                truth_sequence=own_sequences,
                depth=self._depth_values(name, score.depths, depths), pose=self._pose_values(score.poses),
            ))  # fmt: skip
            write_scene_pictures(self.folder / "scenes", score, truth, split)
            features |= {f"{kind}/{count}": _in_pieces(make, shown) for kind, make in self.features.items()}
        if self.features:
            features |= {f"{kind}/truth": _in_pieces(make, truth) for kind, make in self.features.items()}
            _save(self.folder / "scenes" / f"{name}.safetensors", features)
        write_json(self._path(name), to_plain(results))  # last: it says that the scene is done

    def _depth_values(self, scene: str, depths: Tensor | None, truth: Tensor) -> dict[str, list[float]]:
        """By metric, of every target."""
        names = [name for name in self.protocol.metrics if name in DEPTH_METRICS]
        if not names:
            return {}
        if depths is None:
            raise KaleidosceneError(f"{scene}: {self.method.name} renders no depth, which {names[0]} needs.")
        try:
            return {name: DEPTH_METRICS[name].measure(depths, truth) for name in names}
        except KaleidosceneError as error:
            raise KaleidosceneError(f"{scene}: {error}") from error

    def _pose_values(self, poses: RelativePoseScore | None) -> dict[str, float]:
        """By metric; none of a single reference."""
        names = [name for name in self.protocol.metrics if name in POSE_METRICS]
        return {} if poses is None else {name: getattr(poses, POSE_METRICS[name].field) for name in names}

    def report(self) -> Report:
        """The whole evaluation; all scenes are done.

        Raises:
            KaleidosceneError: A scene is missing or was changed.
        """
        results: list[SceneResult] = []
        for scene in self.scenes:
            if not self._path(scene.name).is_file():
                raise KaleidosceneError(f"{self._path(scene.name)}: the scores of {scene.name} are missing.")
            results += self._stored(scene.name)
        return Report(
            protocol=self.protocol, method=self.method, scenes=tuple(results), sets=tuple(self._set_results()),
            mean=means(results, self.protocol.counts),
        )  # fmt: skip

    def _set_results(self) -> list[SetResult]:
        if not self.features:
            return []
        stored = [load_file(self.folder / "scenes" / f"{scene.name}.safetensors") for scene in self.scenes]
        out = []
        for name in self.features:
            truth = torch.cat([part[f"{name}/truth"] for part in stored])
            for count in self.protocol.counts:
                distance = frechet_distance(torch.cat([part[f"{name}/{count}"] for part in stored]), truth)
                out.append(SetResult(metric=name, references=count, value=distance.value, samples=distance.samples))
        return out


def within(images: Float[Tensor, "n 3 h w"], boxes: list[Box] | None) -> Float[Tensor, "n 3 h w"]:
    """Images with white where the true ones are padding."""
    if boxes is None:
        return images
    out = torch.ones_like(images)
    for number, (top, left, bottom, right) in enumerate(boxes):
        out[number, :, top:bottom, left:right] = images[number, :, top:bottom, left:right]
    return out


def fingerprint(capture: Capture, split: Split, *, depth: bool = False) -> str:
    """SHA-256 of all that a scene gives to its scores: image files, cameras, and which views are what.

    Args:
        capture: The scene.
        split: Its references and targets.
        depth: Whether depth maps count as well.
    """
    digest = hashlib.sha256(repr((sorted(split.references.items()), split.targets)).encode())
    digest.update(capture.exact_cameras.world_from_cam.numpy().tobytes())
    digest.update(capture.exact_cameras.intrinsics.numpy().tobytes())
    used = sorted({*split.targets, *(view for views in split.references.values() for view in views)})
    seen: set[Path] = set()
    for view in used:
        frame = capture.frames[view]
        digest.update(repr(frame.position).encode())
        if frame.image not in seen:
            seen.add(frame.image)
            digest.update(read_bytes(frame.image, largest=1 << 40))
        if depth and frame.depth is not None:
            digest.update(repr(frame.depth_scale).encode() + read_bytes(frame.depth, largest=1 << 40))
    return digest.hexdigest()


def _in_pieces(make: Features, images: Tensor) -> Tensor:
    return torch.cat([make(part) for part in images.split(_PIECE)])


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial)
    partial.replace(path)
