"""Which scene stands at which place of a training run: arithmetic alone, so that nothing has to be saved to go on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.randomness import seeded

# Draws are made in blocks of this many, each from its own seed: any of them can be made without those before it.
_BLOCK = 1 << 16


class WeightedDraws:
    """An endless sequence of draws with fixed weights, and how often each outcome came up before any place of it."""

    def __init__(self, weights: Sequence[float], *seed: int) -> None:
        total = sum(weights)
        if not weights or not all(0 <= weight < float("inf") for weight in weights) or total <= 0:
            raise KaleidosceneError(f"Weights must be finite, at least 0 and not all 0, got {list(weights)}.")
        self._shares, self._seed = [weight / total for weight in weights], seed
        self._block: tuple[int, np.ndarray] | None = None
        self._before = [np.zeros(len(weights), dtype=np.int64)]

    def _draws(self, block: int) -> np.ndarray:
        if self._block is None or self._block[0] != block:
            generator = np.random.default_rng([*self._seed, block])
            self._block = (block, generator.choice(len(self._shares), size=_BLOCK, p=self._shares))
        return self._block[1]

    def __getitem__(self, place: int) -> int:
        block, at = divmod(place, _BLOCK)
        return int(self._draws(block)[at])

    def before(self, place: int) -> np.ndarray:
        """How often each outcome came up at places ``0 .. place - 1``."""
        block, at = divmod(place, _BLOCK)
        outcomes = len(self._shares)
        while len(self._before) <= block:
            counts = np.bincount(self._draws(len(self._before) - 1), minlength=outcomes)
            self._before.append(self._before[-1] + counts)
        return self._before[block] + np.bincount(self._draws(block)[:at], minlength=outcomes)


class Mixture:
    """A stream of scenes from several sources: each by its weight, and every scene of a source once in its epoch.

    Args:
        sizes: Scenes of each source.
        weights: Relative shares of the sources in the stream.
        seed: Another seed is another order.

    Raises:
        KaleidosceneError: A source is empty, or the weights are no weights.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], seed: int) -> None:
        if len(sizes) != len(weights) or min(sizes, default=0) < 1:
            raise KaleidosceneError(
                f"Every source needs a weight and scenes, got {len(weights)} weights for {list(sizes)}."
            )
        self.sizes, self._seed = tuple(sizes), seed
        self._draws = WeightedDraws(weights, seed, 4) if len(sizes) > 1 else None
        self._orders: dict[int, tuple[int, Tensor]] = {}

    def __getitem__(self, place: int) -> tuple[int, int]:
        """Source and scene at a place of the stream."""
        if self._draws is None:
            return 0, self._in_order(0, place)
        source = self._draws[place]
        return source, self._in_order(source, int(self._draws.before(place)[source]))

    def _in_order(self, source: int, turn: int) -> int:
        epoch, place = divmod(turn, self.sizes[source])
        if source not in self._orders or self._orders[source][0] != epoch:
            order = torch.randperm(self.sizes[source], generator=seeded(self._seed, 2, source, epoch))
            self._orders[source] = (epoch, order)
        return int(self._orders[source][1][place])
