"""What 'reconstruct' is asked for, and which way that goes: points of a model, a fitted surface, or depth maps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from kaleidoscene.api import Model, load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.choices import given
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.memory import check_room
from kaleidoscene.reconstruction.fusion import FusionConfig
from kaleidoscene.reconstruction.tsdf import MeshConfig
from kaleidoscene.workflows.costs import describe_rendering
from kaleidoscene.workflows.doubts import background_doubts, warnings_of
from kaleidoscene.workflows.meshing import MeshJob, MeshOptions
from kaleidoscene.workflows.reconstruction import ReconstructionJob, choose_sources
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, parse_references, resolve_request
from kaleidoscene.workflows.surface import SurfaceJob

CAPTURE = "capture"
"""In place of a model: what the capture has itself."""


@dataclass(frozen=True, kw_only=True)
class ReconstructionRequest:
    """What is made of a capture, and with what; :func:`job_of` says how."""

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


def job_of(request: ReconstructionRequest) -> tuple[ReconstructionJob | MeshJob | SurfaceJob, list[str]]:
    """What is to be done, by what the model renders, and what there is to be said of it before, as lines.

    Raises:
        KaleidosceneError: Something is asked for that the model does not render, or is not there.
    """
    if request.model == CAPTURE:
        _refuse(request, ("fit", "seed", "frames", "fusion", "surface", "num_references"), "is for models")
        return _from_depth(request), [check_room("The mesh", request.mesh.memory, "lower --mesh.resolution")]
    model = load(request.model, device=request.device, precision=request.precision)
    if not model.capabilities.renders_points:
        _refuse(request, ("frames", "fusion", "surface", "mesh"), "is for models that render points")
        return _from_images(request, model)
    _refuse(request, ("fit",), "is for models that render images alone")
    if not model.capabilities.samples:
        _refuse(request, ("seed",), "is for models that draw, or render images alone")
    return _from_points(request, model)


def _refuse(request: ReconstructionRequest, names: tuple[str, ...], why: str) -> None:
    for name in given(request, names):
        raise KaleidosceneError(f"--{name} {why}, which {request.model} is not.")


def _rendering_of(request: ReconstructionRequest, model: Model, references: int, views: int) -> str:
    """What rendering takes."""
    plan = model.system.default_plan
    return describe_rendering(model, references, views, plan, device=request.device, precision=request.precision)


def _from_depth(request: ReconstructionRequest) -> SurfaceJob:
    """Depth maps of the capture itself."""
    capture = read_capture(request.capture, format=request.format)
    if request.references is not None:
        capture = capture.select(parse_references(request.references))
    return SurfaceJob(
        out=request.out, capture=capture, masked=request.masked, mesh=request.mesh, turntable=request.turntable,
        fps=request.fps, overwrite=request.overwrite, sources=(request.capture,),
    )  # fmt: skip


def _from_points(request: ReconstructionRequest, model: Model) -> tuple[ReconstructionJob, list[str]]:
    """Points that a model renders."""
    chosen, notes = choose_sources(
        read_capture(request.capture, format=request.format), request.references, request.num_references,
        estimates=model.capabilities.estimates_cameras,
    )  # fmt: skip
    if (route := model.route(len(chosen))) is not None:
        notes.append(f"{model.system.family}: {route}.")
    job = ReconstructionJob(
        out=request.out, model=model, capture=chosen, masked=request.masked, frames=request.frames,
        fusion=request.fusion, surface=request.surface, mesh=request.mesh, turntable=request.turntable, fps=request.fps,
        overwrite=request.overwrite, sources=(request.capture, Path(request.model)), precision=request.precision,
        seed=request.seed,
    )  # fmt: skip
    if request.frames > 0:
        notes.append(_rendering_of(request, model, len(chosen), request.frames))
    if request.surface:
        notes.append(check_room("The mesh", request.mesh.memory, "lower --mesh.resolution"))
    return job, [*notes, *warnings_of(background_doubts(model, chosen, masked=request.masked))]


def _from_images(request: ReconstructionRequest, model: Model) -> tuple[MeshJob, list[str]]:
    """A surface that is fitted to views of a model without depth."""
    there = len(read_capture(request.capture, format=request.format))
    wanted = RequestOptions(
        capture=request.capture, format=request.format, references=request.references,
        num_references=min(request.num_references, there), masked=request.masked,
    )  # fmt: skip
    resolved = resolve_request(wanted, model)
    model = model.for_shape(resolved.references.cameras)
    rendering = RenderingJob(
        out=request.out, name=request.model, model=model, request=resolved, plan=model.system.default_plan,
        precision=request.precision, seed=request.seed, fps=request.fps, overwrite=request.overwrite,
        capture=request.capture, sources=(request.capture, Path(request.model)),
    )  # fmt: skip
    doubts = background_doubts(model, resolved.references, masked=request.masked)
    job = MeshJob(rendering=rendering, options=request.fit, turntable=request.turntable, fps=request.fps)
    fit = request.fit.surface
    told = [
        _rendering_of(request, model, len(resolved.references), job.views),
        check_room(
            f"The surface ({3 * fit.steps} steps)", fit.memory, "lower --fit.surface.rays, .samples or .resolution"
        ),
    ]
    return job, [*resolved.notes, *told, *warnings_of(doubts)]
