"""A student of four steps against its teacher in many: scores on held-out scans, and how near their images are."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.common import write_result
from kaleidoscene.api import Model, load
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.protocols import FirstViews
from kaleidoscene.evaluation.run import HeldOutObject, Score, evaluate
from kaleidoscene.families.kaleido.recipes import RECIPES
from kaleidoscene.families.kaleido.system import KaleidoSystem
from kaleidoscene.flow.distillation import Distillation
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.training.run import RunOptions
from kaleidoscene.workflows.training import train

PROTOCOL = FirstViews("distillation", 25, (10, 13, 16, 19, 22))
STUDENT_STEPS = 4


def scores(model: Model, objects: list[HeldOutObject], steps: int, references: int) -> list[Score]:
    """Of all objects, in so many steps without guidance; the same noise whatever the model."""
    assert isinstance(model.system, KaleidoSystem)
    schedule = Schedule(kind="linear_quadratic", steps=steps)
    sampling = replace(model.system.renderer.sampling, schedule=schedule, guidance=1.0)
    return evaluate(model.system.renderer.changed(sampling=sampling), objects, PROTOCOL, [references])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", help="run or checkpoint of the recipe")
    parser.add_argument("out", type=Path, help="run of the student, which can go on")
    parser.add_argument("captures", type=Path, help="held-out captures")
    parser.add_argument("shards", type=Path)
    parser.add_argument("--recipe", default="kaleido-nano-32")
    parser.add_argument("--teacher-steps", type=int, default=12, help="of the teacher for one of the student")
    parser.add_argument("--steps", type=int, default=150, help="of training")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--references", type=int, default=3)
    options = parser.parse_args()
    recipe = RECIPES[options.recipe]()
    optim = replace(recipe.train.optim, warmup=20, cooldown=0.5)
    config = replace(recipe.train, steps=options.steps, optim=optim, validate_every=10**9, workers=0)
    data = replace(recipe.data, batch_size=options.batch)
    distil = Distillation(teacher=options.teacher, steps=STUDENT_STEPS, teacher_steps=options.teacher_steps)
    train(
        replace(recipe, train=config, data=data, distil=distil),
        RunOptions(out=options.out, shards=(str(options.shards),), init=options.teacher),
    )  # fmt: skip
    many = STUDENT_STEPS * options.teacher_steps
    teacher, student = load(options.teacher), load(options.out)
    objects = read_objects(options.captures, teacher.system)
    ways = {
        f"teacher, {many} steps": scores(teacher, objects, many, options.references),
        f"teacher, {STUDENT_STEPS} steps": scores(teacher, objects, STUDENT_STEPS, options.references),
        f"student, {STUDENT_STEPS} steps": scores(student, objects, STUDENT_STEPS, options.references),
    }
    full = torch.cat([score.images for score in ways[f"teacher, {many} steps"]])
    lines = [
        f"`{options.recipe}`; the student: {options.steps} steps of {options.batch} scenes from its teacher's weights.",
        f"{len(objects)} objects, {options.references} references, 5 targets each, rendered alone, without guidance;",
        "PSNR in dB, means over images.",
        "",
        f"| | against the truth | against the teacher's images in {many} steps, same noise |",
        "|---|---|---|",
    ]
    for name, found in ways.items():
        images = torch.cat([score.images for score in found])
        truth = sum(score.mean("psnr") for score in found) / len(found)
        near = "" if images.equal(full) else f"{psnr(images, full).mean():.2f}"
        lines.append(f"| {name} | {truth:.2f} | {near} |")
    write_result("distillation", "Four steps after distillation", lines)


if __name__ == "__main__":
    main()
