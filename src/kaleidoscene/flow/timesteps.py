"""Distributions of the training time t (t = 1 is noise; Kaleido section 3.2.3, Table 4 (viii))."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.choices import check_choices

MODE_SCALE_RANGE = (-1.0, 2 / (math.pi - 2))


def mode(u: Float[Tensor, "*batch"], scale: float) -> Float[Tensor, "*batch"]:
    """SD3's mode map ``1 - u - s (cos^2(pi u / 2) - 1 + u)``, monotone for -1 <= s <= 1.752."""
    return 1 - u - scale * (torch.cos(math.pi / 2 * u) ** 2 - 1 + u)


def shift(t: Float[Tensor, "*batch"], sigma: float) -> Float[Tensor, "*batch"]:
    """Kaleido's modulation ``m(t, sigma) = sigma t / (1 + (sigma - 1) t)``, towards noise for sigma > 1."""
    return sigma * t / (1 + (sigma - 1) * t)


@dataclass(frozen=True, kw_only=True)
class TimestepSampler:
    """How training times are drawn: a base distribution, then the shift.

    The defaults are Kaleido's final choice, mode(0.8) shifted by 3.
    """

    distribution: Literal["uniform", "logit_normal", "mode"] = "mode"
    mode_scale: float = 0.8
    shift: float = 3.0

    def __post_init__(self) -> None:
        check_choices(self)
        low, high = MODE_SCALE_RANGE
        if not low <= self.mode_scale <= high:
            raise ValueError(f"mode_scale must be in [{low}, {high:.3f}], got {self.mode_scale}.")
        if self.shift <= 0:
            raise ValueError(f"shift must be positive, got {self.shift}.")

    def sample(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, " count"]:
        """Draw times in [0, 1] (on the CPU)."""
        if self.distribution == "logit_normal":
            base = torch.randn(count, generator=generator).sigmoid()
        else:
            base = torch.rand(count, generator=generator)
        if self.distribution == "mode":
            base = mode(base, self.mode_scale)
        return shift(base, self.shift)
