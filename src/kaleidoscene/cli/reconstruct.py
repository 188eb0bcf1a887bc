"""kaleidoscene reconstruct: photographs to cameras, depth maps and a cloud of points, or to a mesh."""

from __future__ import annotations

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
from kaleidoscene.workflows.doubts import background_doubts
from kaleidoscene.workflows.meshing import MESH_FILES, MeshJob, MeshOptions
from kaleidoscene.workflows.reconstruction import WRITTEN, ReconstructionJob, choose_sources
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, parse_references, resolve_request
from kaleidoscene.workflows.surface import SURFACE_FILES, SurfaceJob

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
    if options.model == CAPTURE:
        _refuse(options, ("fit", "seed"), "is for models")
        _from_capture(options)
        return
    model = load(options.model, device=options.device, precision=options.precision)
    if not model.capabilities.renders_points:
        _from_images(options, model)
        return
    _refuse(options, ("fit", "seed"), "is for models that render images alone")
    capture = read_capture(options.capture, format=options.format)
    chosen, notes = choose_sources(
        capture, options.references, options.num_references, estimates=model.capabilities.estimates_cameras
    )
    route = model.route(len(chosen))
    notes = [*notes, *([] if route is None else [f"{model.system.family}: {route}."])]
    doubts = background_doubts(model, chosen, masked=options.masked)
    print("\n".join([*notes, *(f"warning: {doubt}" for doubt in doubts)]))
    started = time.perf_counter()
    done = ReconstructionJob(
        out=options.out, model=model, capture=chosen, masked=options.masked, frames=options.frames,
        fusion=options.fusion, surface=options.surface, mesh=options.mesh, turntable=options.turntable, fps=options.fps,
        overwrite=options.overwrite, sources=(options.capture, Path(options.model)),
    ).run()  # fmt: skip
    seconds = time.perf_counter() - started
    mesh = f" and {done.faces} faces" if options.surface else ""
    print(f"{done.points} points{mesh} from {len(chosen)} images in {seconds:.1f} s.")
    if done.poses is not None:
        poses = done.poses
        print(
            f"Cameras told by the model, against those of the capture: RA@5 {poses.ra5:.1f} %, RT@5 {poses.rt5:.1f} %, "
            f"AUC@30 {poses.auc30:.1f} %."
        )
    written = ("mesh.ply", "mesh.glb", *WRITTEN) if options.surface else WRITTEN
    print("\n".join(f"wrote {options.out / name}" for name in written))
    if options.json:
        poses = None if done.poses is None else vars(done.poses)
        print_json(
            {"out": str(options.out), "points": done.points, "faces": done.faces, "seconds": seconds, "poses": poses}
        )


def _refuse(options: ReconstructOptions, names: tuple[str, ...], why: str) -> None:
    for name in given(options, names):
        raise KaleidosceneError(f"--{name} {why}, which {options.model} is not.")


def _from_images(options: ReconstructOptions, model: Model) -> None:
    """A surface that is fitted to views of a model without depth."""
    _refuse(options, ("frames", "fusion", "surface", "mesh"), "is for models that render points")
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
    print("\n".join([*request.notes, *(f"warning: {doubt}" for doubt in doubts)]))
    started = time.perf_counter()
    made = MeshJob(rendering=rendering, options=options.fit, turntable=options.turntable, fps=options.fps).run()
    seconds = time.perf_counter() - started
    print(
        f"{made.faces} faces fitted to {made.views} rendered views in {seconds:.1f} s; images show "
        f"{100 * made.painted:.0f} % of the texture."
    )
    print("\n".join(f"wrote {options.out / name}" for name in MESH_FILES))
    if options.json:
        print_json({"out": str(options.out), "faces": made.faces, "painted": made.painted, "seconds": seconds})


def _from_capture(options: ReconstructOptions) -> None:
    capture = read_capture(options.capture, format=options.format)
    if options.references is not None:
        capture = capture.select(parse_references(options.references))
    started = time.perf_counter()
    made = SurfaceJob(
        out=options.out, capture=capture, masked=options.masked, mesh=options.mesh, turntable=options.turntable,
        fps=options.fps, overwrite=options.overwrite, sources=(options.capture,),
    ).run()  # fmt: skip
    seconds = time.perf_counter() - started
    print(f"{made.faces} faces from {made.views} views with depth in {seconds:.1f} s.")
    print("\n".join(f"wrote {options.out / name}" for name in SURFACE_FILES))
    if options.json:
        print_json({"out": str(options.out), "vertices": made.vertices, "faces": made.faces, "seconds": seconds})
