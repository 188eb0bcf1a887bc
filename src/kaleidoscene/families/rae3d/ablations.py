"""Choices of 3DRAE as rows of a table: how many tokens, the noise on them, and what is ours beside the paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kaleidoscene.families.ablation import AblationRow, each_alone, short_runs
from kaleidoscene.families.rae3d.recipe import Rae3dRecipe
from kaleidoscene.families.rae3d.recipes import rae3d_nano_images
from kaleidoscene.families.rae3d.system import load_system


def _same(recipe: Rae3dRecipe) -> Rae3dRecipe:
    return recipe


def _without_noise(recipe: Rae3dRecipe) -> Rae3dRecipe:
    return replace(recipe, loss=replace(recipe.loss, noise=0.0))


def _changed(recipe: Rae3dRecipe, **changes: Any) -> Rae3dRecipe:
    return replace(recipe, settings=replace(recipe.settings, model=replace(recipe.settings.model, **changes)))


ROWS: tuple[AblationRow, ...] = (
    AblationRow("", "tokens-128", _same, chosen=True),
    AblationRow("1", "tokens-64", lambda recipe: _changed(recipe, tokens=64)),
    AblationRow("2", "tokens-256", lambda recipe: _changed(recipe, tokens=256)),
    AblationRow("3", "no-noise", _without_noise),
    AblationRow("4", "full-decoder", lambda recipe: _changed(recipe, decoder="full")),
    AblationRow("5", "no-places", lambda recipe: _changed(recipe, located=False)),
)
"""Each changed alone. Table 3 of the paper varies tokens and encoders; rows 4 and 5 undo what is ours."""


def nano_scale() -> Rae3dRecipe:
    """``rae3d-nano-images`` with 128 tokens, in short runs."""
    return _changed(short_runs(rae3d_nano_images()), tokens=128)


ABLATIONS = {"rae3d": each_alone(ROWS, nano_scale, load_system)}
"""Studies of this family, by name."""
