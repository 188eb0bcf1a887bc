"""What a rendering or a training run will take, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.api import Model
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.machine import measure_speed
from kaleidoscene.memory import available_bytes
from kaleidoscene.nn.precision import chosen
from kaleidoscene.rendering.cost import Cost, cost_of_calls
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.rendering.system import Routed
from kaleidoscene.training.cost import Placement
from kaleidoscene.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a recipe is to be trained on."""

    processes: int = 1
    """GPUs, one process each."""
    shard_size: int | None = None
    """Processes that share one copy of the weights; by default all (fsdp) or as the recipe says."""
    view_parallel: int | None = None
    """Processes that share the views of a scene; by default as the recipe says."""
    peak: float = 989.0
    """Peak of one GPU in TFLOP/s (an H100 in half precision: 989)."""
    memory: float = 80.0
    """Memory of one GPU in GiB."""
    utilisation: float = 0.4
    """Share of the peak that is reached."""


@dataclass(frozen=True)
class TrainingPlan:
    """What training a recipe takes.

    Attributes:
        scenes: Of a step.
        parts: Micro-batches of each process.
        micro_batch: Scenes of one of them.
        view_ranks: Processes that share the views of a scene.
        shards: Processes that share one copy of the weights.
        tokens: Of a step, mean over the shapes of batches.
        flops: Likewise.
        memory: Bytes of a process, of the largest shape.
        state: Bytes of it that are weights, gradients, optimiser and average.
        seconds: Of a step.
        days: Of the whole run.
    """

    scenes: int
    parts: int
    micro_batch: int
    view_ranks: int
    shards: int
    tokens: float
    flops: float
    memory: int
    state: int
    seconds: float
    days: float


def plan_training(recipe: Recipe, hardware: Hardware) -> TrainingPlan:
    """What training a recipe takes on some hardware.

    Raises:
        KaleidosceneError: Its batch cannot be cut for so many processes.
    """
    processes = hardware.processes
    if hardware.shard_size is not None and not 1 <= hardware.shard_size <= max(processes, 1):
        raise KaleidosceneError(f"--training.shard-size must be from 1 to the processes, got {hardware.shard_size}.")
    if processes < 1 or not 0 < hardware.utilisation <= 1 or min(hardware.peak, hardware.memory) <= 0:
        raise KaleidosceneError(
            "--training needs at least one process, a positive peak and memory, and a utilisation in (0, 1]."
        )
    train, shapes = recipe.train, recipe.batches.shapes
    view_ranks = hardware.view_parallel or train.view_parallel
    if view_ranks < 1 or processes % view_ranks:
        raise KaleidosceneError(f"{processes} processes cannot share scenes in groups of {view_ranks}.")
    ranks = processes // view_ranks
    parts = train.accumulate or recipe.batches.parts(ranks)
    recipe.batches.check_cut(ranks, parts)
    shards = {"none": 1, "ddp": 1, "hybrid": train.shard_size or 1}.get(train.sharding, processes)
    half = chosen(train.precision, train.device) != "fp32" and train.gather_precision == "fp32"
    placement = Placement(
        processes, hardware.shard_size or shards, parts, train.activation_checkpointing, half, view_ranks
    )
    costs = recipe.training_costs(placement)
    weights = [shape.weight / sum(shape.weight for shape in shapes) for shape in shapes]
    flops = sum(cost.flops * weight for cost, weight in zip(costs, weights, strict=True))
    seconds = flops / (processes * hardware.peak * 1e12 * hardware.utilisation)
    return TrainingPlan(
        scenes=shapes[0].batch_size, parts=parts, micro_batch=shapes[0].batch_size // ranks // parts,
        view_ranks=view_ranks, shards=placement.shards,
        tokens=sum(cost.tokens * weight for cost, weight in zip(costs, weights, strict=True)),
        flops=flops, memory=max(cost.state_bytes + cost.activation_bytes for cost in costs), state=costs[0].state_bytes,
        seconds=seconds, days=seconds * train.steps / 86400,
    )  # fmt: skip


def describe_training(recipe: Recipe, plan: TrainingPlan, hardware: Hardware) -> list[str]:
    """A plan as lines for users."""
    spread = f", the views of each over {plan.view_ranks} processes" if plan.view_ranks > 1 else ""
    lines = [
        f"training: {recipe.train.steps:,} steps of {plan.scenes} scenes, {plan.parts} micro-batches of "
        f"{plan.micro_batch} a process{spread}",
        f"  tokens a step  {plan.tokens:,.0f}",
        f"  operations     {plan.flops / 1e15:,.4g} PFLOP a step, {plan.flops * recipe.train.steps:.3g} FLOP in all",
        f"  memory         {plan.memory / 2**30:,.1f} GiB a process, {plan.state / 2**30:,.1f} of it weights, "
        f"gradients, optimiser and average over {plan.shards} shards (estimate)",
        f"  time           {plan.seconds:,.3g} s a step, {plan.days:,.3g} days on {hardware.processes} x "
        f"{hardware.peak:g} TFLOP/s at {hardware.utilisation:.0%}",
    ]
    if recipe.remark:
        lines.append(f"                 {recipe.remark}")
    if plan.memory > hardware.memory * 2**30:
        lines.append(
            f"  too large      for {hardware.memory:g} GiB a process (--training.memory): smaller micro-batches "
            "(--data.share-counts), more shards, views over processes (--training.view-parallel), or activation "
            "checkpointing"
        )
    return lines


def describe_request(cost: Cost, references: int, targets: int, *, device: str, precision: str) -> list[str]:
    """The cost of a request as lines for users."""
    speed, free = measure_speed(device, precision), available_bytes(device)
    remark = f", {cost.remark}" if cost.remark else ""
    memory, cache = cost.memory / 2**20, cost.cache / 2**20
    return [
        f"{references} references -> {targets} views:",
        f"  operations     {cost.flops / 1e9:,.1f} GFLOP",
        f"  memory         {memory:,.0f} MiB beyond the weights, {cache:,.1f} MiB of it cache",
        f"  free           {'unknown' if free is None else f'{free / 2**20:,.0f} MiB'}",
        f"  estimated      {cost.seconds(speed, device):.2f} s at the {speed / 1e9:,.0f} GFLOP/s that a transformer "
        f"layer reaches here{remark}",
    ]


def describe_rendering(
    model: Model, references: int, targets: int, plan: RenderPlan, *, device: str, precision: str
) -> str:
    """What a rendering will take, call by call, as a line for users."""
    remembers = not isinstance(model.system, Routed)  # goes the way of what was given, in every chunk anew
    whole = cost_of_calls(model.system.cost, references, targets, plan, remembers=remembers)
    free = available_bytes(device)
    room = "unknown" if free is None else f"{free / 2**20:,.0f} MiB"
    return (
        f"{targets} views from {references} references: {whole.flops / 1e9:,.1f} GFLOP, "
        f"about {whole.seconds(measure_speed(device, precision), device):.1f} s here; "
        f"{whole.memory / 2**20:,.0f} MiB beyond the weights, free: {room}"
    )
