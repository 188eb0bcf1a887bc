"""What a family of models says of itself: all that the rest of the program knows of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kaleidoscene.families.ablation import Ablation
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.rendering.system import System
from kaleidoscene.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family: how its checkpoints become something that renders, and how they are trained.

    Attributes:
        load: Folder, device and precision to a loaded checkpoint.
        plan: Folder of a checkpoint to what its requests cost, without its weights.
        recipe_of: Folder of a checkpoint to training that would go on from it.
        recipes: Its training runs by the name that the command line knows them by; the first line of a docstring
            tells what it is. A recipe makes the task of a run, and knows what training costs.
        capabilities: What all its models can do.
        ablations: Studies of its choices, by name.
    """

    load: Callable[[Path, str, str], System]
    plan: Callable[[Path], Plan]
    recipe_of: Callable[[Path], Recipe]
    recipes: Mapping[str, Callable[[], Recipe]]
    capabilities: Capabilities
    ablations: Mapping[str, Ablation] = field(default_factory=dict)
