"""Non-overlapping windows over the token grid, the same for all views (Kaleido section 3.2.1 (iv))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """A partition of a token grid into K x K windows; a window group holds those tokens of all views.

    Grids that K does not divide are padded below and to the right; padded tokens are masked.

    Attributes:
        grid: ``(rows, cols)`` of the token grid of one view.
        size: K, or None for one window over the whole grid (full attention).
    """

    grid: tuple[int, int]
    size: int | None

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of one window."""
        rows, cols = self.grid
        return (rows, cols) if self.size is None else (min(self.size, rows), min(self.size, cols))

    @property
    def counts(self) -> tuple[int, int]:
        """Windows along rows and columns."""
        return -(-self.grid[0] // self.window[0]), -(-self.grid[1] // self.window[1])

    @property
    def padding(self) -> tuple[int, int]:
        """Rows and columns added to the grid."""
        return self.counts[0] * self.window[0] - self.grid[0], self.counts[1] * self.window[1] - self.grid[1]

    def partition(
        self, x: Float[Tensor, "batch views tokens heads dim"]
    ) -> Float[Tensor, "batch_windows heads views_window dim"]:
        """Bring tokens to attention layout, one problem for each window group, views first."""
        b, v, _, heads, dim = x.shape
        (rows, cols), (down, right) = self.grid, self.padding
        x = x.reshape(b, v, rows, cols, heads, dim)
        if down or right:
            x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, right, 0, down))
        (ni, nj), (wi, wj) = self.counts, self.window
        x = x.view(b, v, ni, wi, nj, wj, heads, dim)
        return x.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(b * ni * nj, heads, v * wi * wj, dim)

    def merge(
        self, x: Float[Tensor, "batch_windows heads views_window dim"], batch: int
    ) -> Float[Tensor, "batch views tokens heads dim"]:
        """Inverse of :meth:`partition`."""
        (ni, nj), (wi, wj), (rows, cols) = self.counts, self.window, self.grid
        heads, dim = x.shape[1], x.shape[3]
        x = x.reshape(batch, ni, nj, heads, -1, wi, wj, dim).permute(0, 4, 1, 5, 2, 6, 3, 7)
        x = x.reshape(batch, -1, ni * wi, nj * wj, heads, dim)[:, :, :rows, :cols]
        return x.reshape(batch, x.shape[1], rows * cols, heads, dim)

    def cut(self, x: Float[Tensor, "batch views tokens *rest"]) -> Float[Tensor, "batch views windows window *rest"]:
        """Tokens window by window, each view for itself."""
        b, v, _, *rest = x.shape
        (rows, cols), (down, right), nothing = self.grid, self.padding, (0, 0) * len(rest)
        x = x.reshape(b, v, rows, cols, *rest)
        if down or right:
            x = torch.nn.functional.pad(x, (*nothing, 0, right, 0, down))
        (ni, nj), (wi, wj) = self.counts, self.window
        x = x.reshape(b, v, ni, wi, nj, wj, *rest).transpose(3, 4)
        return x.reshape(b, v, ni * nj, wi * wj, *rest)

    def join(self, x: Float[Tensor, "batch views windows window *rest"]) -> Float[Tensor, "batch views tokens *rest"]:
        """Inverse of :meth:`cut`."""
        b, v, _, _, *rest = x.shape
        (ni, nj), (wi, wj), (rows, cols) = self.counts, self.window, self.grid
        x = x.reshape(b, v, ni, nj, wi, wj, *rest).transpose(3, 4).reshape(b, v, ni * wi, nj * wj, *rest)
        return x[:, :, :rows, :cols].reshape(b, v, rows * cols, *rest)

    def mask(
        self, visible: Bool[Tensor, "batch q_views k_views"] | None, views: tuple[int, int], device: torch.device
    ) -> Bool[Tensor, "batch_windows 1 queries keys"] | None:
        """Token mask from the visibility of views and the padding; None where nothing is hidden.

        A padded query may see every key of its window group, so that its softmax stays defined; its output is cut off.
        """
        padded = any(self.padding)
        if visible is None and not padded:
            return None
        q_views, k_views = views
        (ni, nj), (wi, wj) = self.counts, self.window
        if visible is None:
            visible = torch.ones(1, q_views, k_views, dtype=torch.bool, device=device)
        per_view = wi * wj
        tokens = visible.repeat_interleave(per_view, 1).repeat_interleave(per_view, 2)
        tokens = tokens[:, None].expand(-1, ni * nj, -1, -1)
        if padded:
            inside = torch.ones(self.grid, dtype=torch.bool, device=device)
            inside = torch.nn.functional.pad(inside, (0, self.padding[1], 0, self.padding[0]))
            inside = inside.view(ni, wi, nj, wj).transpose(1, 2).reshape(ni * nj, per_view)
            real_key, real_query = inside.repeat(1, k_views)[:, None], inside.repeat(1, q_views)[:, :, None]
            tokens = (tokens & real_key) | ~real_query
        return tokens.reshape(-1, 1, q_views * per_view, k_views * per_view)
