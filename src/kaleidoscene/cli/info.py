"""kaleidoscene info: what a request will cost, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro

from kaleidoscene.api import Model, check_device, resolve
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.cli.machine_speed import measure_speed, seconds_of_lookups
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.families.kaleido.checkpoint import read_settings
from kaleidoscene.families.kaleido.cost import Placement, training_cost
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.recipes import RECIPES, KaleidoRecipe
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.system import request_cost, token_grid
from kaleidoscene.memory import available_bytes
from kaleidoscene.rendering.ordering import RenderPlan


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a recipe is to be trained on."""

    processes: int = 1
    """GPUs, one process each."""
    shard_size: int | None = None
    """Processes that share one copy of the weights; by default all (fsdp) or as the recipe says."""
    peak: float = 989.0
    """Peak of one GPU in TFLOP/s (an H100 in half precision: 989)."""
    memory: float = 80.0
    """Memory of one GPU in GiB."""
    utilisation: float = 0.4
    """Share of the peak that is reached."""


@dataclass(frozen=True, kw_only=True)
class InfoOptions:
    """Parameters, operations, memory and time: of rendering M views from N references, or of training a recipe."""

    recipe: tyro.conf.Positional[str | None] = None
    """A recipe: what training it takes, and rendering with its network."""
    model: str = "default"
    """'default', a checkpoint or run folder, or a hub id, where no recipe is given."""
    training: Hardware = Hardware()
    image_size: tuple[int, int] | None = None
    """Height and width of the views; by default the model's."""
    references: int = 3
    targets: int = 24
    steps: int | None = None
    guidance: float | None = None
    independent: bool = False
    """Every target alone instead of all together."""
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(InfoOptions, argv, "info")
    for name in ("references", "targets"):
        if getattr(options, name) < 1:
            raise KaleidosceneError(f"--{name} must be at least 1, got {getattr(options, name)}.")
    check_device(options.device)
    settings = _settings(options)
    trained = None if options.recipe is None else describe_training(RECIPES[options.recipe](), options.training)
    cached = settings.model.cacheable
    number = 4 if options.precision == "fp32" else 2
    cost = request_cost(
        settings, options.references, options.targets, independent=options.independent, cached=cached,
        number_bytes=number, image_size=options.image_size,
    )  # fmt: skip
    speed = measure_speed(options.device, options.precision)
    seconds = cost.flops / speed + seconds_of_lookups(cost.lookups, options.device)
    free = available_bytes(options.device)
    h, w = options.image_size or settings.image_size
    print(f"{options.recipe or options.model}: kaleido, {cost.parameters / 1e6:.1f} M parameters, {h}x{w}")
    print(f"{options.references} references -> {options.targets} views:")
    print(f"  operations     {cost.flops / 1e9:,.1f} GFLOP")
    print(
        f"  memory         {cost.memory / 2**20:,.0f} MiB beyond the weights, {cost.cache / 2**20:,.1f} MiB of it cache"
    )
    print(f"  free           {'unknown' if free is None else f'{free / 2**20:,.0f} MiB'}")
    lookups = f", {cost.lookups / 1e6:,.0f} million lookups" if cost.lookups else ""
    print(
        f"  estimated      {seconds:.2f} s at the {speed / 1e9:,.0f} GFLOP/s that a transformer layer reaches here"
        f"{lookups}"
    )
    if options.json:
        print_json({
            "parameters": cost.parameters, "flops": cost.flops, "memory": cost.memory, "cache": cost.cache,
            "seconds": seconds, "training": trained,
        })  # fmt: skip


def describe_training(recipe: KaleidoRecipe, hardware: Hardware) -> dict[str, float]:
    """Print what training a recipe takes; returns the numbers.

    Raises:
        KaleidosceneError: Its batch cannot be cut for so many processes.
    """
    if hardware.shard_size is not None and not 1 <= hardware.shard_size <= max(hardware.processes, 1):
        raise KaleidosceneError(f"--training.shard-size must be from 1 to the processes, got {hardware.shard_size}.")
    if hardware.processes < 1 or not 0 < hardware.utilisation <= 1 or min(hardware.peak, hardware.memory) <= 0:
        raise KaleidosceneError(
            "--training needs at least one process, a positive peak and memory, and a utilisation in (0, 1]."
        )
    config, train = recipe.settings.model, recipe.train
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Kaleido(config).parameters())
    shapes = recipe.batches.shapes
    parts = train.accumulate or recipe.batches.parts(hardware.processes)
    recipe.batches.check_cut(hardware.processes, parts)
    shards = {"none": 1, "ddp": 1, "hybrid": train.shard_size or 1}.get(train.sharding, hardware.processes)
    half = train.precision != "fp32" and train.gather_precision == "fp32"
    placement = Placement(
        hardware.processes, hardware.shard_size or shards, parts, train.activation_checkpointing, half
    )  # fmt: skip
    costs = [
        training_cost(
            config, parameters, views=recipe.data.sampling.of(shape.views).mean_views(), batch=shape.batch_size,
            grid=token_grid(recipe.settings, shape.image_size or recipe.settings.image_size), placement=placement,
            reprojection_stride=recipe.loss.reprojection_stride,
        )
        for shape in shapes
    ]  # fmt: skip
    weights = [shape.weight / sum(shape.weight for shape in shapes) for shape in shapes]
    tokens = sum(cost.tokens * weight for cost, weight in zip(costs, weights, strict=True))
    flops = sum(cost.flops * weight for cost, weight in zip(costs, weights, strict=True))
    memory = max(cost.state_bytes + cost.activation_bytes for cost in costs)
    seconds = flops / (hardware.processes * hardware.peak * 1e12 * hardware.utilisation)
    days = seconds * train.steps / 86400
    micro = shapes[0].batch_size // hardware.processes // parts
    print(
        f"training: {train.steps:,} steps of {shapes[0].batch_size} scenes, {parts} micro-batches of {micro} a process"
    )
    print(f"  tokens a step  {tokens:,.0f}")
    print(f"  operations     {flops / 1e15:,.4g} PFLOP a step, {flops * train.steps:.3g} FLOP in all")
    print(f"  memory         {memory / 2**30:,.1f} GiB a process, {costs[0].state_bytes / 2**30:,.1f} of it weights, "
          f"gradients, optimiser and average over {placement.shards} shards (estimate)")  # fmt: skip
    print(f"  time           {seconds:,.3g} s a step, {days:,.3g} days on {hardware.processes} x {hardware.peak:g} "
          f"TFLOP/s at {hardware.utilisation:.0%}")  # fmt: skip
    if config.feature_channels or recipe.settings.codec.kind == "kl":
        print("                 without autoencoder and DINOv2, which latents made ahead (kaleidoscene convert) spare")
    if memory > hardware.memory * 2**30:
        print(f"  too large      for {hardware.memory:g} GiB a process (--training.memory): smaller micro-batches "
              "(--data.share-counts), more shards, or activation checkpointing")  # fmt: skip
    return {"tokens": tokens, "flops": flops, "memory": float(memory), "seconds": seconds, "days": days}


def _settings(options: InfoOptions) -> KaleidoSettings:
    """What is asked about, with the sampling that is asked for."""
    if options.recipe is not None:
        if options.recipe not in RECIPES:
            raise unknown_name("recipe", options.recipe, RECIPES)
        settings = RECIPES[options.recipe]().settings
    else:
        settings = read_settings(resolve(options.model))
    sampling = settings.sampling
    try:
        if options.steps is not None:
            sampling = replace(sampling, schedule=replace(sampling.schedule, steps=options.steps))
    except ValueError as error:
        raise KaleidosceneError(str(error)) from error
    if options.guidance is not None:
        sampling = replace(sampling, guidance=options.guidance)
    return replace(settings, sampling=sampling)


def describe_cost(model: Model, references: int, targets: int, plan: RenderPlan, *, device: str, precision: str) -> str:
    """What a rendering will take, as a line for users."""
    chunk = min(targets, plan.chunk or (1 if plan.mode == "autoregressive" else targets))
    flops = memory = lookups = 0
    for first in range(0, targets, chunk):
        grown = references + first if plan.mode == "autoregressive" else references
        known = max(references, min(grown, plan.max_references))
        independent = plan.mode == "independent"
        cost = model.system.cost(known, min(chunk, targets - first), independent=independent)
        flops, memory, lookups = flops + cost.flops, max(memory, cost.memory), lookups + cost.lookups
    seconds = flops / measure_speed(device, precision) + seconds_of_lookups(lookups, device)
    free = available_bytes(device)
    room = "unknown" if free is None else f"{free / 2**20:,.0f} MiB"
    return (
        f"{targets} views from {references} references: {flops / 1e9:,.1f} GFLOP, about {seconds:.1f} s here; "
        f"{memory / 2**20:,.0f} MiB beyond the weights, free: {room}"
    )
