"""Quality against the number of sampling steps, for both solvers and the schedules."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Literal

from benchmarks.common import write_result
from kaleidoscene.api import Model, load
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.protocols import FirstViews
from kaleidoscene.evaluation.run import HeldOutObject, evaluate, means
from kaleidoscene.families.kaleido.settings import SamplingConfig
from kaleidoscene.families.kaleido.system import KaleidoSystem
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.flow.solvers import SolverName

STEPS = (1, 2, 4, 8, 16, 50)
WAYS: tuple[tuple[SolverName, Literal["linear_quadratic", "linspace", "trailing"]], ...] = (
    ("euler", "linear_quadratic"),
    ("heun", "linear_quadratic"),
    ("euler", "linspace"),
    ("euler", "trailing"),
)
PROTOCOL = FirstViews("few-step", 25, (10, 13, 16, 19, 22))


def score(model: Model, objects: list[HeldOutObject], sampling: SamplingConfig, references: int) -> float:
    """PSNR over all objects, targets alone."""
    assert isinstance(model.system, KaleidoSystem)
    system = KaleidoSystem(model.system.renderer.changed(sampling=sampling))
    return means(evaluate(system.renderer, objects, PROTOCOL, [references]))[references]["psnr"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path, help="held-out captures")
    parser.add_argument("--model", default="default")
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--objects", type=int, default=12)
    parser.add_argument("--name", default="few_step")
    options = parser.parse_args()
    model = load(options.model)
    assert isinstance(model.system, KaleidoSystem)
    base = model.system.settings.sampling
    objects = read_objects(options.captures, model.system)[: options.objects]
    lines = [
        f"`{Path(options.model).name}`, {len(objects)} objects, {options.references} references, 5 targets",
        "each, rendered alone, without guidance; PSNR in dB.",
        "",
        "| solver | schedule | " + " | ".join(f"{steps} step{'s' * (steps > 1)}" for steps in STEPS) + " |",
        "|---|---|" + "---|" * len(STEPS),
    ]
    for solver, kind in WAYS:
        row = []
        for steps in STEPS:
            sampling = replace(base, solver=solver, guidance=1.0, schedule=Schedule(kind=kind, steps=steps))
            row.append(f"{score(model, objects, sampling, options.references):.2f}")
        lines.append(f"| {solver} | {kind} | " + " | ".join(row) + " |")
    write_result(options.name, "Quality against sampling steps", lines)


if __name__ == "__main__":
    main()
