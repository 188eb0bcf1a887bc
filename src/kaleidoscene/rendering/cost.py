"""What rendering will take, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

from kaleidoscene.rendering.ordering import RenderPlan


@dataclass(frozen=True)
class Cost:
    """Of one call or several; a family may know more and extend it.

    Attributes:
        parameters: Of the network.
        flops: Floating-point operations.
        memory: Peak bytes beyond the weights.
        cache: Bytes of kept keys and values (0 without).
        shared: Operations, of all, that further calls for views of the same scene need no more: its references are
            known, or it is drawn.
    """

    parameters: int
    flops: int
    memory: int
    cache: int
    shared: int = 0

    def followed_by(self, other: Cost, *, same_scene: bool = False) -> Cost:
        """Of this and another call one after the other, which may be for more views of the same scene."""
        return replace(
            self, flops=self.flops + other.flops - (other.shared if same_scene else 0),
            memory=max(self.memory, other.memory), cache=max(self.cache, other.cache),
        )  # fmt: skip

    def seconds(self, speed: float, device: str) -> float:
        """Time here.

        Args:
            speed: Operations a second that a transformer layer reaches (:func:`kaleidoscene.machine.measure_speed`).
            device: Where it runs.
        """
        del device
        return self.flops / speed

    @property
    def remark(self) -> str:
        """What else takes time, as words after the number of operations; empty for nothing."""
        return ""


@runtime_checkable
class Plan(Protocol):
    """A model without its weights: what can be told of a request from a configuration alone."""

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        ...

    @property
    def method_note(self) -> dict[str, Any]:
        """How it makes its views, as plain values."""
        ...

    @property
    def default_plan(self) -> RenderPlan:
        """Which targets go into which call where nobody asks for another plan."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether views that became references count as such (:func:`cost_of_calls`)."""
        ...

    def with_image_size(self, image_size: tuple[int, int]) -> Plan:
        """The same with views of another ``(height, width)``.

        Raises:
            ValueError: There are no such views.
        """
        ...

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> Plan:
        """The same with other sampling; None keeps its own.

        Raises:
            ValueError: There is no such sampling.
        """
        ...

    def cost(
        self,
        references: int,
        targets: int,
        *,
        independent: bool = False,
        precision: str = "fp32",
    ) -> Cost:
        """Cost of rendering ``targets`` new views in one call.

        Args:
            references: N.
            targets: M.
            independent: Every target alone.
            precision: fp32, bf16 or fp16.
        """
        ...


@runtime_checkable
class CostOfCall(Protocol):
    """What one call costs: ``cost`` of a :class:`Plan` or of a system."""

    def __call__(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        """Of rendering ``targets`` new views."""
        ...


def cost_of_calls(call: CostOfCall, references: int, targets: int, plan: RenderPlan, *, remembers: bool = True) -> Cost:
    """Cost of all calls of a plan, one after the other.

    Args:
        call: Cost of one.
        references: N, as they are given.
        targets: M.
        plan: Which targets go into which call; views become references where it says so.
        remembers: Whether views that became references count as such; a model that goes the way of what was given
            does not care.

    Raises:
        ValueError: There are no targets.
    """
    if targets < 1:
        raise ValueError(f"There is nothing to render: {targets} targets.")
    chunk, grows = plan.in_one_call(targets), plan.mode == "autoregressive"
    whole: Cost | None = None
    for first in range(0, targets, chunk):
        known = max(references, min(references + first, plan.max_references)) if grows and remembers else references
        cost = call(known, min(chunk, targets - first), independent=plan.mode == "independent")
        whole = cost if whole is None else whole.followed_by(cost, same_scene=not grows)
    assert whole is not None
    return whole


@dataclass(frozen=True)
class PlainPlan:
    """Of a model of one size that samples nothing.

    Attributes:
        image_size: ``(height, width)`` of what it renders.
        cost_of: From numbers of references and targets and the size of images to the cost of a call.
        remembers: Whether views that became references count as such.
    """

    image_size: tuple[int, int]
    cost_of: Callable[[int, int, tuple[int, int]], Cost]
    remembers: bool = True
    default_plan = RenderPlan(mode="independent")

    @property
    def method_note(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def with_image_size(self, image_size: tuple[int, int]) -> PlainPlan:
        """The same with views of another ``(height, width)``.

        Raises:
            ValueError: They are no whole number of tokens.
        """
        other = replace(self, image_size=image_size)
        if min(image_size) < 1:
            raise ValueError(f"Views of {image_size[0]}x{image_size[1]} are none.")
        other.cost(1, 1)  # which knows the grid
        return other

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> PlainPlan:
        """Itself.

        Raises:
            ValueError: Sampling is asked for.
        """
        if steps is not None or guidance is not None:
            raise ValueError("This model does not sample: it has neither steps nor guidance.")
        return self

    def cost(
        self,
        references: int,
        targets: int,
        *,
        independent: bool = False,
        precision: str = "fp32",
    ) -> Cost:
        """Cost of a call; see :class:`Plan`."""
        del independent, precision
        return self.cost_of(references, targets, self.image_size)
