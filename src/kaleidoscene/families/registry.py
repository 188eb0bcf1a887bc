"""All model families; a new one is a folder beside this file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from kaleidoscene.errors import unknown_name
from kaleidoscene.evaluation.baselines import BASELINES, baseline_capabilities
from kaleidoscene.families import dit3d, film, kaleido, rae3d, rng
from kaleidoscene.families.ablation import Ablation
from kaleidoscene.families.checkpoints import family_of
from kaleidoscene.families.family import Family
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.capabilities import require as require_of
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.rendering.system import System
from kaleidoscene.training.recipe import Recipe

FAMILIES: dict[str, Family] = {
    "kaleido": kaleido.FAMILY,
    "rng": rng.FAMILY,
    "rae3d": rae3d.FAMILY,
    "dit3d": dit3d.FAMILY,
}
RECIPES: dict[str, Mapping[str, Callable[[], Recipe]]] = {
    **{name: family.recipes for name, family in FAMILIES.items()},
    "film": film.RECIPES,
}
"""All that can be trained; film puts frames between frames and renders no cameras, so that it is no family above."""
load_interpolator = film.load_interpolator
BASELINE = "baseline:"
"""Baselines go by this before their name, beside models."""


def load_folder(folder: Path, device: str, precision: str) -> System:
    """Load a checkpoint folder of any family.

    Raises:
        KaleidosceneError: It is no checkpoint, of an unknown family, or does not load strictly.
    """
    return _family(folder).load(folder, device, precision)


def plan_of(folder: Path) -> Plan:
    """What requests to a checkpoint cost, from its configuration alone.

    Raises:
        KaleidosceneError: It is no checkpoint, or of an unknown family.
    """
    return _family(folder).plan(folder)


def recipe_of(folder: Path) -> Recipe:
    """Training that would go on from a checkpoint.

    Raises:
        KaleidosceneError: It is no checkpoint, or of an unknown family.
    """
    return _family(folder).recipe_of(folder)


def _family(folder: Path) -> Family:
    name = family_of(folder)
    if name not in FAMILIES:
        raise unknown_name(f"family in {folder / 'config.json'}:", name, FAMILIES)
    return FAMILIES[name]


def find_recipe(name: str) -> Recipe:
    """A training run by name.

    Raises:
        KaleidosceneError: There is none; the nearest name is given.
    """
    for recipes in RECIPES.values():
        if name in recipes:
            return recipes[name]()
    raise unknown_name("recipe", name, [recipe for recipes in RECIPES.values() for recipe in recipes])


def find_ablation(name: str) -> Ablation:
    """A study by name.

    Raises:
        KaleidosceneError: There is none.
    """
    found = {study: ablation for family in FAMILIES.values() for study, ablation in family.ablations.items()}
    if name not in found:
        raise unknown_name("suite", name, found)
    return found[name]


def describe_recipes() -> str:
    """All recipes with what they are, family by family."""
    groups = []
    for name, recipes in RECIPES.items():
        lines = [f"  {recipe:<40}{(make.__doc__ or '').splitlines()[0]}" for recipe, make in recipes.items()]
        groups.append("\n".join([f"{name}:", *lines]))
    return "\n\n".join(groups)


def require(capability: str, what: str, method: str, capabilities: Capabilities) -> None:
    """Refuse what a method cannot do in one sentence that names those that can, families and baselines.

    Args:
        capability: Field of :class:`kaleidoscene.rendering.capabilities.Capabilities`.
        what: What asks for it.
        method: Who is asked.
        capabilities: What that can do.

    Raises:
        KaleidosceneError: It cannot.
    """
    known = {name: family.capabilities for name, family in FAMILIES.items()}
    known |= {f"{BASELINE}{name}": baseline_capabilities(name) for name in BASELINES}
    require_of(capability, what, method, capabilities, known)
