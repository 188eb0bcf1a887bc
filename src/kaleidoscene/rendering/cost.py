"""What rendering will take, before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Cost:
    """Of one call or several; a family may know more and extend it.

    Attributes:
        parameters: Of the network.
        flops: Floating-point operations.
        memory: Peak bytes beyond the weights.
        cache: Bytes of kept keys and values (0 without).
    """

    parameters: int
    flops: int
    memory: int
    cache: int

    def followed_by(self, other: Cost) -> Cost:
        """Of this and another call one after the other."""
        return replace(
            self, flops=self.flops + other.flops, memory=max(self.memory, other.memory),
            cache=max(self.cache, other.cache),
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
        image_size: tuple[int, int] | None = None,
    ) -> Cost:
        """Cost of rendering ``targets`` new views in one call.

        Args:
            references: N.
            targets: M.
            independent: Every target alone.
            precision: fp32, bf16 or fp16.
            image_size: ``(height, width)``; by default :attr:`image_size`.
        """
        ...


@dataclass(frozen=True)
class PlainPlan:
    """Of a model of one size that samples nothing.

    Attributes:
        image_size: ``(height, width)`` of what it renders.
        cost_of: From numbers of references and targets and the size of images to the cost of a call.
    """

    image_size: tuple[int, int]
    cost_of: Callable[[int, int, tuple[int, int]], Cost]

    @property
    def method_note(self) -> dict[str, Any]:
        """Nothing."""
        return {}

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
        image_size: tuple[int, int] | None = None,
    ) -> Cost:
        """Cost of a call; see :class:`Plan`."""
        del independent, precision
        return self.cost_of(references, targets, image_size or self.image_size)
