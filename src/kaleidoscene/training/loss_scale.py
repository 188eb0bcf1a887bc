"""The loss scale of training in fp16, kept on the host: a step reads its numbers once, and this decides by them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class LossScale:
    """Multiplies losses so that small gradients survive in half precision; it halves when a gradient overflows.

    The rules and the stored state are those of ``torch.amp.GradScaler``, which reads a number of its own from the
    device for every optimiser.

    Args:
        scale: At first.
        interval: Steps without overflow after which it doubles.
    """

    least = 1.0
    """Below it, it is not half precision that overflows."""

    def __init__(self, scale: float = 2.0**16, interval: int = 2000) -> None:
        self.scale, self.interval = scale, interval
        self._growth, self._backoff, self._since = 2.0, 0.5, 0

    @torch.no_grad()
    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients by the scale."""
        if gradients:
            torch._foreach_mul_(list(gradients), 1.0 / self.scale)  # pyright: ignore[reportPrivateImportUsage]

    def update(self, *, finite: bool) -> None:
        """After a step: lower after an overflow, higher after long peace."""
        self._since = self._since + 1 if finite else 0
        if not finite:
            self.scale *= self._backoff
        elif self._since == self.interval:
            self.scale, self._since = self.scale * self._growth, 0

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {
            "scale": self.scale, "growth_factor": self._growth, "backoff_factor": self._backoff,
            "growth_interval": self.interval, "_growth_tracker": self._since,
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.scale, self._growth, self._backoff = state["scale"], state["growth_factor"], state["backoff_factor"]
        self.interval, self._since = state["growth_interval"], state["_growth_tracker"]
