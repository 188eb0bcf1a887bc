"""What a number was taken under, and which views are references and which are targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras

SweepAxes = Literal["all", "x", "y", "z"]


@dataclass(frozen=True, eq=False)
class Split:
    """References of a scene, for every number of them, and the views to render.

    Attributes:
        references: Indices of views, by how many there are.
        targets: Indices of views; none of them is a reference.

    Raises:
        KaleidosceneError: A view is both.
    """

    references: dict[int, tuple[int, ...]]
    targets: tuple[int, ...]

    def __post_init__(self) -> None:
        for count, views in self.references.items():
            if both := sorted(set(views) & set(self.targets)):
                raise KaleidosceneError(f"With {count} references, view {both[0]} is a reference and a target.")
            if len(set(views)) != count:
                raise KaleidosceneError(f"{count} references were asked for, the list names {len(set(views))} views.")
        if len(set(self.targets)) < len(self.targets):
            twice = next(view for view in self.targets if self.targets.count(view) > 1)
            raise KaleidosceneError(f"View {twice} is twice in the list of targets.")
        if not self.targets:
            raise KaleidosceneError("There is no view to render: the list of targets is empty.")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """All that a score depends on beside the method; results are comparable only if theirs are equal.

    Attributes:
        benchmark: Its name.
        counts: Numbers of references N.
        image_size: ``(height, width)`` at which images are compared.
        field_of_view: Of the views that are compared, vertical, in degrees; images are cropped to it about their
            principal point, and where they show less, only what they show is scored.
        metrics: Names of the variants.
        joint: Whether the targets of a scene may see each other.
        background: What lies behind transparent pixels.
        scale_sweep: Factors on the distance of targets from a single reference, of which the best by the truth is
            reported as an oracle beside the score without it; empty for none.
        sweep_axes: What of the distance the factors are tried on: all of it, or its part along an axis of the
            reference camera (x right, y down, z forward).
        adherence: What estimates the cameras of the rendered views again; empty for nothing.
        note: What the split is, where it is not a published one.
    """

    benchmark: str
    counts: tuple[int, ...]
    image_size: tuple[int, int]
    field_of_view: float
    metrics: tuple[str, ...]
    joint: bool = False
    background: str = "white"
    scale_sweep: tuple[float, ...] = ()
    sweep_axes: tuple[SweepAxes, ...] = ("all",)
    adherence: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class FirstViews:
    """References are the first N views, targets fixed ones behind them.

    Attributes:
        name: For messages.
        views: Views a capture must have.
        targets: Which of them are rendered.
    """

    name: str
    views: int
    targets: tuple[int, ...]

    def split(self, views: int, counts: Sequence[int], where: str) -> Split:
        """The split of a capture of ``views`` views.

        Raises:
            KaleidosceneError: It has too few, or references would overlap with targets.
        """
        if views < self.views:
            raise KaleidosceneError(f"{where}: {views} views, protocol {self.name} needs {self.views}.")
        limit = self.targets[0]
        for count in counts:
            if not 1 <= count <= limit:
                raise KaleidosceneError(f"Protocol {self.name} takes 1 to {limit} references, got {count}.")
        return Split({count: tuple(range(count)) for count in counts}, self.targets)


ESCHERNET_GSO = FirstViews("eschernet-gso", 25, tuple(range(10, 25)))
"""25 random views an object; references are views 0..N-1, targets views 10..24 (method A.15)."""

ESCHERNET_RTMV = FirstViews("eschernet-rtmv", 20, tuple(range(10, 20)))
"""20 views a scene; references are views 0..N-1, targets views 10..19 (method A.15)."""


def hold_out(views: int, counts: Sequence[int], where: str, *, every: int = 8) -> Split:
    """Every eighth view is a target, from the first; references are spread evenly over the others, in their order.

    The choice of targets is that of Mip-NeRF 360 and 3D Gaussian splatting; that of references is ours.

    Raises:
        KaleidosceneError: There are too few other views.
    """
    targets = tuple(range(0, views, every))
    others = [view for view in range(views) if view % every]
    references = {}
    for count in counts:
        if not 1 <= count <= len(others):
            raise KaleidosceneError(
                f"{where}: {count} references were asked for, {len(others)} of {views} views are not held out."
            )
        # The middles of equal parts.
        references[count] = tuple(others[int((n + 0.5) * len(others) / count)] for n in range(count))
    return Split(references, targets)


def direction_cosines(references: Cameras, targets: Cameras) -> Float[Tensor, "targets refs"]:
    """Cosines of the angles between the directions from which cameras see the world's origin."""
    a = torch.nn.functional.normalize(references.centres, dim=-1)
    b = torch.nn.functional.normalize(targets.centres, dim=-1)
    return b @ a.mT


def nearest_reference(references: Cameras, targets: Cameras) -> Int[Tensor, " targets"]:
    """Index of the reference that sees the world's origin from the direction nearest to each target's."""
    return direction_cosines(references, targets).argmax(dim=-1)
