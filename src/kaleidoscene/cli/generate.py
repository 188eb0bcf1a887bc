"""kaleidoscene generate: objects of nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from kaleidoscene.api import load
from kaleidoscene.cli.common import check_rate, check_seed, parse, print_json
from kaleidoscene.folders import protect
from kaleidoscene.workflows.generation import Generation
from kaleidoscene.workflows.request import check_frames
from kaleidoscene.workflows.samples import GRID, SHEET, check_samples
from kaleidoscene.workflows.unposed import check_place


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """Draw objects of nothing: OUT/sample-01, ... with a turntable each, and all of them side by side.

    The same command again goes on with what was interrupted, and with more samples.
    """

    out: Path
    """Folder to write."""
    model: str = "dit3d"
    """A model that draws scenes of nothing: its name, a checkpoint or run folder, or a hub id."""
    samples: int = 4
    """How many objects."""
    frames: int = 24
    """Views around each."""
    elevation: float = 20.0
    """Of the cameras above the object's middle, degrees."""
    distance: float = 1.85
    """Of the cameras from the middle of the object, in lengths of the object's longest side."""
    steps: int | None = None
    """Denoising steps; by default the model's."""
    seed: int = 0
    """Of the first sample; each further one has the next."""
    label: int | None = None
    """Class of the objects, of models that were trained with class labels; by default any."""
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    depth: bool = False
    """Write depth maps too (depth/, in 16 bits, named in transforms.json), of models that render depth."""
    fps: float = 12.0
    overwrite: bool = False
    """Replace samples that were made by another command."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(GenerateOptions, argv, "generate")
    check_rate(options.fps)
    check_seed(options.seed)
    check_frames(options.frames)
    check_place(options.distance, options.elevation)
    check_samples(options.samples, options.out, overwrite=options.overwrite)
    protect(options.out, [Path(options.model)])
    model = load(options.model, device=options.device, precision=options.precision)
    model.require("generates", "Generating")
    model = model.with_sampling(steps=options.steps)
    if options.depth:
        model.require("renders_depth", "--depth")
    generation = Generation(
        out=options.out, name=options.model, model=model, samples=options.samples, frames=options.frames,
        elevation=options.elevation, distance=options.distance, seed=options.seed, fps=options.fps,
        overwrite=options.overwrite, depth=options.depth, precision=options.precision,
        label=options.label,
    )  # fmt: skip
    seconds, made = _run(generation)
    h, w = model.image_size
    print(f"{options.samples} objects ({made} of them new), {options.frames} views of {h}x{w} each; diffusion.")
    print("\n".join(f"wrote {options.out / name}" for name in ("sample-*/", GRID, SHEET)))
    if options.json:
        print_json({"out": str(options.out), "samples": options.samples, "new": made, "route": "diffusion",
                    "seconds": seconds})  # fmt: skip


def _run(generation: Generation) -> tuple[float, int]:
    """With a bar; seconds and samples that were made."""
    started, made = time.perf_counter(), 0
    bar = Progress(
        TextColumn("generating"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with bar:
        task = bar.add_task("", total=generation.samples, note="")

        def on_sample(done: int, is_new: bool) -> None:
            nonlocal made
            made += is_new
            bar.update(task, completed=done)

        generation.run(on_sample, lambda done, steps: bar.update(task, note=f"step {done}/{steps}"))
    return time.perf_counter() - started, made
