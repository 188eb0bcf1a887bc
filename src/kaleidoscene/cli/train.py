"""kaleidoscene train: run a recipe, or go on with a run that was stopped."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import Interrupted, KaleidosceneError
from kaleidoscene.families.registry import describe_recipes, find_recipe
from kaleidoscene.training.recipe import Recipe
from kaleidoscene.training.run import RunOptions
from kaleidoscene.training.world import launched_rank
from kaleidoscene.workflows.training import train


@dataclass(frozen=True, kw_only=True)
class TrainOptions(RunOptions):
    """Train a recipe; the same command on the same folder goes on where it was."""

    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    if not argv or argv[0] in ("-h", "--help"):
        usage = "usage: kaleidoscene train RECIPE --out RUN [OPTIONS]     (RECIPE --help tells its options)"
        print(f"{usage}\n\n{describe_recipes()}")
        if not argv:
            raise KaleidosceneError("A recipe is missing.")
        return
    recipe, options = parse_run(argv)
    finished = train(recipe, options)
    if launched_rank() == 0:
        print(f"wrote {finished.checkpoint}")
        if finished.step < recipe.train.steps:
            why = "stopped by a signal" if finished.interrupted else "time is up"
            print(f"{why} after step {finished.step} of {recipe.train.steps}; the same command goes on.")
        if options.json:
            print_json({"checkpoint": str(finished.checkpoint), "steps": finished.step})
    if finished.interrupted:
        raise Interrupted


def parse_run(argv: list[str]) -> tuple[Recipe, TrainOptions]:
    """A recipe with what the command line changes of it, and where it runs."""
    recipe = find_recipe(argv[0])
    # The options of the verb and those of the recipe stand side by side, without a prefix.
    cls = _joined(type(recipe.options))
    default = cls(out=Path("runs") / argv[0], recipe=recipe.options)
    options = parse(cls, argv[1:], f"train {argv[0]}", default)
    try:
        return recipe.changed(options.recipe), options
    except KaleidosceneError:
        raise
    except ValueError as error:
        raise KaleidosceneError(str(error)) from error


def _joined(of_recipe: type[Any]) -> type[Any]:
    made = dataclasses.make_dataclass(
        "TrainOptions",
        [("recipe", Annotated[of_recipe, tyro.conf.arg(name="")])],
        bases=(TrainOptions,), frozen=True, kw_only=True,
    )  # fmt: skip
    made.__doc__ = TrainOptions.__doc__
    return made
