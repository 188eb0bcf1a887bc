"""The key/value cache of reference views: what a causal model keeps of a scene."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerCache:
    """One layer of a :class:`KVCache`; blocks see this only, so that one compiled block serves all layers."""

    keys: Float[Tensor, "batch capacity tokens kv_heads key_dim"]
    values: Float[Tensor, "batch capacity tokens kv_heads dim"]
    num_views: int

    def write(
        self,
        k: Float[Tensor, "batch views tokens kv_heads key_dim"],
        v: Float[Tensor, "batch views tokens kv_heads dim"],
    ) -> None:
        """Write new views behind those that are there; :meth:`KVCache.advance` makes them count.

        Raises:
            ValueError: They do not fit.
        """
        end = self.num_views + k.shape[1]
        if end > self.keys.shape[1]:
            raise ValueError(f"The cache holds {self.keys.shape[1]} views, {end} were to be written.")
        self.keys[:, self.num_views : end] = k
        self.values[:, self.num_views : end] = v

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values ``(batch, views, tokens, kv_heads, dim)`` of the views that count."""
        return self.keys[:, : self.num_views], self.values[:, : self.num_views]


@dataclass(eq=False)
class KVCache:
    """Keys and values of reference views for every layer of attention across views, as queries will meet them.

    The layout is fixed: ``(layers, batch, views, tokens, kv_heads, dim)``, allocated once for ``capacity`` views and
    filled in order.
    """

    keys: Float[Tensor, "layers batch capacity tokens kv_heads key_dim"]
    values: Float[Tensor, "layers batch capacity tokens kv_heads dim"]
    num_views: int = 0

    @classmethod
    def allocate(
        cls,
        *,
        layers: int,
        batch: int,
        capacity: int,
        tokens: int,
        kv_heads: int,
        dim: int,
        key_dim: int | None = None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> KVCache:
        """An empty cache; ``key_dim`` is ``dim`` unless keys carry more channels than values."""
        shape = (layers, batch, capacity, tokens, kv_heads)
        keys = torch.empty(*shape, key_dim or dim, dtype=dtype, device=device)
        return cls(keys, torch.empty(*shape, dim, dtype=dtype, device=device))

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes: layers * batch * capacity * tokens * kv_heads * (key_dim + dim) numbers."""
        return self.keys.nbytes + self.values.nbytes

    def layer(self, number: int) -> LayerCache:
        """What one layer of attention reads and writes."""
        return LayerCache(self.keys[number], self.values[number], self.num_views)

    def advance(self, views: int) -> None:
        """Count ``views`` more views, which all layers have written."""
        self.num_views += views

    def expand(self, times: int) -> KVCache:
        """The same cache for ``times`` independent copies of each scene, next to each other (for batch 1 no copy)."""
        if self.keys.shape[1] == 1:
            shape = (-1, times, -1, -1, -1, -1)
            return KVCache(self.keys.expand(shape), self.values.expand(shape), self.num_views)
        keys, values = self.keys.repeat_interleave(times, 1), self.values.repeat_interleave(times, 1)
        return KVCache(keys, values, self.num_views)
