"""Run a benchmark scene by scene into a folder: it can go on, be shared by processes, and never forgets a scene."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from anyview.data.captures import Capture
from anyview.data.fitting import fit_views, seen_boxes
from anyview.errors import AnyViewError
from anyview.evaluation.adherence import ESTIMATORS, measure_adherence
from anyview.evaluation.benchmarks import BenchmarkScene
from anyview.evaluation.metrics.distribution import Features, frechet_distance
from anyview.evaluation.metrics.registry import PairMetric
from anyview.evaluation.pictures import write_scene_pictures
from anyview.evaluation.protocols import Protocol, Split
from anyview.evaluation.results import Method, Report, SceneResult, SetResult, means
from anyview.evaluation.run import Box, score_scene
from anyview.geometry.cameras import Cameras
from anyview.rendering.renderer import Renderer
from anyview.serialisation import from_plain, to_plain, write_json

_IDENTITY = "evaluation.json"


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
            AnyViewError: The folder holds something else.
        """
        note = json.loads(json.dumps({
            "protocol": to_plain(self.protocol), "method": to_plain(self.method),
            "scenes": [scene.name for scene in self.scenes],
        }))  # fmt: skip
        path = self.folder / _IDENTITY
        if path.is_file():
            before = json.loads(path.read_text())
            if before != note:
                what = next(key for key in note if before.get(key) != note[key])
                raise AnyViewError(
                    f"{self.folder}: an evaluation with another {what} was begun here; give another --out, or "
                    "--overwrite."
                )
            return
        if self.folder.is_dir() and any(self.folder.iterdir()):
            raise AnyViewError(f"{self.folder}: not empty and no evaluation; give another --out, or --overwrite.")
        (self.folder / "scenes").mkdir(parents=True)
        write_json(path, note)

    def score(self, *, rank: int = 0, ranks: int = 1, on_scene: Callable[[int], None] | None = None) -> None:
        """Score the scenes that are not done yet.

        Args:
            rank: This process.
            ranks: How many share the scenes; each takes every so-manieth.
            on_scene: Called with the number of scenes that this process is through with.
        """
        for done, scene in enumerate(self.scenes[rank::ranks]):
            if not self._path(scene.name).is_file():
                self._score(scene)
            if on_scene is not None:
                on_scene(done + 1)

    def _path(self, name: str) -> Path:
        return self.folder / "scenes" / f"{name}.json"

    def _score(self, scene: BenchmarkScene) -> None:
        capture = scene.read()
        split = scene.split(capture, self.protocol.counts)
        views = CaptureViews(scene.name, capture.recentred(), self.renderer.image_size, self.focal_over_height)
        results, features = [], {}
        truth, cameras, _ = views.views(split.targets)
        estimate = ESTIMATORS.get(self.protocol.adherence)
        own = None if estimate is None else measure_adherence(truth, cameras, estimate)
        for count in self.protocol.counts:
            score = score_scene(
                self.renderer, views, split, count, metrics=self.metrics, seed=self.seed,
                independent=not self.protocol.joint, scale_sweep=self.protocol.scale_sweep,
            )  # fmt: skip
            kept = None if estimate is None else measure_adherence(score.images, cameras, estimate)
            results.append(SceneResult.of(score, split, adherence=kept, truth_adherence=own))
            write_scene_pictures(self.folder / "scenes", score, truth, split)
            features |= {f"{name}/{count}": make(score.images) for name, make in self.features.items()}
        if self.features:
            features |= {f"{name}/truth": make(truth) for name, make in self.features.items()}
            _save(self.folder / "scenes" / f"{scene.name}.safetensors", features)
        write_json(self._path(scene.name), to_plain(results))  # last: it says that the scene is done

    def report(self) -> Report:
        """The whole evaluation; all scenes are done.

        Raises:
            AnyViewError: A scene is missing or was changed.
        """
        results: list[SceneResult] = []
        for scene in self.scenes:
            path = self._path(scene.name)
            if not path.is_file():
                raise AnyViewError(f"{path}: the scores of {scene.name} are missing.")
            results += [from_plain(SceneResult, entry, str(path)) for entry in json.loads(path.read_text())]
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


def splits_of(scenes: Sequence[BenchmarkScene], counts: Sequence[int]) -> dict[str, Split]:
    """The split of every scene; what does not fit is refused before anything is rendered.

    Raises:
        AnyViewError: A scene cannot be read or has too few views.
    """
    return {scene.name: scene.split(scene.read(), counts) for scene in scenes}


def _save(path: Path, tensors: dict[str, Tensor]) -> None:
    partial = path.with_name(path.name + ".partial")
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, partial)
    partial.replace(path)
