"""anyview render: new views of a capture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from anyview.api import Model, held_out, load
from anyview.cli.common import parse, parse_indices, print_json
from anyview.data.captures import Capture
from anyview.data.formats.registry import read_capture
from anyview.data.images import read_image
from anyview.errors import AnyViewError
from anyview.evaluation.metrics import psnr
from anyview.geometry import trajectories
from anyview.geometry.camera_path import read_camera_path, write_camera_path
from anyview.geometry.cameras import Cameras
from anyview.rendering.ordering import RenderMode, RenderPlan
from anyview.rendering.outputs import FrameWriter, SheetRow, frame_name, whole_folder, write_contact_sheet


@dataclass(frozen=True, kw_only=True)
class RenderOptions:
    """Render new views of a capture: frames, video.mp4, transforms.json and contact_sheet.png."""

    capture: tyro.conf.Positional[Path]
    """Folder with images and cameras (transforms*.json, or an EscherNet render folder)."""
    out: Path
    """Folder to write; it appears when everything is written."""
    references: str = "0"
    """Views of the capture to render from, for example 0,8,16 or 0-4."""
    targets: str | None = None
    """Views of the capture to render (and compare with), instead of a trajectory."""
    trajectory: str = "orbit"
    """Preset: orbit, spiral, lemniscate, dolly, dolly-zoom, pan, roll or move."""
    camera_path: Path | None = None
    """JSON camera path, instead of a trajectory."""
    frames: int = 24
    """Frames of the trajectory."""
    model: str = "default"
    """'default', a checkpoint or run folder, or a hub id."""
    mode: RenderMode = "joint"
    """joint: targets see each other; independent: they do not; autoregressive: they become references."""
    chunk: int | None = None
    """Targets in one call; by default all (autoregressive: one)."""
    order: Literal["trajectory", "nearest"] = "trajectory"
    """Order of autoregressive rendering."""
    max_references: int = 12
    """Bound on the references of a call in autoregressive rendering."""
    steps: int | None = None
    """Denoising steps; by default the model's."""
    guidance: float | None = None
    """Scale of classifier-free guidance; by default the model's."""
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    fps: float = 12.0
    format: str | None = None
    """Read the capture as this format instead of detecting it."""
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(RenderOptions, argv, "render")
    if options.fps <= 0:
        raise AnyViewError(f"--fps must be positive, got {options.fps}.")
    capture = read_capture(options.capture, format=options.format)
    if options.out.resolve() in (options.capture.resolve(), *options.capture.resolve().parents):
        raise AnyViewError(f"{options.out}: the output would replace the capture; give another folder.")
    references = capture.select(parse_indices(options.references, "--references"))
    cameras, truth_indices = _targets(options, capture, references)
    plan = RenderPlan(
        mode=options.mode, chunk=options.chunk, order=options.order, max_references=options.max_references
    )
    model = load(options.model, device=options.device, precision=options.precision)
    model = model.with_sampling(steps=options.steps, guidance=options.guidance)
    print(f"{capture.name}: {capture.format} capture of {len(capture)} views, {len(references)} as references.")
    with whole_folder(options.out, overwrite=options.overwrite) as folder:
        write_camera_path(folder / "camera_path.json", model.lens(cameras), fps=options.fps)
        seconds = _render(options, model, references, cameras, plan, folder)
        scores = _finish(model, capture, references, cameras, truth_indices, folder)
    print(f"{len(cameras)} views of {model.image_size[0]}x{model.image_size[1]} in {seconds:.1f} s.")
    if scores:
        print(f"PSNR against the {len(scores)} real views: {sum(scores) / len(scores):.2f} dB.")
    names = ["frames/", "video.mp4", "transforms.json", "camera_path.json", "contact_sheet.png"]
    print("\n".join(f"wrote {options.out / name}" for name in names))
    if options.json:
        mean = sum(scores) / len(scores) if scores else None
        print_json(
            {"out": str(options.out), "views": len(cameras), "seconds": seconds, "psnr": mean, "psnr_each": scores}
        )


def _targets(options: RenderOptions, capture: Capture, references: Capture) -> tuple[Cameras, list[int] | None]:
    """Cameras to render, and which views of the capture they are, if they are any."""
    if options.targets is not None:
        indices = parse_indices(options.targets, "--targets")
        return capture.select(indices).cameras, indices
    if options.camera_path is not None:
        return read_camera_path(options.camera_path), None
    start = trajectories.View.of(references.cameras, centre=capture.origin(), up=trajectories.mean_up(capture.cameras))
    return trajectories.preset(options.trajectory, start, options.frames), None


def _render(
    options: RenderOptions, model: Model, references: Capture, cameras: Cameras, plan: RenderPlan, folder: Path
) -> float:
    """Render and write frames as they come; returns the seconds it took."""
    writer = FrameWriter(folder, model.lens(cameras), centred=references.centred, fps=options.fps)
    bar = Progress(
        TextColumn("rendering"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    started = time.perf_counter()
    with bar:
        task = bar.add_task("", total=len(cameras), note="")

        def on_step(done: int, steps: int) -> None:
            bar.update(task, note=f"step {done}/{steps}")

        for chunk in model.render_chunks(references, cameras=cameras, seed=options.seed, plan=plan, on_step=on_step):
            writer.write(chunk.indices, chunk.images)
            bar.advance(task, len(chunk.indices))
    seconds = time.perf_counter() - started
    writer.finish()
    return seconds


def _finish(
    model: Model, capture: Capture, references: Capture, cameras: Cameras, truth_indices: list[int] | None, folder: Path
) -> list[float]:
    """Contact sheet (of 48 frames at most) and, where the truth is known, the PSNR of every view."""
    shown = range(0, len(cameras), -(-len(cameras) // 48))
    paths = [folder / frame_name(index) for index in range(len(cameras))]
    rows = [SheetRow("references", list(model.prepare(references)[0]))]
    rows.append(SheetRow("new views", [read_image(paths[i])[0] for i in shown]))
    scores: list[float] = []
    if truth_indices is not None:
        truth, _ = held_out(capture, model, truth_indices)
        scores = [float(psnr(read_image(path)[0], real)) for path, real in zip(paths, truth, strict=True)]
        rows.append(SheetRow("truth", [truth[i] for i in shown]))
    write_contact_sheet(folder / "contact_sheet.png", rows)
    return scores
