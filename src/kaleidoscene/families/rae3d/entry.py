"""What the registry knows of 3DRAE."""

from dataclasses import replace
from pathlib import Path

from kaleidoscene.families.family import Family
from kaleidoscene.families.rae3d.ablations import ABLATIONS
from kaleidoscene.families.rae3d.checkpoint import read_settings
from kaleidoscene.families.rae3d.plan import plan
from kaleidoscene.families.rae3d.recipe import Rae3dRecipe
from kaleidoscene.families.rae3d.recipes import RECIPES, rae3d_nano
from kaleidoscene.families.rae3d.renderer import CAPABILITIES
from kaleidoscene.families.rae3d.system import load_system


def recipe_of(folder: Path) -> Rae3dRecipe:
    """Training that would go on from a checkpoint, with the habits of the small weights."""
    settings, habits = read_settings(folder), rae3d_nano()
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
