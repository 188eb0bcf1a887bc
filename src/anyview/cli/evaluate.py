"""anyview evaluate: the held-out protocol on a folder of captures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anyview.api import Model, load
from anyview.cli.common import parse, parse_indices, print_json
from anyview.data.formats.registry import read_capture
from anyview.errors import AnyViewError
from anyview.evaluation.protocols import ESCHERNET_GSO
from anyview.evaluation.report import summary_table, write_evaluation_sheet, write_report
from anyview.evaluation.run import HeldOutObject, evaluate, means
from anyview.rendering.outputs import whole_folder


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Score a model: PSNR and SSIM per object and mean, with the copy of the nearest reference beside them."""

    captures: tyro.conf.Positional[Path]
    """Folder of captures with 25 views each (a single capture will do)."""
    out: Path
    """Folder for scores.json and contact_sheet.png."""
    references: str = "1,2,3,5,10"
    """Numbers of references N; references are views 0..N-1, targets are views 10..24."""
    model: str = "default"
    """'default', a checkpoint or run folder, or a hub id."""
    joint: bool = False
    """Let the targets of an object see each other; by default each is rendered alone."""
    steps: int | None = None
    guidance: float | None = None
    seed: int = 0
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    overwrite: bool = False
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(EvaluateOptions, argv, "evaluate")
    counts = parse_indices(options.references, "--references")
    model = load(options.model, device=options.device, precision=options.precision)
    model = model.with_sampling(steps=options.steps, guidance=options.guidance)
    objects = read_objects(options.captures, model)
    started = time.perf_counter()
    with whole_folder(options.out, overwrite=options.overwrite, sources=[options.captures]) as folder:
        with Progress(transient=True) as bar:
            task = bar.add_task("evaluating", total=len(objects))
            scores = evaluate(
                model.system.renderer, objects, ESCHERNET_GSO, counts, seed=options.seed,
                independent=not options.joint, on_object=lambda done: bar.update(task, completed=done),
            )  # fmt: skip
        context = {
            "model": options.model, "image_size": list(model.image_size), "joint": options.joint,
            "sampling": model.system.sampling, "seed": options.seed, "precision": options.precision,
        }  # fmt: skip
        write_report(folder / "scores.json", scores, ESCHERNET_GSO, context)
        write_evaluation_sheet(folder / "contact_sheet.png", objects, scores, ESCHERNET_GSO)
    seconds = time.perf_counter() - started
    table = Table(title=f"{len(objects)} objects, {ESCHERNET_GSO.name}, {model.image_size[0]} px, {seconds:.0f} s")
    for name in ("references", "PSNR", "SSIM", "copy PSNR", "gain dB"):
        table.add_column(name, justify="right")
    for row in summary_table(scores):
        table.add_row(*row)
    Console().print(table)
    print(f"wrote {options.out / 'scores.json'}\nwrote {options.out / 'contact_sheet.png'}")
    if options.json:
        print_json({"out": str(options.out), "seconds": seconds, "mean": means(scores)})


def read_objects(folder: Path, model: Model) -> list[HeldOutObject]:
    """All captures below a folder at the size of the model; every one must read.

    Raises:
        AnyViewError: There are none, or one is bad.
    """
    if not folder.is_dir():
        raise AnyViewError(f"{folder}: no such folder.")
    nested = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    single = any(folder.glob("transforms*.json")) or any(folder.glob("000.npy"))
    paths = [folder] if single else nested
    if not paths:
        raise AnyViewError(f"{folder}: no captures here.")
    objects = []
    for path in paths:
        images, cameras = model.prepare(read_capture(path).recentred())
        objects.append(HeldOutObject(path.name, images, cameras))
    return objects
