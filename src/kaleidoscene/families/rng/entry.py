"""What the registry knows of RnG."""

from dataclasses import replace
from pathlib import Path

from kaleidoscene.families.family import Family
from kaleidoscene.families.rng.ablations import ABLATIONS
from kaleidoscene.families.rng.checkpoint import read_settings
from kaleidoscene.families.rng.plan import plan
from kaleidoscene.families.rng.recipe import RngRecipe
from kaleidoscene.families.rng.recipes import RECIPES, rng_nano
from kaleidoscene.families.rng.renderer import CAPABILITIES
from kaleidoscene.families.rng.system import load_system


def recipe_of(folder: Path) -> RngRecipe:
    """Training that would go on from a checkpoint, with the habits of the small weights."""
    settings, habits = read_settings(folder), rng_nano()
    assert habits.synthetic is not None
    synthetic = replace(habits.synthetic, image_size=settings.image_size)
    return replace(habits, settings=settings, synthetic=synthetic)


FAMILY = Family(
    load=load_system,
    plan=lambda folder: plan(read_settings(folder)),
    recipe_of=recipe_of,
    recipes=RECIPES,
    capabilities=CAPABILITIES,
    ablations=ABLATIONS,
)
