"""What the registry knows of 3DDiT."""

from dataclasses import replace
from pathlib import Path

from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.dit3d.checkpoint import read_settings
from kaleidoscene.families.dit3d.plan import Dit3dPlan
from kaleidoscene.families.dit3d.recipe import Dit3dRecipe
from kaleidoscene.families.dit3d.recipes import RECIPES, dit3d_nano
from kaleidoscene.families.dit3d.renderer import CAPABILITIES
from kaleidoscene.families.dit3d.system import load_system
from kaleidoscene.families.family import Family
from kaleidoscene.families.rae3d.checkpoint import read_settings as read_autoencoder


def recipe_of(folder: Path) -> Dit3dRecipe:
    """Training that would go on from a checkpoint, with the habits of the small weights."""
    settings, habits = read_settings(folder), dit3d_nano()
    assert habits.synthetic is not None
    synthetic = replace(habits.synthetic, image_size=settings.image_size)
    return replace(habits, settings=settings, synthetic=synthetic)


def plan_of(folder: Path) -> Dit3dPlan:
    """What requests to a checkpoint cost, with its autoencoder's share."""
    settings = read_settings(folder)
    return Dit3dPlan(settings, read_autoencoder(resolve(settings.autoencoder)))


FAMILY = Family(
    load=load_system,
    plan=plan_of,
    recipe_of=recipe_of,
    recipes=RECIPES,
    capabilities=CAPABILITIES,
)
