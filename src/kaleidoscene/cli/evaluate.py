"""kaleidoscene evaluate: a benchmark under a stated protocol, resumable and shared by processes."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.evaluation.report import mean_table
from kaleidoscene.evaluation.results import count_scenes
from kaleidoscene.evaluation.shapes import means, table
from kaleidoscene.workflows.evaluation import SHAPES, EvaluationOptions, evaluate_benchmark
from kaleidoscene.workflows.shapes import evaluate_shapes


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(EvaluationOptions):
    """Score a model or a baseline on a benchmark; a second start goes on, several processes (torchrun) share scenes."""

    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(EvaluateOptions, argv, "evaluate")
    if options.benchmark == SHAPES:
        _shapes(options)
        return
    started = time.perf_counter()
    report = evaluate_benchmark(options)
    if report is None:
        return
    header, rows = mean_table(report)
    seconds = time.perf_counter() - started
    size = report.protocol.image_size
    what = f"{report.protocol.benchmark}: {report.method.name}, {count_scenes(report)}"
    table = Table(title=f"{what}, {size[0]}x{size[1]}, {seconds:.0f} s")
    for name in header:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    for name in ("report.json", "report.md", "report.html", "curve.png"):
        print(f"wrote {options.out / name}")
    if options.json:
        print_json({"out": str(options.out), "seconds": seconds, "mean": report.mean})


def _shapes(options: EvaluateOptions) -> None:
    with Progress(transient=True) as bar:
        task = bar.add_task("surfaces")
        report = evaluate_shapes(options, lambda done, total: bar.update(task, completed=done, total=total))
    print("\n".join(table(report)))
    for name in ("report.json", "report.md"):
        print(f"wrote {options.out / name}")
    if options.json:
        print_json({"out": str(options.out), "mean": means(report)})
