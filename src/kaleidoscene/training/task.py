"""What the trainer knows of a model: a batch goes in, named losses come out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from kaleidoscene.datasets.batch_config import Share
from kaleidoscene.datasets.views import Views
from kaleidoscene.rendering.system import System
from kaleidoscene.serialisation import to_plain


@runtime_checkable
class Task(Protocol):
    """Training of one family.

    Attributes:
        model: The network whose parameters are trained (a :class:`kaleidoscene.training.network.Network`); it may have
            been built on the meta device.
        watched: Name of the loss, positive and of one kind from the first step to the last, by whose means a run is
            told to diverge.
        settings: What its checkpoints say of themselves beside the weights, a frozen dataclass.
    """

    model: nn.Module
    watched: str

    @property
    def settings(self) -> Any:
        """What its checkpoints say of themselves."""
        ...

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """``"loss"`` is minimised, the others are logged: means over the views that count.

        All that is random about a scene comes from ``seed`` and its place in the run (``views.numbers``), so that a
        batch may be cut in any way.
        """
        ...

    def weight(self, views: Views) -> float:
        """How many views the losses of this batch are means over."""
        ...

    def tokens(self, views: Views) -> int:
        """Tokens that the network computes for this batch."""
        ...

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the model; of the model itself, to the parameters that no part has."""
        ...

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` that goes with the weights."""
        ...

    def system(self, model: nn.Module) -> System:
        """A network of this task as it stands, ready to render (for scores while training)."""
        ...


class PlainTask:
    """What most tasks have in common: targets count, pixels are tokens, settings describe a checkpoint.

    To be inherited from by those to whom that applies.
    """

    family: str
    settings: Any
    watched: str = "loss"

    def weight(self, views: Views) -> float:
        """Targets that are there."""
        if views.present is None:
            return float(views.images.shape[0] * (views.images.shape[1] - views.num_references))
        return float(views.present[:, views.num_references :].sum())

    def tokens(self, views: Views) -> int:
        """Pixels."""
        return views.images[:, :, 0].numel()

    def describe(self) -> dict[str, Any]:
        """Family and settings."""
        return {"family": self.family, "settings": to_plain(self.settings)}


@runtime_checkable
class SpreadsViews(Protocol):
    """A task whose network can have the views of a scene on several processes."""

    def spread(self, rank: int, size: int, group: Any) -> None:
        """Take this share of the views of every scene from now on.

        Args:
            rank: Number of this process among those that share a scene.
            size: How many they are.
            group: Of processes that exchange.

        Raises:
            KaleidosceneError: The network cannot.
        """
        ...


@runtime_checkable
class Batches(Protocol):
    """Training data: the batch of any step, cut among processes and micro-batches."""

    def loader(self, steps: range, *, workers: int, share: Share | None = None) -> Iterator[Views]:
        """Iterate over one process's micro-batches of ``steps``."""
        ...

    def parts(self, ranks: int) -> int:
        """Micro-batches a process needs, among so many processes."""
        ...

    def allowed_damage(self, step: int) -> float:
        """How many scenes may have been damaged by the end of a step."""
        ...
