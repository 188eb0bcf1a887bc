"""kaleidoscene bench: how fast this machine renders, trains, loads and encodes, with the share of its peak."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.timing import SPEED, SpeedReport, Timing, describe_machine, matrix_peak, speed_table
from kaleidoscene.experiments.speed import SUITES, BenchSettings, Stopwatch
from kaleidoscene.folders import whole_folder
from kaleidoscene.machine import check_device
from kaleidoscene.nn.precision import TYPES, Precision
from kaleidoscene.serialisation import to_plain, write_json


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Time rendering, a training step, data loading and the codec; `kaleidoscene compare A B` shows what changed."""

    out: Path
    """Folder for speed.json."""
    suites: tuple[Literal["render", "train", "data", "codec"], ...] = ("render", "train", "codec")
    """What to time; data needs --shards."""
    model: str = "default"
    references: tuple[int, ...] = (1, 4, 12)
    """Numbers of references N to render from."""
    targets: tuple[int, ...] = (1, 8)
    """Numbers of targets M of a call."""
    steps: tuple[int, ...] = (1, 8)
    """Numbers of denoising steps."""
    sizes: tuple[int, ...] = ()
    """Image heights in pixels, the shape stays; by default the model's. Other sizes than that are only timed."""
    cache: tuple[Literal["on", "off"], ...] = ()
    """Render with references kept, read anew in every step, or both; by default as the model does."""
    precision: tuple[Precision, ...] = ("fp32",)
    """Types of matrix products: fp32, bf16, fp16."""
    train_batch: int = 4
    """Scenes of the training step."""
    views: int = 8
    """Views of a scene of the training step."""
    shards: Path | None = None
    """Folder of training shards, for the data suite."""
    runs: int = 5
    """Timed runs after one for warm-up; the median and half the distance of the quartiles are given."""
    device: str = "cpu"
    overwrite: bool = False
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(BenchOptions, argv, "bench")
    check_device(options.device)
    _check(options)
    settings = BenchSettings(
        model=options.model, references=options.references, targets=options.targets, steps=options.steps,
        sizes=options.sizes, cache=options.cache, train_batch=options.train_batch, views=options.views,
        shards=options.shards, device=options.device,
    )  # fmt: skip
    with whole_folder(options.out, overwrite=options.overwrite, sources=[options.shards]) as folder:
        peaks = {name: matrix_peak(options.device, TYPES[name]) for name in options.precision}
        timings: list[Timing] = []
        with Progress(transient=True) as bar:
            task = bar.add_task("timing", total=None)
            for suite in options.suites:
                # Loading and the codec do not depend on the type of matrix products.
                for precision in options.precision if suite in ("render", "train") else options.precision[:1]:
                    watch = Stopwatch(options.runs, options.device, peaks[precision])
                    for timing in SUITES[suite](settings, precision, watch):
                        timings.append(timing)
                        bar.update(task, advance=1, description=timing.name)
        report = SpeedReport(
            machine=describe_machine(options.device), model=options.model, peak_flops=peaks, timings=tuple(timings)
        )
        write_json(folder / SPEED, to_plain(report))
    _print(report)
    print(f"wrote {options.out / SPEED}")
    if options.json:
        print_json(to_plain(report))


def _check(options: BenchOptions) -> None:
    lists = (options.references, options.targets, options.steps, options.suites, options.precision)
    if any(len({*values}) < len(values) for values in (*lists, options.sizes, options.cache)):
        raise KaleidosceneError("A value that is given twice would be timed twice under one name; give different ones.")
    if not all(lists):
        raise KaleidosceneError("--references, --targets, --steps, --suites and --precision need a value each.")
    counts = (*options.references, *options.targets, *options.steps, *options.sizes, options.runs, options.train_batch)
    if min(counts) < 1:
        raise KaleidosceneError("Numbers of references, targets, steps, runs and scenes and sizes must be at least 1.")
    if options.views < 2:
        raise KaleidosceneError(f"--views must be at least 2 (a reference and a target), got {options.views}.")
    if "data" in options.suites and options.shards is None:
        raise KaleidosceneError("The data suite times the loading of shards: give --shards.")
    if options.device == "cpu" and "fp16" in options.precision and "train" in options.suites:
        raise KaleidosceneError("Training in fp16 needs a GPU; leave the train suite out or take bf16.")


def _print(report: SpeedReport) -> None:
    peaks = ", ".join(f"{name} {peak / 1e9:.0f} GFLOP/s" for name, peak in report.peak_flops.items())
    header, rows = speed_table(report)
    table = Table(title=f"{report.model} on {report.machine['device']}, peak {peaks}")
    for name in header:
        table.add_column(name, justify="left" if name == "what" else "right", no_wrap=name == "what")
    for row in rows:
        table.add_row(*row)
    console = Console()
    # Names are long; lines that are folded cannot be read.
    console.width = max(console.width, 120)
    console.print(table)
