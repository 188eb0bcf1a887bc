"""What the trainer asks of a network beside being one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, cast, runtime_checkable

from torch import nn


@runtime_checkable
class Network(Protocol):
    """A network that can be trained by any number of processes, with any optimiser, under watch."""

    def units(self) -> Mapping[str, nn.Module]:
        """Its repeated parts in the order they run, by name.

        Each is compiled, spread over processes and recomputed on its own, and the health monitor listens to what
        leaves it. What is in none of them belongs to the root.
        """
        ...

    def muon_parameters(self) -> Sequence[str]:
        """Names of the matrices that Muon takes, where it is asked for; AdamW takes the rest."""
        ...

    @property
    def other_forwards(self) -> tuple[str, ...]:
        """Methods that compute with the weights beside ``forward``; sharded weights are gathered for them, too."""
        ...


def network_of(model: nn.Module) -> Network:
    """A model as a :class:`Network`.

    Raises:
        TypeError: It does not say what it must, or has no units.
    """
    name = type(model).__name__
    if not isinstance(model, Network):
        raise TypeError(
            f"{name} is no network that can be trained: it needs units, muon_parameters and other_forwards."
        )
    network = cast(Network, model)
    if not network.units():
        raise TypeError(f"{name} has no units: nothing of it could be spread, compiled or watched.")
    return network


def parts_of(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts that get their first weights one after the other: children, and the items of lists of them."""
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{number}", item) for number, item in enumerate(child))
        else:
            yield name, child
