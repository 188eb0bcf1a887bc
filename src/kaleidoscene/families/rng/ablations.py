"""RnG's ablations as rows of a table (Table 3 of the paper, without what needs VGGT's weights)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kaleidoscene.families.ablation import AblationRow, each_alone, short_runs
from kaleidoscene.families.rng.recipe import RngRecipe
from kaleidoscene.families.rng.recipes import rng_nano
from kaleidoscene.families.rng.system import load_system


def _network(**changes: Any) -> Callable[[RngRecipe], RngRecipe]:
    return lambda recipe: replace(
        recipe, settings=replace(recipe.settings, model=replace(recipe.settings.model, **changes))
    )


ROWS: tuple[AblationRow, ...] = (
    AblationRow("", "causal", _network(), chosen=True),
    AblationRow("1", "full-attention", _network(attention="full")),
    AblationRow("2", "no-camera-head", _network(camera=None)),
)
"""Each changed alone; the paper's row from scratch is the first one here, where nothing has VGGT's weights."""

ABLATIONS = {"rng": each_alone(ROWS, lambda: short_runs(rng_nano()), load_system)}
"""Studies of this family, by name."""
