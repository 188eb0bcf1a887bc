"""Runs of Kaleido as functions: the default weights, the paper's curriculum and every row of its ablation."""

from collections.abc import Callable

from kaleidoscene.families.kaleido.recipes.ablations import ABLATION_RECIPES
from kaleidoscene.families.kaleido.recipes.nano import (
    kaleido_debug,
    kaleido_nano,
    kaleido_nano_3d,
    kaleido_nano_32,
    kaleido_nano_128,
    kaleido_nano_default,
    kaleido_nano_mixed,
    kaleido_nano_places,
    kaleido_nano_refinement,
    kaleido_nano_reprojection,
    kaleido_nano_video,
)
from kaleidoscene.families.kaleido.recipes.paper import PAPER_RECIPES
from kaleidoscene.families.kaleido.recipes.recipe import KaleidoRecipe

RECIPES: dict[str, Callable[[], KaleidoRecipe]] = {
    "kaleido-debug": kaleido_debug,
    "kaleido-nano": kaleido_nano,
    "kaleido-nano-32": kaleido_nano_32,
    "kaleido-nano-video": kaleido_nano_video,
    "kaleido-nano-3d": kaleido_nano_3d,
    "kaleido-nano-128": kaleido_nano_128,
    "kaleido-nano-reprojection": kaleido_nano_reprojection,
    "kaleido-nano-default": kaleido_nano_default,
    "kaleido-nano-places": kaleido_nano_places,
    "kaleido-nano-refinement": kaleido_nano_refinement,
    "kaleido-nano-mixed": kaleido_nano_mixed,
    **PAPER_RECIPES,
    **ABLATION_RECIPES,
}
"""Every recipe by the name the command line knows it by."""

__all__ = ["RECIPES", "KaleidoRecipe", "kaleido_debug", "kaleido_nano", "kaleido_nano_32"]
