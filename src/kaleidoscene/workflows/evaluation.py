"""A model or a baseline is scored on a benchmark, into a folder that can go on and be shared by processes."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.progress import Progress

from kaleidoscene import __version__
from kaleidoscene.api import load
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.adherence import ESTIMATORS
from kaleidoscene.evaluation.baselines import BASELINES, make_baseline
from kaleidoscene.evaluation.benchmark_run import IDENTITY, BenchmarkRun
from kaleidoscene.evaluation.benchmarks import BENCHMARKS, find_scenes
from kaleidoscene.evaluation.metrics.registry import DEPTH_METRICS, POSE_METRICS, make_metrics
from kaleidoscene.evaluation.protocols import Protocol, SweepAxes
from kaleidoscene.evaluation.report import write_all
from kaleidoscene.evaluation.results import Method, Report
from kaleidoscene.evaluation.scene_views import check_scenes
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.registry import BASELINE, require
from kaleidoscene.folders import protect
from kaleidoscene.reconstruction.radiance_field import FieldConfig
from kaleidoscene.rendering.renderer import Renderer
from kaleidoscene.serialisation import file_sha256, to_plain
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.distributed import join_world, leave_world
from kaleidoscene.training.world import World

SHAPES = "gso-3d"
"""The benchmark of surfaces (:mod:`kaleidoscene.workflows.shapes`)."""
# Seconds that processes wait for the slowest of them: they share scenes, not steps.
_PATIENCE = 7 * 86400.0


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Score a model or a baseline on a benchmark; a second start goes on, several processes (torchrun) share scenes."""

    benchmark: str = "objects"
    """One of: objects, gso30, rtmv, nerf-synthetic, llff, mipnerf360, tanks-and-temples, omniobject3d, dl3dv, re10k,
    co3d, capture (docs/evaluation.md tells their folders), or gso-3d: surfaces against true meshes."""
    data: Path
    """Folder of the benchmark."""
    meshes: Path | None = None
    """Of gso-3d: folder of the true meshes, NAME.glb for each capture."""
    out: Path
    """Folder for report.json, report.md, report.html and curve.png."""
    model: str = "default"
    """'default', a checkpoint or run folder, a hub id, or baseline:NAME (nearest, mean, blend, plane-sweep,
    radiance-field; of gso-3d hull, plane-sweep, radiance-field)."""
    like: str = "default"
    """Model whose image size and lens a baseline takes."""
    references: tuple[int, ...] = ()
    """Numbers of references N; by default those of the benchmark."""
    scenes: tuple[str, ...] = ()
    """Names of scenes; by default all, and one that is missing is an error."""
    expect_scenes: int | None = None
    """How many scenes there must be, for sets of which the program does not know the names."""
    metrics: tuple[str, ...] = ()
    """psnr, psnr-uint8, ssim, ssim-padded, ssim-sample, ssim-uniform7-uint8, psnr-object, silhouette-iou, sharpness,
    flip, lpips-alex, lpips-vgg, lpips-vgg-unscaled, fid, fd-dinov2, of sequences flicker, view-to-view, reprojection
    (of captures with depth), of methods that know depth depth-rel, depth-a1, and of those that estimate cameras
    pose-ra5, pose-ra15, pose-ra30, pose-rt5, pose-rt15, pose-rt30, pose-auc30; by default those of the benchmark."""
    metric_weights: Path | None = None
    """Folder with the weights that LPIPS, FID and FD-DINOv2 need."""
    scale_sweep: tuple[float, ...] = ()
    """With one reference: factors on the distance of targets, of which the best by the truth is reported as an oracle
    beside the score without it (SEVA: 0.1 0.2 ... 2.0)."""
    sweep_axes: tuple[SweepAxes, ...] = ("all",)
    """What the factors are tried on: the whole distance, or its part along an axis of the reference camera (Kaleido:
    all x y z)."""
    adherence: str | None = None
    """Estimate the cameras of the rendered views again and compare them with those asked for: pycolmap."""
    joint: bool = False
    """Let the targets of a scene see each other; by default each is rendered alone."""
    image_size: int | None = None
    """Pixels on the longer side, a multiple of the model's own (see 'kaleidoscene render')."""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    overwrite: bool = False
    """Drop what an earlier evaluation left in OUT."""


def evaluate_benchmark(options: EvaluationOptions) -> Report | None:
    """Score a benchmark; several processes that were started together share its scenes.

    Returns:
        The report, in the first process.

    Raises:
        KaleidosceneError: Something is missing, unknown or does not fit.
    """
    if options.benchmark not in BENCHMARKS:
        raise unknown_name("benchmark", options.benchmark, [*BENCHMARKS, SHAPES])
    if options.meshes is not None:
        raise KaleidosceneError(f"--meshes is for the benchmark {SHAPES}.")
    world = join_world(TrainConfig(sharding="ddp", device=options.device, timeout=_PATIENCE))
    report = _evaluate(options, world)
    leave_world()
    return report


def _evaluate(options: EvaluationOptions, world: World) -> Report | None:
    """The report, in the first process."""
    benchmark = BENCHMARKS[options.benchmark]
    counts = tuple(options.references) or benchmark.counts
    if len(set(counts)) < len(counts) or min(counts) < 1:
        raise KaleidosceneError(f"--references must be different positive numbers, got {' '.join(map(str, counts))}.")
    names = tuple(options.metrics) or benchmark.metrics
    _check_sweep(options, counts, names)
    if options.adherence is not None and options.adherence not in ESTIMATORS:
        raise unknown_name("estimator of cameras", options.adherence, ESTIMATORS)
    pairs, sets = make_metrics(names, options.metric_weights)
    if not pairs:
        raise KaleidosceneError(f"--metrics needs one of single images beside {' '.join(names)}, such as psnr.")
    scenes = find_scenes(benchmark, options.data, options.scenes, options.expect_scenes)
    method, renderer, focal = _method(options, counts)
    if depth := [name for name in names if name in DEPTH_METRICS]:
        require("renders_depth", f"Metric {depth[0]}", method.name, renderer.capabilities)
    if poses := [name for name in names if name in POSE_METRICS]:
        require("estimates_cameras", f"Metric {poses[0]}", method.name, renderer.capabilities)
    protocol = Protocol(
        benchmark=benchmark.name, counts=counts, image_size=renderer.image_size,
        field_of_view=round(math.degrees(2 * math.atan(0.5 / focal)), 6), metrics=names, joint=options.joint,
        scale_sweep=options.scale_sweep, sweep_axes=options.sweep_axes, adherence=options.adherence or "",
        note=scenes[0].note or benchmark.note,
    )  # fmt: skip
    check_scenes(scenes, protocol, focal)
    if world.is_main:
        _make_room(options)
    run = BenchmarkRun(options.out, scenes, protocol, method, renderer, focal, pairs, sets, options.seed)
    if world.is_main:
        run.begin()
    world.barrier()
    with Progress(transient=True, disable=not world.is_main) as bar:
        task = bar.add_task("evaluating", total=len(scenes[world.rank :: world.size]))
        run.score(rank=world.rank, ranks=world.size, on_scene=lambda done: bar.update(task, completed=done))
    world.barrier()
    if not world.is_main:
        return None
    report = run.report()
    write_all(options.out, report)
    return report


def _check_sweep(options: EvaluationOptions, counts: tuple[int, ...], metrics: tuple[str, ...]) -> None:
    factors, axes = options.scale_sweep, options.sweep_axes
    if not factors and axes != ("all",):
        raise KaleidosceneError("--sweep-axes is for --scale-sweep: give its factors.")
    if not factors:
        return
    if not axes or len({*axes}) < len(axes) or len({*factors}) < len(factors):
        raise KaleidosceneError("--scale-sweep and --sweep-axes need different values.")
    if "psnr" not in metrics or not all(math.isfinite(factor) and factor > 0 for factor in factors):
        raise KaleidosceneError(
            "--scale-sweep needs positive factors, and psnr among the metrics, which it chooses by."
        )
    if 1 not in counts:
        raise KaleidosceneError("--scale-sweep is for a single reference: have 1 among --references.")


def _make_room(options: EvaluationOptions) -> None:
    """Drop an earlier evaluation if that is asked for, and nothing else.

    Raises:
        KaleidosceneError: The folder is no evaluation, or something that is read lies in it.
    """
    out = options.out
    if out.exists() and not out.is_dir():
        raise KaleidosceneError(f"{out}: the output folder is a file.")
    models = [Path(name) for name in (options.model, options.like) if Path(name).exists()]
    protect(out, [options.data, options.metric_weights, *models])
    if not options.overwrite or not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / IDENTITY).is_file():
        raise KaleidosceneError(f"{out}: not empty and no evaluation; --overwrite drops evaluations only.")
    shutil.rmtree(out)


def _method(options: EvaluationOptions, counts: tuple[int, ...]) -> tuple[Method, Renderer, float]:
    """What is evaluated, what renders, and its focal length over image height."""
    if options.model.startswith(BASELINE):
        name = options.model.removeprefix(BASELINE)
        if name not in BASELINES:
            raise unknown_name("baseline", name, BASELINES)
        for flag, none in (("steps", None), ("guidance", None), ("device", "cpu"), ("precision", "fp32")):
            if getattr(options, flag) != none:
                raise KaleidosceneError(f"--{flag} is for models; a baseline has none.")
        like = load(options.like).at_size(options.image_size)
        renderer = make_baseline(name, like.image_size)
        settings = {"seed": options.seed, **versions()}
        settings |= {"field": to_plain(FieldConfig())} if name == "radiance-field" else {}
        return Method(name=options.model, settings=settings), renderer, like.system.focal_over_height
    if options.like != "default":
        raise KaleidosceneError("--like is for baselines; a model has a size and lens of its own.")
    model = load(options.model, device=options.device, precision=options.precision).at_size(options.image_size)
    model = model.with_sampling(steps=options.steps, guidance=options.guidance)
    folder = resolve(options.model)
    weights = file_sha256(folder / "model.safetensors")
    settings = {
        "sampling": model.system.method_note, "precision": options.precision,
        "device": torch.device(options.device).type, "seed": options.seed, **versions(),
        "config": file_sha256(folder / "config.json"),
    }  # fmt: skip
    if model.route(0) is not None:  # whether views were drawn, by the number of references
        settings["route"] = {str(count): model.route(count) for count in counts}
    return (
        Method(name=options.model, weights=weights, settings=settings),
        model.system.renderer,
        model.system.focal_over_height,
    )


def versions() -> dict[str, str]:
    """What else a number may depend on: an evaluation does not go on under other code."""
    return {"kaleidoscene": __version__, "torch": torch.__version__}
