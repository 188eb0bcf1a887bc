"""kaleidoscene render: new views of a capture."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from kaleidoscene.api import Model, load, resolve
from kaleidoscene.captures.checking.pictures import write_frusta_picture
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.cli.info import describe_cost
from kaleidoscene.cli.request import RenderRequest, RequestOptions, resolve_request
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.geometry.camera_path import write_camera_path
from kaleidoscene.images.files import read_image
from kaleidoscene.rendering.ordering import RenderMode, RenderPlan
from kaleidoscene.rendering.outputs import (
    FRUSTA,
    FrameWriter,
    SheetRow,
    frame_name,
    protect,
    whole_folder,
    write_contact_sheet,
)
from kaleidoscene.rendering.resume import REQUEST, PartialRendering, is_finished
from kaleidoscene.serialisation import to_plain, write_json

_INDEPENDENT_CHUNK = 8


@dataclass(frozen=True, kw_only=True)
class RenderOptions(RequestOptions):
    """Render new views of a capture: frames, video.mp4, transforms.json, camera_path.json and contact_sheet.png.

    The same command again goes on with a rendering that was interrupted, and does nothing if all is done.
    """

    out: Path
    """Folder to write; it appears when everything is written."""
    dry_run: bool = False
    """Write OUT/frusta.png and say what the rendering would cost; render nothing."""
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
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(RenderOptions, argv, "render")
    if not 0 < options.fps < math.inf:
        raise KaleidosceneError(f"--fps must be positive, got {options.fps}.")
    # Targets that do not see each other come out the same in any chunks: small ones show progress and can be resumed.
    chunk = _INDEPENDENT_CHUNK if options.mode == "independent" and options.chunk is None else options.chunk
    plan = RenderPlan(mode=options.mode, chunk=chunk, order=options.order, max_references=options.max_references)
    model = load(options.model, device=options.device, precision=options.precision)
    model = model.with_sampling(steps=options.steps, guidance=options.guidance)
    request = resolve_request(options, model)
    protect(options.out, _sources(options))
    model = model.for_shape(request.references.cameras)
    for line in (*request.notes, *model.describe_fit(request.references)):
        print(line)
    if options.dry_run:
        _dry_run(options, model, request, plan)
    else:
        _render_all(options, model, request, plan)


def _dry_run(options: RenderOptions, model: Model, request: RenderRequest, plan: RenderPlan) -> None:
    if options.out.exists() and not options.out.is_dir():
        raise KaleidosceneError(f"{options.out}: the output folder is a file.")
    options.out.mkdir(parents=True, exist_ok=True)
    picture = write_frusta_picture(
        options.out / FRUSTA, request.references, targets=model.lens(request.cameras), numbers=request.indices
    )
    print(_cost(options, model, request, plan))
    print(f"wrote {options.out / picture.name} (nothing was rendered: --dry-run)")
    if options.json:
        print_json({"out": str(options.out), "references": request.indices, "views": len(request.cameras)})


def _cost(options: RenderOptions, model: Model, request: RenderRequest, plan: RenderPlan) -> str:
    counts = len(request.references), len(request.cameras)
    return describe_cost(model, *counts, plan, device=options.device, precision=options.precision)


def _render_all(options: RenderOptions, model: Model, request: RenderRequest, plan: RenderPlan) -> None:
    said = _identity(options, model, request, plan)
    written = ("video.mp4", "transforms.json", "camera_path.json", "contact_sheet.png")
    frames = [frame_name(index) for index in range(len(request.cameras))]
    if is_finished(options.out, said, [*frames, *written]) and not options.overwrite:
        print(f"{options.out}: all {len(request.cameras)} views are there already, nothing is rendered again.")
        if options.json:
            print_json({"out": str(options.out), "references": request.indices, "views": len(frames), "seconds": 0.0})
        return
    started = time.perf_counter()
    # The final folder is made first: one that cannot be written must not cost a rendering.
    with whole_folder(options.out, overwrite=options.overwrite, sources=_sources(options)) as folder:
        partial = PartialRendering(options.out, said, overwrite=options.overwrite)
        before = partial.count
        if before:
            print(f"going on: {before} of {len(request.cameras)} views are rendered already")
        try:
            _render(model, request, plan, options.seed, partial)
        except BaseException:
            if partial.count:
                print(
                    f"{partial.count} of {len(request.cameras)} views are kept; the same command goes on with the rest."
                )
            else:
                partial.discard()
            raise
        seconds = time.perf_counter() - started
        scores = _write(options, model, request, partial, folder)
        write_json(folder / REQUEST, said)
    partial.discard()
    _report(options, model, request, seconds, scores)


def _identity(options: RenderOptions, model: Model, request: RenderRequest, plan: RenderPlan) -> dict[str, Any]:
    """Everything that the output depends on; of the references, what the model sees of them."""
    images, cameras = model.prepare(request.references, masked=request.masked)
    seen = hashlib.sha256(images.numpy().tobytes() + cameras.world_from_cam.numpy().tobytes()).hexdigest()
    weights = resolve(options.model) / "model.safetensors"
    return {
        "model": str(weights.resolve()), "modified": weights.stat().st_mtime_ns, "sampling": model.system.sampling,
        "image_size": list(model.image_size), "seed": options.seed, "precision": options.precision,
        "plan": to_plain(plan), "capture": str(options.capture.resolve()), "references": request.indices,
        "seen": seen, "fps": options.fps, "cameras": request.cameras.world_from_cam.tolist(),
    }  # fmt: skip


def _sources(options: RenderOptions) -> list[Path | None]:
    return [options.capture, options.cameras_of, options.camera_path, Path(options.model)]


class _FramesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} frames/s" if task.speed else "")


def _render(model: Model, request: RenderRequest, plan: RenderPlan, seed: int, partial: PartialRendering) -> None:
    """Render what is not there yet and put it away as it comes."""
    bar = Progress(
        TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), _FramesPerSecond(),
        TextColumn("{task.fields[note]}"), TimeRemainingColumn(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=len(request.cameras), note="")

        def on_step(done: int, steps: int) -> None:
            bar.update(task, note=f"step {done}/{steps}")

        for chunk in model.render_chunks(
            request.references, cameras=request.cameras, seed=seed, plan=plan, masked=request.masked,
            on_step=on_step, finished=partial.finished,
        ):  # fmt: skip
            if chunk.is_new:
                partial.keep(chunk)
            bar.advance(task, len(chunk.indices))


def _write(
    options: RenderOptions, model: Model, request: RenderRequest, partial: PartialRendering, folder: Path
) -> list[float]:
    """Frames, video, cameras, contact sheet (of 48 frames at most) and, where the truth is known, every PSNR."""
    count = len(request.cameras)
    lens = model.lens(request.cameras)
    write_camera_path(folder / "camera_path.json", lens, fps=options.fps)
    writer = FrameWriter(folder, lens, centred=request.references.centred, fps=options.fps)
    for index in range(count):
        images = partial.finished([index])
        assert images is not None
        writer.write([index], images)
    writer.finish()
    shown = range(0, count, -(-count // 48))
    paths = [folder / frame_name(index) for index in range(count)]
    rows = [SheetRow("references", list(model.prepare(request.references, masked=request.masked)[0]))]
    rows.append(SheetRow("new views", [read_image(paths[i])[0] for i in shown]))
    scores: list[float] = []
    if request.truth is not None:
        truth, _ = model.prepare(request.truth, masked=request.masked)
        scores = [float(psnr(read_image(path)[0], real)) for path, real in zip(paths, truth, strict=True)]
        rows.append(SheetRow("truth", [truth[i] for i in shown]))
    write_contact_sheet(folder / "contact_sheet.png", rows)
    return scores


def _report(options: RenderOptions, model: Model, request: RenderRequest, seconds: float, scores: list[float]) -> None:
    mean = sum(scores) / len(scores) if scores else None
    print(f"{len(request.cameras)} views of {model.image_size[0]}x{model.image_size[1]} in {seconds:.1f} s.")
    if mean is not None:
        print(f"PSNR against the {len(scores)} real views: {mean:.2f} dB.")
    names = ["frames/", "video.mp4", "transforms.json", "camera_path.json", "contact_sheet.png"]
    print("\n".join(f"wrote {options.out / name}" for name in names))
    if options.json:
        document = {"out": str(options.out), "views": len(request.cameras), "seconds": seconds}
        print_json({**document, "references": request.indices, "psnr": mean, "psnr_each": scores})
