"""Many processes, one run: joining them, spreading the weights over them, and the few numbers they exchange.

The engine is PyTorch's: torchrun starts the processes, FSDP2 (``fully_shard``) spreads weights, gradients and optimiser
states. ``ddp`` is the same engine on a mesh whose shards are whole: every process holds all weights and gradients are
averaged.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.config import TrainConfig

_COMPILED_CASES = 64


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: Number of this process.
        size: How many there are.
        device: Where this process computes.
        mesh: How the weights lie on them; None for a process on its own.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    mesh: DeviceMesh | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that prints and writes what is written once."""
        return self.rank == 0

    def totals(self, *values: float) -> list[float]:
        """Sums of the values over all processes; every process must call it."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, *values: float) -> list[float]:
        """Greatest of the values over all processes; every process must call it."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def _reduced(self, values: tuple[float, ...], how: Any) -> list[float]:
        if self.size == 1:
            return list(values)
        numbers = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers, how)
        return numbers.tolist()

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


def join_world(config: TrainConfig) -> World:
    """Join the processes that were started together.

    Raises:
        KaleidosceneError: They were started without a kind of sharding, or the group sizes do not fit.
    """
    size = launched_processes()
    if size == 1:
        return World(device=config.device)
    if config.sharding == "none":
        raise KaleidosceneError(
            f"{size} processes were started: say how they share, --train.sharding ddp, fsdp or hybrid."
        )
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    kind = torch.device(config.device).type
    device = f"cuda:{local}" if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=config.timeout))
    return World(rank, size, device, _mesh(config, kind, size))


def _mesh(config: TrainConfig, kind: str, size: int) -> DeviceMesh:
    mesh = _layout(config, kind, size)
    for group in mesh.get_all_groups():  # those within a mesh begin with PyTorch's own timeout
        group.set_timeout(timedelta(seconds=config.timeout))
    return mesh


def _layout(config: TrainConfig, kind: str, size: int) -> DeviceMesh:
    if config.sharding == "fsdp":
        return init_device_mesh(kind, (size,))
    within = 1 if config.sharding == "ddp" else config.shard_size or 1
    if size % within:
        raise KaleidosceneError(f"{size} processes cannot be cut into groups of {within} (shard_size).")
    return init_device_mesh(kind, (size // within, within), mesh_dim_names=("replicate", "shard"))


def leave_world() -> None:
    """Wait for the other processes: one that ended early would pull the connections from under them.

    The connections are not closed here: now and then a process was aborted while all closed theirs at once.
    :func:`kaleidoscene.cli.main.entry` ends a process of several without closing anything.
    """
    if dist.is_initialized():
        dist.barrier()


def place(model: nn.Module, world: World, config: TrainConfig, initialise: Callable[[nn.Module], None]) -> None:
    """Put a model where it is trained: on the device, and in a world of several spread over it.

    A model that was built on the meta device gets its first weights here, unit by unit, so that no process ever holds
    more than one whole unit beside its share; they are the same for any number of processes.

    Args:
        model: With ``blocks``.
        world: From :func:`join_world`.
        config: Precision and sharding.
        initialise: Fills one unit of the model with first weights.
    """
    on_meta = any(p.is_meta for p in model.parameters())
    units = dict(_units(model)) if on_meta else {}
    blank = {name: copy.deepcopy(unit) for name, unit in units.items()}
    if config.compile:
        # Numbers of references and targets vary from step to step, and each of the cases 1, few and many is compiled
        # apart; beyond the limit, 8 by default, a block would go on uncompiled.
        torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, _COMPILED_CASES)
        for block in model.blocks:  # pyright: ignore[reportGeneralTypeIssues]
            block.compile(dynamic=None)
    if world.mesh is not None:
        _shard(model, world.mesh, config)
    if not on_meta:
        model.to(world.device)
        return
    model.to_empty(device=world.device)
    torch.manual_seed(config.seed)
    for name, unit in units.items():
        whole = blank.pop(name).to_empty(device="cpu")
        initialise(whole)
        assign(unit, dict(whole.named_parameters()))


def _units(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The parts of a model that are filled one after the other: children, and the items of lists of them."""
    if list(model.parameters(recurse=False)):
        raise TypeError(f"{type(model).__name__} has parameters of its own; they must belong to a part of it.")
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{number}", item) for number, item in enumerate(child))
        else:
            yield name, child


def _shard(model: nn.Module, mesh: DeviceMesh, config: TrainConfig) -> None:
    gathered = None
    if config.gather_precision == "compute" and config.precision != "fp32":
        gathered = torch.float16 if config.precision == "fp16" else torch.bfloat16
    # Inputs are left alone: the residual stream between blocks stays fp32.
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in model.blocks:  # pyright: ignore[reportGeneralTypeIssues]
        fully_shard(block, mesh=mesh, mp_policy=policy)
    whole = fully_shard(model, mesh=mesh, mp_policy=policy)
    # A micro-batch without references leaves parts of a network alone that those of other processes use.
    whole.set_reduce_scatter_unused_params(True)
    for name in ("encode_references",):
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)


def settle(model: nn.Module) -> None:
    """Have the parameters lie in pieces again: outside of training a forward pass leaves those of the root whole."""
    if hasattr(model, "reshard"):
        model.reshard()  # pyright: ignore[reportCallIssue]


def set_gradient_reduction(model: nn.Module, reduce: bool) -> None:
    """Whether the next backward pass exchanges gradients; all but the last micro-batch of a step only add to them."""
    if hasattr(model, "set_requires_gradient_sync"):
        model.set_requires_gradient_sync(reduce)  # pyright: ignore[reportCallIssue]


@torch.no_grad()
def assign(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy whole tensors into the parameters of the same names, each process its share of them."""
    parameters = dict(module.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(like(tensor, parameters[name]))


def like(whole: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as the parameter lies: this process's share of it, without asking the others."""
    whole = whole.to(device=parameter.device, dtype=parameter.dtype)
    if not isinstance(parameter, DTensor):
        return whole
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def gathered(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may lie in pieces; every process must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
