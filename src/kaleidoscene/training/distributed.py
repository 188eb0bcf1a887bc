"""Many processes, one run: joining them, spreading the weights over them, and the few numbers they exchange.

The engine is PyTorch's: torchrun starts the processes, FSDP2 (``fully_shard``) spreads weights, gradients and optimiser
states. ``ddp`` is the same engine on a mesh whose shards are whole: every process holds all weights and gradients are
averaged.
"""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.network import network_of, parts_of
from kaleidoscene.training.world import World, launched_processes

_COMPILED_CASES = 64


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
    if size % config.view_parallel:
        raise KaleidosceneError(
            f"{size} processes cannot share scenes in groups of {config.view_parallel} (--train.view-parallel)."
        )
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    kind = torch.device(config.device).type
    device = f"cuda:{local}" if kind == "cuda" else kind
    if kind == "cuda":
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=timedelta(seconds=config.timeout))
    group = None
    if config.view_parallel > 1:
        shape = (size // config.view_parallel, config.view_parallel)
        mesh = init_device_mesh(kind, shape, mesh_dim_names=("scenes", "views"))
        group = _patient(mesh, config).get_group("views")
    return World(rank, size, device, _patient(_layout(config, kind, size), config), config.view_parallel, group)


def _patient(mesh: DeviceMesh, config: TrainConfig) -> DeviceMesh:
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
        model: A :class:`kaleidoscene.training.network.Network`.
        world: From :func:`join_world`.
        config: Precision and sharding.
        initialise: Fills one part of the model with first weights; the model itself without its parts, where it has
            parameters of its own.

    Raises:
        TypeError: The model is no such network.
    """
    network = network_of(model)
    on_meta = any(p.is_meta for p in model.parameters())
    parts = dict(parts_of(model)) if on_meta else {}
    blank = {name: copy.deepcopy(part) for name, part in parts.items()}
    if on_meta and list(model.parameters(recurse=False)):
        parts[""], blank[""] = model, _without_parts(model)
    if config.compile:
        # Numbers of references and targets vary from step to step, and each of the cases 1, few and many is compiled
        # apart; beyond the limit, 8 by default, a block would go on uncompiled.
        torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, _COMPILED_CASES)
        for unit in network.units().values():
            unit.compile(dynamic=None)
    if world.mesh is not None:
        _shard(model, world.mesh, config)
    if not on_meta:
        model.to(world.device)
        return
    model.to_empty(device=world.device)
    torch.manual_seed(config.seed)
    for name, part in parts.items():
        whole = blank.pop(name).to_empty(device="cpu")
        initialise(whole)
        assign(part, dict(whole.named_parameters()))


def _without_parts(model: nn.Module) -> nn.Module:
    """A copy that has the parameters of the root alone, such as learned tokens."""
    bare = copy.copy(model)
    bare._modules = {}
    bare._parameters = {name: copy.deepcopy(p) for name, p in model._parameters.items()}
    return bare


def _shard(model: nn.Module, mesh: DeviceMesh, config: TrainConfig) -> None:
    gathered = None
    if config.gather_precision == "compute" and config.precision != "fp32":
        gathered = torch.float16 if config.precision == "fp16" else torch.bfloat16
    # Inputs are left alone: the residual stream between blocks stays fp32.
    policy = MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32, cast_forward_inputs=False)
    network = network_of(model)
    # Nobody writes in place into what a unit returns.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    for unit in network.units().values():
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    forwards = network.other_forwards  # the sharded class is another
    whole = fully_shard(model, mesh=mesh, mp_policy=policy)
    # A micro-batch without references leaves parts of a network alone that those of other processes use.
    whole.set_reduce_scatter_unused_params(True)
    for name in forwards:
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
