"""Muon for many matrices and many processes: whole matrices are orthogonalised, each by one process.

``torch.optim.Muon`` takes one matrix after the other, and of sharded ones it exchanges every product of the iteration.
Here matrices of one shape go through it together, and sharded ones cross the network twice: to the process that
orthogonalises them, and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard

_AT_ONCE = 2**26
"""Numbers of matrices that go through the iteration together: 128 MiB, and some times as much in between."""


class Muon(torch.optim.Muon):
    """The update of ``torch.optim.Muon``, with its state, and its options but for other adjustments of the rate."""

    half = True
    """Whether the iteration runs in bf16, as PyTorch's; fp32 is for processors that do not multiply in it."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyright: ignore
        """Update all matrices that have a gradient.

        Raises:
            TypeError: A matrix is sharded in another way than by its rows, or the rate is to be adjusted otherwise.
        """
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            if group["adjust_lr_fn"] not in (None, "original"):
                raise TypeError(f"Muon adjusts its rate as 'original' does, got {group['adjust_lr_fn']!r}.")
            params = [p for p in group["params"] if p.grad is not None]
            updates = [self._momentum(p, group) for p in params]
            whole = [n for n, p in enumerate(params) if not isinstance(p, DTensor)]
            sharded = [n for n, p in enumerate(params) if isinstance(p, DTensor)]
            made = dict(zip(whole, orthogonalised([updates[n] for n in whole], group), strict=True))
            if sharded:
                exchange = Exchange.of([params[n] for n in sharded])
                owned = orthogonalised(exchange.gather([updates[n] for n in sharded]), group)
                made |= dict(zip(sharded, exchange.scatter(owned, updates[sharded[0]]), strict=True))
            for n, p in enumerate(params):
                stretch = math.sqrt(max(1.0, p.shape[0] / p.shape[1]))
                local = _local(p)
                local.mul_(1 - group["lr"] * group["weight_decay"])
                local.add_(made[n], alpha=-group["lr"] * stretch)
        return loss

    def _momentum(self, p: Tensor, group: dict) -> Tensor:
        """What is orthogonalised of this process's part of a matrix."""
        assert p.grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p.grad, memory_format=torch.preserve_format)
        gradient, buffer, share = _local(p.grad), _local(state["momentum_buffer"]), group["momentum"]
        buffer.lerp_(gradient, 1 - share)
        update = gradient.lerp(buffer, share) if group["nesterov"] else buffer
        return update.bfloat16() if self.half else update.float()


def orthogonalised(matrices: Sequence[Tensor], group: dict) -> list[Tensor]:
    """Newton-Schulz iteration on matrices of either type; those of one shape, however they lie, go through it together.

    Args:
        matrices: To be orthogonalised.
        group: With ``ns_coefficients``, ``ns_steps`` and ``eps``.
    """
    out: list[Tensor] = list(matrices)
    alike: dict[tuple[int, int], list[int]] = {}
    for n, x in enumerate(matrices):
        alike.setdefault((min(x.shape), max(x.shape)), []).append(n)
    for (rows, columns), numbers in alike.items():
        together = max(1, _AT_ONCE // (rows * columns))
        for first in range(0, len(numbers), together):
            some = numbers[first : first + together]
            flat = torch.stack([matrices[n].mT if len(matrices[n]) > rows else matrices[n] for n in some])
            for n, x in zip(some, _iterated(flat, group), strict=True):
                out[n] = x.mT if len(matrices[n]) > rows else x
    return out


def _iterated(x: Tensor, group: dict) -> Tensor:
    a, b, c = group["ns_coefficients"]
    x = x / torch.stack([matrix.norm() for matrix in x])[:, None, None].clamp(min=group["eps"])
    for _ in range(group["ns_steps"]):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


@dataclass(frozen=True)
class Exchange:
    """Between parts of all matrices in every process, and whole matrices each in one.

    Attributes:
        group: The processes.
        shapes: Of the whole matrices.
        owners: Which process has each of them whole.
    """

    group: dist.ProcessGroup
    shapes: tuple[torch.Size, ...]
    owners: tuple[int, ...]

    @classmethod
    def of(cls, params: Sequence[Tensor]) -> Exchange:
        """For matrices that are sharded by their rows; work is spread evenly.

        Raises:
            TypeError: They are sharded in another way.
        """
        first = params[0]
        assert isinstance(first, DTensor)
        for p in params:
            assert isinstance(p, DTensor)
            sharded = [placement for placement in p.placements if placement.is_shard()]
            if p.device_mesh != first.device_mesh or sharded != [Shard(0)] or not p.placements[-1].is_shard():
                raise TypeError(f"Muon takes matrices that are sharded by rows over one mesh, got {p.placements}.")
        group = first.device_mesh.get_group(first.device_mesh.ndim - 1)
        return cls(group, tuple(p.shape for p in params), _spread([p.shape for p in params], group.size()))

    def gather(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The matrices of this process, whole, from everybody's parts of them."""
        ranks, mine = range(self.group.size()), self._of(self.group.rank())
        send = [[parts[n] for n in self._of(rank)] for rank in ranks]
        got = self._swap(send, [[self._part(n, rank) for n in mine] for rank in ranks], parts[0])
        return [torch.cat(pieces) for pieces in zip(*got, strict=True)]

    def scatter(self, matrices: Sequence[Tensor], like: Tensor) -> list[Tensor]:
        """The parts that this process has of all matrices, from the whole ones of everybody.

        Args:
            matrices: Those of this process.
            like: Anything of their kind and device; a process may have no matrix.
        """
        ranks, here = range(self.group.size()), self.group.rank()
        mine = self._of(here)
        cut = [x.split([self._part(n, rank)[0] for rank in ranks]) for n, x in zip(mine, matrices, strict=True)]
        send = [[pieces[rank] for pieces in cut] for rank in ranks]
        got = self._swap(send, [[self._part(n, here) for n in self._of(rank)] for rank in ranks], like)
        parts = {n: x for rank in ranks for n, x in zip(self._of(rank), got[rank], strict=True)}
        return [parts[n] for n in range(len(self.shapes))]

    def _swap(
        self, send: list[list[Tensor]], expected: list[list[tuple[int, int]]], like: Tensor
    ) -> list[list[Tensor]]:
        """Give every process its list, and get one of every process, of matrices of the shapes that are expected."""
        sent = torch.cat([like.new_empty(0), *(x.flatten() for some in send for x in some)])
        counts = [sum(rows * columns for rows, columns in shapes) for shapes in expected]
        out = like.new_empty(sum(counts))
        dist.all_to_all_single(out, sent, counts, [sum(x.numel() for x in some) for some in send], group=self.group)
        return [
            [x.view(shape) for x, shape in zip(flat.split([math.prod(s) for s in shapes]), shapes, strict=True)]
            for flat, shapes in zip(out.split(counts), expected, strict=True)
        ]

    def _of(self, rank: int) -> list[int]:
        return [n for n, owner in enumerate(self.owners) if owner == rank]

    def _part(self, n: int, rank: int) -> tuple[int, int]:
        """Shape of the part of a matrix that a process has."""
        rows, columns = self.shapes[n]
        return _rows(rows, rank, self.group.size()), columns


def _rows(rows: int, rank: int, size: int) -> int:
    """Of a matrix in a process: equal numbers, and fewer in the last ones."""
    equal = -(-rows // size)
    return min(equal, max(0, rows - rank * equal))


def _spread(shapes: Sequence[torch.Size], size: int) -> tuple[int, ...]:
    """Owners of matrices: the costliest first, each to whom has least to do."""
    owners, load = [0] * len(shapes), [0] * size
    cost = [min(shape) ** 2 * max(shape) for shape in shapes]
    for n in sorted(range(len(shapes)), key=lambda n: -cost[n]):
        owners[n] = min(range(size), key=load.__getitem__)
        load[owners[n]] += cost[n]
    return tuple(owners)


def _local(p: Tensor) -> Tensor:
    return p.to_local() if isinstance(p, DTensor) else p
