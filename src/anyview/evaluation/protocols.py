"""Which views are references and which are targets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras


@dataclass(frozen=True)
class Protocol:
    """An evaluation on captures of a fixed number of views.

    Attributes:
        name: Recorded with every number.
        views: Views a capture must have.
        targets: Which of them are rendered; references are views 0 to N - 1.
    """

    name: str
    views: int
    targets: tuple[int, ...]


ESCHERNET_GSO = Protocol("eschernet-gso", 25, tuple(range(10, 25)))
"""25 random views an object; references are views 0..N-1, targets views 10..24 (method A.15)."""


def check_references(protocol: Protocol, counts: list[int]) -> None:
    """Raise if references would overlap with targets.

    Raises:
        AnyViewError: A count is not in 1..first target.
    """
    limit = protocol.targets[0]
    for count in counts:
        if not 1 <= count <= limit:
            raise AnyViewError(f"Protocol {protocol.name} takes 1 to {limit} references, got {count}.")


def nearest_reference(references: Cameras, targets: Cameras) -> Int[Tensor, " targets"]:
    """Index of the reference that sees the world's origin from the direction nearest to each target's."""
    a = torch.nn.functional.normalize(references.centres, dim=-1)
    b = torch.nn.functional.normalize(targets.centres, dim=-1)
    return (b @ a.mT).argmax(dim=-1)
