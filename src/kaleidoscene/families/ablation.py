"""What an ablation of a family is made of: rows as changes of a recipe, in an order, beside published numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from kaleidoscene.errors import KaleidosceneError
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


def short_runs(recipe: Any) -> Any:
    """A recipe in batches of 16 scenes whose rate falls within 300 steps: a row takes minutes on a CPU."""
    old = recipe.options
    optim = replace(old.train.optim, warmup=30, cooldown=0.6)
    train = replace(old.train, steps=300, ema_decay=0.98, optim=optim)
    return recipe.changed(replace(old, data=replace(old.data, batch_size=16), train=train))


def each_alone(
    rows: tuple[AblationRow, ...], scale: Callable[[], Recipe], load: Callable[[Path, str], System]
) -> Ablation:
    """A study of models that answer in one pass, at one small scale, each row changed by itself.

    Args:
        rows: The first is what the others are compared with.
        scale: The recipe they change.
        load: Checkpoint and device to a system.
    """
    return Ablation(
        rows=rows, scales={"nano": scale}, recipes=lambda base, features: {row.name: row.change(base) for row in rows},
        with_sampling_steps=_takes_no_steps, system=lambda checkpoint, recipe, device: load(checkpoint, device),
        network=_network_of,
    )  # fmt: skip


def _takes_no_steps(recipe: Any, steps: int) -> Any:
    del recipe
    raise KaleidosceneError(f"--sampling-steps {steps}: this suite's models answer in one pass, without steps.")


def _network_of(system: System) -> nn.Module:
    network = getattr(system.renderer, "model", None)
    assert isinstance(network, nn.Module)
    return network
