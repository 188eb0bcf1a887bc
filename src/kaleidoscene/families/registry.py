"""All model families; a new one is a folder beside this file and a line here."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING

from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.baselines import BASELINES, baseline_capabilities
from kaleidoscene.families.ablation import Ablation
from kaleidoscene.families.checkpoints import family_of, shipped_weights
from kaleidoscene.families.family import Family
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.capabilities import require as require_of
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.rendering.system import System
from kaleidoscene.training.recipe import Recipe

if TYPE_CHECKING:
    from kaleidoscene.families.film.interpolator import Interpolator


class _Families(MutableMapping[str, Family]):
    """Families by name; each is imported when it is asked for, so that nobody waits for those that are not needed."""

    def __init__(self, *names: str) -> None:
        self._families: dict[str, Family | None] = dict.fromkeys(names)

    def __getitem__(self, name: str) -> Family:
        family = self._families[name]
        if family is None:
            family = self._families[name] = importlib.import_module(f"kaleidoscene.families.{name}").FAMILY
        return family

    def __setitem__(self, name: str, family: Family) -> None:
        self._families[name] = family

    def __delitem__(self, name: str) -> None:
        del self._families[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._families)

    def __len__(self) -> int:
        return len(self._families)


FAMILIES = _Families("kaleido", "rng", "rae3d", "dit3d")
_INTERPOLATOR = "film"
"""Trained as the families are; it puts frames between frames and renders no cameras, so that it is none of them."""
BASELINE = "baseline:"
"""Baselines go by this before their name, beside models."""


def shipped_models() -> tuple[str, ...]:
    """Names of the weights in the package that render views."""
    return tuple(path.name for path in shipped_weights() if family_of(path) in FAMILIES)


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
    if name == _INTERPOLATOR:
        raise KaleidosceneError(
            f"{folder}: puts frames between frames and renders no cameras: 'kaleidoscene interpolate'."
        )
    if name not in FAMILIES:
        raise unknown_name(f"family in {folder / 'config.json'}:", name, FAMILIES)
    return FAMILIES[name]


def _recipes_of(name: str) -> Mapping[str, Callable[[], Recipe]]:
    if name == _INTERPOLATOR:
        return importlib.import_module(f"kaleidoscene.families.{name}").RECIPES
    return FAMILIES[name].recipes


def find_recipe(name: str) -> Recipe:
    """A training run by name.

    Raises:
        KaleidosceneError: There is none; the nearest name is given.
    """
    # Those that are named as the recipe begins come first: the others need not be imported.
    for trained in sorted((*FAMILIES, _INTERPOLATOR), key=lambda of: not name.startswith(f"{of}-")):
        recipes = _recipes_of(trained)
        if name in recipes:
            return recipes[name]()
    raise unknown_name("recipe", name, recipe_names())


def recipe_names() -> list[str]:
    """Names of all recipes, family by family."""
    return [recipe for name in (*FAMILIES, _INTERPOLATOR) for recipe in _recipes_of(name)]


def load_interpolator(name: str | Path, device: str) -> Interpolator:
    """A network that puts frames between frames.

    Args:
        name: Shipped weights, a checkpoint or run folder, or a hub id.
        device: Where it computes.

    Raises:
        KaleidosceneError: There is none of that name, or it is of another family.
    """
    return importlib.import_module(f"kaleidoscene.families.{_INTERPOLATOR}").load_interpolator(name, device)


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
    for name in (*FAMILIES, _INTERPOLATOR):
        recipes = _recipes_of(name).items()
        lines = [f"  {recipe:<40}{(make.__doc__ or '').splitlines()[0]}" for recipe, make in recipes]
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
