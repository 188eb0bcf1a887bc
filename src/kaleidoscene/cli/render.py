"""kaleidoscene render: new views of a capture."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kaleidoscene.api import load
from kaleidoscene.cli.common import check_rate, check_seed, parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import protect
from kaleidoscene.rendering.ordering import RenderMode
from kaleidoscene.workflows.doubts import forecast_of
from kaleidoscene.workflows.interpolation import check_doublings, interpolate_rendering
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, resolve_request
from kaleidoscene.workflows.samples import check_drawn, check_samples, describe, render_samples


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
    image_size: int | None = None
    """Pixels on the longer side, a multiple of the model's own (default weights: 128): what references show is copied
    at this size, what none shows is painted at the model's size and enlarged. Twice the size takes 4 to 5 times as
    long."""
    mode: RenderMode | None = None
    """joint: targets see each other; independent: they do not; autoregressive: they become references. By default what
    the model was trained for."""
    chunk: int | None = None
    """Targets in one call; by default the model's (joint: all, independent: eight, autoregressive: one)."""
    order: Literal["trajectory", "nearest"] | None = None
    """Order of autoregressive rendering; by default that of the trajectory."""
    max_references: int | None = None
    """Bound on the references of a call in autoregressive rendering; by default 12."""
    steps: int | None = None
    """Denoising steps; by default the model's."""
    guidance: float | None = None
    """Scale of classifier-free guidance; by default the model's."""
    samples: int = 1
    """Draw so many answers, each with a seed of its own, into OUT/sample-01, ...; of models that draw scenes."""
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    depth: bool = False
    """Write depth maps too (depth/, in 16 bits, named in transforms.json), of models that render depth."""
    fps: float = 12.0
    interpolate: int = 0
    """Double the frames so many times afterwards, into OUT/interpolated (see 'kaleidoscene interpolate')."""
    interpolator: str = "film"
    """What does that: 'film', a checkpoint or run folder, or a hub id."""
    strict: bool = False
    """Refuse what would only be said: cropping, padding, backgrounds, views far from every reference."""
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(RenderOptions, argv, "render")
    check_rate(options.fps)
    check_seed(options.seed)
    check_doublings(options.interpolate, "--interpolate")
    if options.samples != 1 and options.interpolate:
        raise KaleidosceneError("--samples and --interpolate do not go together: interpolate the sample that you like.")
    model = load(options.model, device=options.device, precision=options.precision).at_size(options.image_size)
    plan = model.system.default_plan.changed(
        mode=options.mode, chunk=options.chunk, order=options.order, max_references=options.max_references
    )
    model = model.with_sampling(steps=options.steps, guidance=options.guidance)
    if options.samples != 1:
        check_samples(options.samples, options.out, overwrite=options.overwrite)
        model.require("samples", "--samples")
    if options.depth:
        model.require("renders_depth", "--depth")
    request = resolve_request(options, model)
    sources = (options.capture, options.cameras_of, options.camera_path, Path(options.model))
    protect(options.out, sources)
    model = model.for_shape(request.references.cameras)
    job = RenderingJob(
        out=options.out, name=options.model, model=model, request=request, plan=plan, precision=options.precision,
        seed=options.seed, fps=options.fps, overwrite=options.overwrite, capture=options.capture, sources=sources,
        depth=options.depth,
    )  # fmt: skip
    job.check_disk()  # before anything is reckoned for each of a million views
    forecast = forecast_of(model, request)
    print("\n".join([*request.notes, *forecast.lines]))
    if options.strict:
        forecast.refuse()
    route = model.route(len(request.references))
    if route is not None:
        print(f"{model.system.family}: {route}.")
    said: dict[str, Any] = {
        "out": str(options.out), "references": request.indices, "views": len(request.cameras),
        "warnings": forecast.warnings, "route": route,
        "coverage": [round(share, 4) for share in forecast.coverage.tolist()],
    }  # fmt: skip
    if options.samples != 1:
        check_drawn(job)
    if options.dry_run:
        print("\n".join(job.dry_run(options.device)))
    else:
        started = time.perf_counter()
        done = render_samples(job, options.samples) if options.samples != 1 else [job.run()]
        lines, more = describe(job, done, time.perf_counter() - started)
        print("\n".join(lines))
        said |= more
        if options.interpolate:
            film = interpolate_rendering(
                options.out, options.interpolate, rate=options.fps, model=options.interpolator, device=options.device
            )
            print(film.describe(options.out / "interpolated" / "video.mp4"))
            said["interpolated"] = film.made
    if options.json:
        print_json(said)
