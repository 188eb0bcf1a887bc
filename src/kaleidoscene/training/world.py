"""The processes of a run and the few numbers they exchange; quick to import, since checkpoints are read with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: Number of this process.
        size: How many there are.
        device: Where this process computes.
        mesh: How the weights lie on them; None for a process on its own.
        view_ranks: Processes that share the views of a scene; they are neighbours.
        view_group: Those that this one shares with; None where nothing is shared.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    mesh: DeviceMesh | None = None
    view_ranks: int = 1
    view_group: Any = None

    @property
    def view_rank(self) -> int:
        """Number of this process among those that share its scenes."""
        return self.rank % self.view_ranks

    @property
    def scene_rank(self) -> int:
        """Number of this process's share of the scenes."""
        return self.rank // self.view_ranks

    @property
    def scene_ranks(self) -> int:
        """How many shares of the scenes of a step there are."""
        return self.size // self.view_ranks

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes what is written once."""
        return self.rank == 0

    def sums(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Sums over all processes, where they are computed; nothing waits for them. Every process must call it."""
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers

    def largest(self, numbers: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Likewise the greatest."""
        if self.size > 1:
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        return numbers

    def agree(self, value: Any) -> Any:
        """The value that the first process has; every process must call it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        """The values of all processes, by rank; every process must call it."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            dist.barrier()


def launched_processes() -> int:
    """How many processes torchrun (or Slurm with its variables) has started; 1 on its own."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_rank() -> int:
    """Number of this process among those that were started together."""
    return int(os.environ.get("RANK", "0"))
