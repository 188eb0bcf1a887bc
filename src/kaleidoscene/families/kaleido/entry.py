"""What the registry knows of Kaleido."""

from pathlib import Path

from kaleidoscene.families.family import Family
from kaleidoscene.families.kaleido.checkpoint import read_settings
from kaleidoscene.families.kaleido.plan import KaleidoPlan
from kaleidoscene.families.kaleido.recipes import RECIPES, KaleidoRecipe, kaleido_nano
from kaleidoscene.families.kaleido.recipes.ablations import ABLATIONS
from kaleidoscene.families.kaleido.renderer import CAPABILITIES
from kaleidoscene.families.kaleido.system import load_system


def recipe_of(folder: Path) -> KaleidoRecipe:
    """Training that would go on from a checkpoint, with the habits of the default weights."""
    settings, habits = read_settings(folder), kaleido_nano()
    return KaleidoRecipe(settings=settings, data=habits.data, train=habits.train, synthetic=habits.synthetic)


FAMILY = Family(
    load=load_system,
    plan=lambda folder: KaleidoPlan(read_settings(folder)),
    recipe_of=recipe_of,
    recipes=RECIPES,
    capabilities=CAPABILITIES,
    ablations=ABLATIONS,
)
