"""Exponential moving average of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from kaleidoscene.training.distributed import settle


class Ema:
    """An fp32 average that follows the weights; the decay rises from 0.1 so that early weights are forgotten.

    Weights that are spread over processes have averages that are spread alike.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: p.detach().float().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after ``step`` steps."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = [p.detach().float() for p in model.parameters()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            list(self.weights.values()), current, 1 - decay
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights by parameter name."""
        return self.weights

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The model has the average for its weights, and its own again afterwards."""
        self._swap(model)
        try:
            yield
        finally:
            settle(model)
            self._swap(model)

    @torch.no_grad()
    def _swap(self, model: nn.Module) -> None:
        for name, p in model.named_parameters():
            own = p.detach().clone()
            p.copy_(self.weights[name])
            self.weights[name].copy_(own)
