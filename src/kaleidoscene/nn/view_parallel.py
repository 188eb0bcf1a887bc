"""Views of a scene spread over processes: attention across them exchanges windows by one all-to-all each way.

What concerns one view alone (embedding, attention within it, feed-forward layers) stays where the view is. For
attention across views every process gives its views' tokens away and gets the tokens of all views that lie in some
windows; what comes out goes back the same way. Nothing is computed twice, and no process ever holds the keys of all
windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.nn.windows import Windows


@dataclass(frozen=True, eq=False)
class ViewGroup:
    """The processes that have the views of the same scenes.

    Attributes:
        processes: Their group; None is the default one.
        rank: Number of this process among them.
        size: How many there are.
        views: Of a scene, over all of them.
    """

    processes: Any
    rank: int
    size: int
    views: int

    @property
    def own(self) -> range:
        """The views that this process has: as many as the others, or one more."""
        return _share(self.views, self.rank, self.size)

    def own_windows(self, windows: Windows) -> SomeWindows:
        """The windows whose attention this process computes.

        Raises:
            ValueError: There are fewer windows than processes.
        """
        count = windows.counts[0] * windows.counts[1]
        if count < self.size:
            raise ValueError(
                f"Views are spread over {self.size} processes by windows, and there are {count} of them: take smaller "
                "windows, larger images, or fewer processes a scene."
            )
        return SomeWindows(windows, _share(count, self.rank, self.size))

    def gather_views(
        self, windows: Windows, *parts: Float[Tensor, "batch own_views tokens heads _"]
    ) -> list[Float[Tensor, "batch views window_tokens heads _"]]:
        """All views' tokens of this process's windows, from its own views' tokens of all windows."""
        self.own_windows(windows)  # there are enough
        cut = torch.cat([windows.cut(part).flatten(-2) for part in parts], dim=-1)
        batch, _, count, tokens, channels = cut.shape
        shares = [_share(count, rank, self.size) for rank in range(self.size)]
        sent = [cut[:, :, share.start : share.stop].reshape(-1) for share in shares]
        mine, of_views = len(shares[self.rank]), [_share(self.views, rank, self.size) for rank in range(self.size)]
        got = self._exchange(sent, [batch * len(views_of) * mine * tokens * channels for views_of in of_views])
        whole = torch.cat(
            [x.view(batch, len(views_of), mine * tokens, channels) for x, views_of in zip(got, of_views, strict=True)],
            dim=1,
        )
        widths = [part.shape[-2] * part.shape[-1] for part in parts]
        return [x.unflatten(-1, tuple(part.shape[-2:])) for x, part in zip(whole.split(widths, -1), parts, strict=True)]

    def scatter_views(
        self, windows: Windows, x: Float[Tensor, "batch views window_tokens heads dim"]
    ) -> Float[Tensor, "batch own_views tokens heads dim"]:
        """Inverse of :meth:`gather_views`: this process's own views, all their windows."""
        batch, _, _, heads, dim = x.shape
        count, tokens = windows.counts[0] * windows.counts[1], windows.window[0] * windows.window[1]
        sent, mine = [], len(self.own)
        for rank in range(self.size):
            views = _share(self.views, rank, self.size)
            sent.append(x[:, views.start : views.stop].reshape(-1))
        shares = [_share(count, rank, self.size) for rank in range(self.size)]
        got = self._exchange(sent, [batch * mine * len(share) * tokens * heads * dim for share in shares])
        cut = [y.view(batch, mine, len(share), tokens, heads, dim) for y, share in zip(got, shares, strict=True)]
        return windows.join(torch.cat(cut, dim=2))

    def _exchange(self, parts: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Give part n to process n; get what every process has for this one, of these sizes."""
        out = _AllToAll.apply(torch.cat(list(parts)), [len(part) for part in parts], list(sizes), self.processes)
        assert isinstance(out, Tensor)
        return list(out.split(list(sizes)))


def _share(count: int, rank: int, size: int) -> range:
    """The part of ``range(count)`` of one of ``size`` processes."""
    each, more = divmod(count, size)
    first = rank * each + min(rank, more)
    return range(first, first + each + (rank < more))


class _AllToAll(torch.autograd.Function):
    """``all_to_all_single``; its derivative is the exchange the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sent: list[int], received: list[int], group: Any) -> Tensor:
        ctx.sizes = (received, sent, group)
        out = x.new_empty(sum(received))
        dist.all_to_all_single(out, x.contiguous(), received, sent, group)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        sent, received, group = ctx.sizes
        out = grads[0].new_empty(sum(received))
        dist.all_to_all_single(out, grads[0].contiguous(), received, sent, group)
        return out, None, None, None


@dataclass(frozen=True)
class SomeWindows:
    """Some windows of a partition, with the layout that attention takes.

    Attributes:
        windows: All of them.
        chosen: Which, in their order.
    """

    windows: Windows
    chosen: range

    def partition(
        self, x: Float[Tensor, "batch views window_tokens heads dim"]
    ) -> Float[Tensor, "batch_windows heads views_window dim"]:
        """As :meth:`Windows.partition`, of tokens that come window by window."""
        b, v, _, heads, dim = x.shape
        x = x.view(b, v, len(self.chosen), -1, heads, dim).permute(0, 2, 4, 1, 3, 5)
        return x.reshape(b * len(self.chosen), heads, -1, dim)

    def merge(
        self, x: Float[Tensor, "batch_windows heads views_window dim"], batch: int
    ) -> Float[Tensor, "batch views window_tokens heads dim"]:
        """Inverse of :meth:`partition`."""
        heads, dim = x.shape[1], x.shape[3]
        tokens = self.windows.window[0] * self.windows.window[1]
        x = x.reshape(batch, len(self.chosen), heads, -1, tokens, dim).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(batch, x.shape[1], -1, heads, dim)

    def mask(
        self, visible: Bool[Tensor, "batch q_views k_views"] | None, views: tuple[int, int], device: torch.device
    ) -> Bool[Tensor, "batch_windows 1 queries keys"] | None:
        """As :meth:`Windows.mask`."""
        mask = self.windows.mask(visible, views, device)
        if mask is None:
            return None
        count = self.windows.counts[0] * self.windows.counts[1]
        return mask.unflatten(0, (-1, count))[:, self.chosen.start : self.chosen.stop].flatten(0, 1)
