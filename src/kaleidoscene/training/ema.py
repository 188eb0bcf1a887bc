"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn


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

    @torch.no_grad()
    def swap(self, model: nn.Module) -> None:
        """Exchange the average and the weights of the model; a second call puts them back."""
        for name, p in model.named_parameters():
            own = p.detach().clone()
            p.copy_(self.weights[name])
            self.weights[name].copy_(own)
