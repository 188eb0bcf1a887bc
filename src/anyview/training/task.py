"""What the trainer knows of a model: a batch goes in, named losses come out."""

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from anyview.data.views import Views


@runtime_checkable
class Task(Protocol):
    """Training of one family.

    Attributes:
        model: The network whose parameters are trained.
    """

    model: nn.Module

    def losses(self, views: Views, generator: torch.Generator) -> dict[str, Tensor]:
        """``"loss"`` is minimised, the others are logged; all randomness comes from ``generator``."""
        ...

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` that goes with the weights."""
        ...
