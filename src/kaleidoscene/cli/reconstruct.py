"""kaleidoscene reconstruct: photographs to cameras, depth maps and a cloud of points, or to a mesh."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from kaleidoscene.api import Model, load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.choices import given
from kaleidoscene.cli.common import check_seed, parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.reconstruction.fusion import FusionConfig
from kaleidoscene.reconstruction.tsdf import MeshConfig
from kaleidoscene.workflows.doubts import background_doubts, warnings_of
from kaleidoscene.workflows.meshing import MeshJob, MeshOptions
from kaleidoscene.workflows.reconstruction import ReconstructionJob, choose_sources
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, parse_references, resolve_request
from kaleidoscene.workflows.surface import SurfaceJob

CAPTURE = "capture"
"""In place of a model: what the capture has itself."""


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """Photographs of one object to a complete cloud of points (PLY and GLB), splats, cameras (transforms.json), depth
    maps, a turntable video, a contact sheet and a scene file; with a model of images alone to a mesh with a texture; or
    a capture with depth maps to a mesh.

    Photographs need no cameras; those that have some fix the world, and say how well cameras were told.
    """

    capture: tyro.conf.Positional[Path]
    """Folder of photographs or of any supported capture format, or a single image."""
    out: Path
    """Folder to write; it appears when everything is written."""
    model: str = "rng"
    """A shipped model, a checkpoint or run folder, or a hub id. Of one that renders points (rng, rae3d) comes a cloud;
    to 36 views of one that renders images alone (default, places) a surface is fitted. 'capture' is none: the
    capture's own depth maps become a mesh (mesh.ply, mesh.glb), a cloud and splats."""
    format: str | None = None
    """Read the capture as this format instead of detecting it."""
    references: str | None = None
    """Which images to use, for example 0,8,16 or 0-4; the first one fixes the world."""
    num_references: int = 6
    """How many images are taken, evenly spaced, where none are named."""
    masked: bool = False
    """Lay the capture's masks on white."""
    frames: int = 24
    """Views around the object beside those of the photographs, whose points complete the cloud."""
    fusion: FusionConfig = FusionConfig()
    surface: bool = False
    """Fuse the depth maps that the model renders into a mesh, too; the early rng weights tell depth too roughly."""
    mesh: MeshConfig = MeshConfig(resolution=128)
    fit: MeshOptions = MeshOptions()
    """How a surface is fitted to images."""
    turntable: int = 72
    """Frames of the video."""
    fps: float = 24.0
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(ReconstructOptions, argv, "reconstruct")
    job, notes = _job_of(options)
    if notes:
        print("\n".join(notes))
    started = time.perf_counter()
    made = job.run()
    seconds = time.perf_counter() - started
    print("\n".join([*made.describe(seconds), *(f"wrote {options.out / name}" for name in job.files)]))
    if options.json:
        print_json({"out": str(options.out), "seconds": seconds, **dataclasses.asdict(made)})


def _job_of(options: ReconstructOptions) -> tuple[ReconstructionJob | MeshJob | SurfaceJob, list[str]]:
    """What is to be done, by what the model renders, and what there is to be said of it before."""
    if options.model == CAPTURE:
        _refuse(options, ("fit", "seed"), "is for models")
        return _from_depth(options), []
    model = load(options.model, device=options.device, precision=options.precision)
    if not model.capabilities.renders_points:
        _refuse(options, ("frames", "fusion", "surface", "mesh"), "is for models that render points")
        return _from_images(options, model)
    _refuse(options, ("fit", "seed"), "is for models that render images alone")
    return _from_points(options, model)


def _refuse(options: ReconstructOptions, names: tuple[str, ...], why: str) -> None:
    for name in given(options, names):
        raise KaleidosceneError(f"--{name} {why}, which {options.model} is not.")


def _from_depth(options: ReconstructOptions) -> SurfaceJob:
    """Depth maps of the capture itself."""
    capture = read_capture(options.capture, format=options.format)
    if options.references is not None:
        capture = capture.select(parse_references(options.references))
    return SurfaceJob(
        out=options.out, capture=capture, masked=options.masked, mesh=options.mesh, turntable=options.turntable,
        fps=options.fps, overwrite=options.overwrite, sources=(options.capture,),
    )  # fmt: skip


def _from_points(options: ReconstructOptions, model: Model) -> tuple[ReconstructionJob, list[str]]:
    """Points that a model renders."""
    chosen, notes = choose_sources(
        read_capture(options.capture, format=options.format), options.references, options.num_references,
        estimates=model.capabilities.estimates_cameras,
    )  # fmt: skip
    if (route := model.route(len(chosen))) is not None:
        notes.append(f"{model.system.family}: {route}.")
    job = ReconstructionJob(
        out=options.out, model=model, capture=chosen, masked=options.masked, frames=options.frames,
        fusion=options.fusion, surface=options.surface, mesh=options.mesh, turntable=options.turntable, fps=options.fps,
        overwrite=options.overwrite, sources=(options.capture, Path(options.model)),
    )  # fmt: skip
    return job, [*notes, *warnings_of(background_doubts(model, chosen, masked=options.masked))]


def _from_images(options: ReconstructOptions, model: Model) -> tuple[MeshJob, list[str]]:
    """A surface that is fitted to views of a model without depth."""
    check_seed(options.seed)
    there = len(read_capture(options.capture, format=options.format))
    wanted = RequestOptions(
        capture=options.capture, format=options.format, references=options.references,
        num_references=min(options.num_references, there), masked=options.masked,
    )  # fmt: skip
    request = resolve_request(wanted, model)
    model = model.for_shape(request.references.cameras)
    rendering = RenderingJob(
        out=options.out, name=options.model, model=model, request=request, plan=model.system.default_plan,
        precision=options.precision, seed=options.seed, fps=options.fps, overwrite=options.overwrite,
        capture=options.capture, sources=(options.capture, Path(options.model)),
    )  # fmt: skip
    doubts = background_doubts(model, request.references, masked=options.masked)
    job = MeshJob(rendering=rendering, options=options.fit, turntable=options.turntable, fps=options.fps)
    return job, [*request.notes, *warnings_of(doubts)]
