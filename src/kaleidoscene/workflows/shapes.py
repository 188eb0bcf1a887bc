"""The surface that a model or a baseline makes of a few references, against the true mesh (Kaleido, Table 3)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.api import Model, load
from kaleidoscene.captures.capture import Capture
from kaleidoscene.choices import given
from kaleidoscene.errors import KaleidosceneError, NoSurface, unknown_name
from kaleidoscene.evaluation.against_truth import MESHES, read_surface
from kaleidoscene.evaluation.baselines import WITH_DEPTH, make_baseline
from kaleidoscene.evaluation.benchmark_scenes import find_first_views
from kaleidoscene.evaluation.documents import read_document
from kaleidoscene.evaluation.metrics.shape import chamfer_sampled, chamfer_vertices, volume_iou
from kaleidoscene.evaluation.results import REPORT
from kaleidoscene.evaluation.shapes import SCHEMA, VERSION, ShapeReport, ShapeScore, table
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.registry import BASELINE
from kaleidoscene.folders import protect
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.reconstruction.hull import Box, visual_hull
from kaleidoscene.reconstruction.pictures import silhouettes
from kaleidoscene.reconstruction.radiance_field import FieldConfig
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh, cut_surface
from kaleidoscene.reconstruction.tsdf import MeshConfig, mesh_of
from kaleidoscene.serialisation import file_sha256, to_plain, write_aside, write_json
from kaleidoscene.training.world import launched_processes
from kaleidoscene.workflows.evaluation import SHAPES, EvaluationOptions, versions
from kaleidoscene.workflows.meshing import MeshOptions, around, surface_of
from kaleidoscene.workflows.reconstruction_files import check_libraries
from kaleidoscene.workflows.request import RenderRequest

HULL, FIELD = "hull", "radiance-field"
_BASELINES = (HULL, *WITH_DEPTH)
_OF_VIEWS = (
    "expect_scenes", "metrics", "metric_weights", "scale_sweep", "sweep_axes", "adherence", "joint", "steps",
    "guidance", "image_size",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ShapeJob:
    """What is scored.

    Attributes:
        out: Folder for report.json and report.md; a second start goes on.
        data: Captures of 25 views (``kaleidoscene synthesize --captures``), of which the first are references.
        meshes: The true mesh of each, under its name.
        model: A model, or ``baseline:hull``, ``baseline:plane-sweep``, ``baseline:radiance-field``.
        like: Model whose size and lens a baseline takes.
        counts: Numbers of references.
        scenes: Names; empty for all.
        seed: Of the model.
        precision: Likewise.
        device: Likewise.
        options: How a surface is fitted to views without depth.
        fusion: How one is made of views with depth.
    """

    out: Path
    data: Path
    meshes: Path
    model: str = "default"
    like: str = "default"
    counts: tuple[int, ...] = (1, 3, 5, 10)
    scenes: tuple[str, ...] = ()
    seed: int = 0
    precision: str = "fp32"
    device: str = "cpu"
    options: MeshOptions = MeshOptions()
    fusion: MeshConfig = MeshConfig(resolution=96, unseen="inside")

    def run(self, on_score: Callable[[int, int], None] | None = None) -> ShapeReport:
        """Score what is not scored yet; the report is written after every object.

        Raises:
            KaleidosceneError: A capture, mesh or library is missing, or the folder has another evaluation.
        """
        check_libraries()
        found = {scene.name: scene for scene in find_first_views(self.data)}
        if not found:
            raise KaleidosceneError(f"{self.data}: no captures here.")
        for name in self.scenes:
            if name not in found:
                raise unknown_name(f"scene in {self.data}:", name, found)
        truths = {name: self._truth_of(name) for name in self.scenes or found}
        make, identity = self._maker()
        report = self._begun(ShapeReport(method=self.model, identity=identity))
        done = {(score.scene, score.references) for score in report.scores}
        total = len(truths) * len(self.counts)
        for name, path in truths.items():
            wanted = [count for count in self.counts if (name, count) not in done]
            if wanted:
                capture, truth = found[name].read().recentred(), read_surface(path)
                truth.merge_vertices(merge_tex=True, merge_norm=True)
                references = found[name].split(capture, wanted).references
                for count in wanted:
                    score = self._score(name, capture.select(references[count]), truth, make)
                    report = replace(report, scores=(*report.scores, score))
                    self._write(report)
            if on_score is not None:
                on_score(len(report.scores), total)
        self._write(report)
        return report

    def _truth_of(self, name: str) -> Path:
        path = next(
            (self.meshes / f"{name}{ending}" for ending in MESHES if (self.meshes / f"{name}{ending}").is_file()), None
        )
        if path is None:
            raise KaleidosceneError(f"{self.meshes}: no true mesh {name}.glb (or {', '.join(MESHES[1:])}).")
        return path

    def _maker(self) -> tuple[Callable[[Capture], TriangleMesh], dict[str, Any]]:
        """Makes a surface of references, and what it depends on."""
        identity: dict[str, Any] = {
            "seed": self.seed, "precision": self.precision, "data": str(self.data.resolve()),
            "meshes": str(self.meshes.resolve()), "options": to_plain(self.options), "fusion": to_plain(self.fusion),
            **versions(),
        }  # fmt: skip
        if self.model.startswith(BASELINE):
            name = self.model.removeprefix(BASELINE)
            if name not in _BASELINES:
                raise unknown_name("baseline with a surface", name, _BASELINES)
            like = load(self.like)
            identity |= {"image_size": list(like.image_size), "focal_over_height": like.system.focal_over_height}
            identity |= {"field": to_plain(FieldConfig())} if name == FIELD else {}
            return (lambda capture: self._of_baseline(name, like, capture)), identity
        model = load(self.model, device=self.device, precision=self.precision)
        weights = file_sha256(resolve(self.model) / "model.safetensors")
        identity |= {"weights": weights, "sampling": model.system.method_note}
        return (lambda capture: self._of_model(model, capture)), identity

    def _of_model(self, model: Model, capture: Capture) -> TriangleMesh:
        request = around(RenderRequest(capture, list(range(len(capture))), capture.cameras, None, (), False, ()))
        views = model.render(capture, cameras=request.cameras, seed=self.seed)
        cameras = views.cameras.to(torch.float32)
        if views.depths is not None:
            return mesh_of(views.depths, cameras, config=self.fusion)
        return surface_of(model, request, views.images, cameras, self.options)

    def _of_baseline(self, name: str, like: Model, capture: Capture) -> TriangleMesh:
        images, cameras = like.prepare(capture)
        if name == HULL:
            return hull_of(images, cameras, capture.origin(), self.fusion.resolution, self.options.photograph_white)
        request = around(RenderRequest(capture, [], capture.cameras, None, (), False, ()))
        centre = SceneNormalisation(capture.origin(), torch.ones(()))
        targets = like.lens(request.cameras)
        renderer = make_baseline(name, like.image_size)
        scene = renderer.encode(images[None], centre.normalise(cameras).reshape(1, len(images)))
        inside = centre.normalise(targets).reshape(1, len(targets))
        made = renderer.render(scene, inside, seeds=[self.seed] * len(targets))
        assert made.depths is not None
        # White is background: a plane sweep has a depth there as well.
        depths = made.depths[0] * silhouettes(made.images[0], self.options.photograph_white)
        return mesh_of(depths, targets.to(torch.float32), config=self.fusion)

    def _score(self, name: str, references: Capture, truth: Any, make: Callable[[Capture], TriangleMesh]) -> ShapeScore:
        import trimesh  # noqa: PLC0415  read_surface needed it before

        started = time.perf_counter()
        try:
            made = make(references)
        except NoSurface as error:
            seconds = time.perf_counter() - started
            return ShapeScore(
                scene=name, references=len(references), vertices=0.5, samples=0.5, overlap=0.0, seconds=seconds,
                failed=str(error),
            )  # fmt: skip
        seconds = time.perf_counter() - started
        mesh: Any = trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False)
        closed = mesh.is_watertight and truth.is_watertight
        return ShapeScore(
            scene=name, references=len(references), vertices=chamfer_vertices(mesh, truth),
            samples=chamfer_sampled(mesh, truth), overlap=volume_iou(mesh, truth) if closed else None, seconds=seconds,
        )  # fmt: skip

    def _begun(self, fresh: ShapeReport) -> ShapeReport:
        """What an earlier start left, if it is of the same method."""
        path = self.out / REPORT
        if not self.out.exists() or not any(self.out.iterdir()):
            self.out.mkdir(parents=True, exist_ok=True)
            return fresh
        if not path.is_file():
            raise KaleidosceneError(f"{self.out}: not empty and no evaluation; give another folder.")
        begun = read_document(ShapeReport, path, schema=SCHEMA, version=VERSION, verb="evaluate")
        if (begun.method, begun.identity) != (fresh.method, fresh.identity):
            raise KaleidosceneError(
                f"{self.out}: an evaluation of {begun.method}, or with other weights or options; give another folder "
                "or --overwrite."
            )
        return begun

    def _write(self, report: ShapeReport) -> None:
        write_json(self.out / REPORT, asdict(report))
        write_aside(self.out / "report.md", "\n".join(table(report)) + "\n")


def hull_of(
    images: Float[Tensor, "views 3 h w"], cameras: Cameras, origin: Float[Tensor, " 3"], resolution: int, white: float
) -> TriangleMesh:
    """The visual hull of a few images, in a ball about the middle; its radius is 0.4 of the cameras' mean distance.

    Args:
        images: RGB in [0, 1] on white.
        cameras: ``(views,)``.
        origin: Middle of the object.
        resolution: Cells along the box.
        white: See :class:`MeshOptions`.
    """
    reach = 0.4 * float((cameras.centres - origin).norm(dim=-1).mean())
    box = Box(origin.float() - reach, 2 * reach / resolution, (resolution, resolution, resolution))
    distance = visual_hull(silhouettes(images, white), cameras.to(torch.float32), box, 1.0)
    outside = (box.corners() - origin).norm(dim=-1) / box.cell - 0.5 * resolution + 1.5
    return cut_surface(torch.maximum(distance, outside).permute(2, 1, 0), box.low, box.cell, 0.05)


def evaluate_shapes(options: EvaluationOptions, on_score: Callable[[int, int], None] | None = None) -> ShapeReport:
    """Score surfaces as the command line asks for it.

    Raises:
        KaleidosceneError: Something is missing, or an option does not go with it.
    """
    for name in given(options, _OF_VIEWS):
        raise KaleidosceneError(f"--{name.replace('_', '-')} is not for the benchmark {SHAPES}.")
    if options.meshes is None:
        raise KaleidosceneError(f"The benchmark {SHAPES} needs the true meshes: --meshes FOLDER with NAME.glb.")
    if launched_processes() > 1:
        raise KaleidosceneError(f"The benchmark {SHAPES} runs in one process.")
    counts = tuple(options.references) or ShapeJob.counts
    if len(set(counts)) < len(counts) or min(counts) < 1:
        raise KaleidosceneError(f"--references must be different positive numbers, got {' '.join(map(str, counts))}.")
    protect(options.out, [options.data, options.meshes, *(Path(name) for name in (options.model, options.like))])
    if options.overwrite:
        drop(options.out)
    return ShapeJob(
        out=options.out, data=options.data, meshes=options.meshes, model=options.model, like=options.like,
        counts=counts, scenes=options.scenes, seed=options.seed, precision=options.precision, device=options.device,
    ).run(on_score)  # fmt: skip


def drop(out: Path) -> None:
    """Take away an earlier evaluation, and nothing else.

    Raises:
        KaleidosceneError: The folder is none.
    """
    if not out.is_dir() or not any(out.iterdir()):
        return
    read_document(ShapeReport, out / REPORT, schema=SCHEMA, version=VERSION, verb="evaluate")
    shutil.rmtree(out)
