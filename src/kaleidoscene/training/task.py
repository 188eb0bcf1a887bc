"""What the trainer knows of a model: a batch goes in, named losses come out."""

from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from kaleidoscene.datasets.views import Views


@runtime_checkable
class Task(Protocol):
    """Training of one family.

    Attributes:
        model: The network whose parameters are trained; it may have been built on the meta device.
    """

    model: nn.Module

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """``"loss"`` is minimised, the others are logged: means over the views that count.

        All that is random about a scene comes from ``seed`` and its place in the run (``views.numbers``), so that a
        batch may be cut in any way.
        """
        ...

    def weight(self, views: Views) -> float:
        """How many views the losses of this batch are means over."""
        ...

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the model."""
        ...

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` that goes with the weights."""
        ...
