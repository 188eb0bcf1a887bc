"""What an ablation of a family is made of: rows as changes of a recipe, in an order, beside published numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from kaleidoscene.rendering.system import System
from kaleidoscene.training.recipe import Recipe


@dataclass(frozen=True)
class AblationRow:
    """One row of a table.

    Attributes:
        decision: What it is about, such as a Roman number; ``""`` for the baseline.
        name: As on the command line.
        change: From the recipe of the choices before it to its own.
        paper: PSNR at 1->5, 5->1 and 5->5, as published; None for choices of our own.
        throughput: Relative training throughput as published.
        chosen: Whether later decisions build on it.
        needs: What it takes that a recipe alone does not have: ``features``, ``video``, or nothing.
        trains: Whether it needs weights of its own (an inference schedule does not).
    """

    decision: str
    name: str
    change: Callable[[Any], Any]
    paper: tuple[float, float, float] | None = None
    throughput: int | None = None
    chosen: bool = False
    needs: str = ""
    trains: bool = True


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A study that can be run at several scales.

    Attributes:
        rows: In the order of the table.
        scales: Recipes that give size, data and length, by name; the first is the default.
        recipes: The recipe of every row by its name, from one of the scales; the flag tells whether image features can
            be had.
        with_sampling_steps: A recipe whose views are scored with so many steps.
        system: Checkpoint, recipe and device to what renders as the recipe says.
        network: Of such a system, for the monitor of activations.
        published: What the published numbers are of.
    """

    rows: tuple[AblationRow, ...]
    scales: Mapping[str, Callable[[], Recipe]]
    recipes: Callable[[Any, bool], dict[str, Any]]
    with_sampling_steps: Callable[[Any, int], Any]
    system: Callable[[Path, Any, str], System]
    network: Callable[[System], nn.Module]
    published: str = ""
