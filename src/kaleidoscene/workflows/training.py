"""A recipe becomes a run; models go by their names, and held-out captures are scored meanwhile."""

from __future__ import annotations

from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.held_out import validation
from kaleidoscene.training.recipe import Recipe
from kaleidoscene.training.run import Finished, RunOptions
from kaleidoscene.training.run import train as train_run


def train(recipe: Recipe, options: RunOptions) -> Finished:
    """Train a recipe of any family in a folder, or go on; see :func:`kaleidoscene.training.run.train`."""
    return train_run(recipe, options, resolve=resolve, validation=validation)
