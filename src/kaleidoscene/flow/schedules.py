"""Inference schedules: descending times from noise to data (Kaleido Table 4 (ix))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.flow.path import TIME_RANGE


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Which times a solver visits.

    Attributes:
        kind: ``linspace`` [1, 999], ``trailing`` (even strides from pure noise: 1000, 980, ... 20 for 50 steps) or
            ``linear_quadratic`` [1, 999].
        steps: Evaluations of the network (for Euler).
        threshold: Noise that the linear half of ``linear_quadratic`` removes: its first ``steps / 2`` steps are those
            of a linear schedule of ``steps / (2 threshold)`` steps. 0.5 is the linear schedule itself.
    """

    kind: Literal["linspace", "trailing", "linear_quadratic"] = "linear_quadratic"
    steps: int = 50
    threshold: float = 0.025

    def __post_init__(self) -> None:
        check_choices(self)
        if self.steps < 1:
            raise ValueError(f"A schedule needs at least one step, got {self.steps}.")
        if not 0 < self.threshold <= 0.5:
            raise ValueError(f"threshold must be in (0, 0.5], got {self.threshold}.")

    def times(self) -> Float[Tensor, " steps_and_1"]:
        """Times from the start of sampling down to 0, ``steps + 1`` of them, fp64."""
        low, high = TIME_RANGE
        if self.kind == "linspace":
            # [1, 999] names the steps of the clock that are visited; what is left after the last one is data.
            visited = torch.linspace(high, low, self.steps, dtype=torch.float64)
        elif self.kind == "trailing":
            # A stride of 20 on a clock of 1000, as the paper's [1, 980] implies with 50 steps. What is drawn is pure
            # noise, so that the first step starts at 1: one stride lower, as the range names, noise would stay.
            visited = 1 - torch.arange(self.steps, dtype=torch.float64) / self.steps
        else:
            return linear_quadratic(self.steps, self.threshold)
        return torch.cat([visited, visited.new_zeros(1)])


def linear_quadratic(steps: int, threshold: float) -> Float[Tensor, " steps_and_1"]:
    """Linear first half, quadratic second half, continuous with equal slope where they meet (Movie Gen; method A.9)."""
    if steps == 1:
        return torch.tensor([1.0, 0.0], dtype=torch.float64)
    linear = steps // 2
    quadratic = steps - linear
    i = torch.arange(steps, dtype=torch.float64)
    a = (linear - threshold * steps) / (linear * quadratic**2)
    b = threshold / linear - 2 * (linear - threshold * steps) / quadratic**2
    removed = torch.where(i < linear, i * threshold / linear, a * i**2 + b * i + a * linear**2)
    return torch.cat([1 - removed, removed.new_zeros(1)])
