"""Loading of training batches alone and against the training step of the nano recipe."""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.common import write_result
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.families.kaleido.recipes import kaleido_nano
from kaleidoscene.families.kaleido.task import KaleidoTask
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.distributed import place
from kaleidoscene.training.optim import Optimisers
from kaleidoscene.training.world import World


def seconds_per_step(batches: ViewBatches, steps: int, workers: int) -> float:
    """Mean time of a batch when nothing else is done; the first ones, which start the workers, are left out."""
    loader = batches.loader(range(steps + 4), workers=workers)
    for _ in range(4):
        next(loader)
    started = time.perf_counter()
    for _ in range(steps):
        next(loader)
    return (time.perf_counter() - started) / steps


def step_seconds(batches: ViewBatches, steps: int) -> float:
    """Mean time of the training step on batches that are already there, eager bf16."""
    recipe = kaleido_nano()
    with torch.device("meta"):
        task = KaleidoTask(recipe.settings, recipe.loss, codec=PixelCodec(recipe.settings.codec.factor))
    place(task.model, World(), TrainConfig(), task.initialise)
    optimisers = Optimisers(task.model, recipe.train.optim)
    ready = [batches[step] for step in range(steps)]
    started = 0.0
    for number, views in enumerate([ready[0], *ready]):
        if number == 1:
            started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.losses(views, 0)["loss"]
        loss.backward()
        optimisers.step()
        optimisers.zero_grad()
    return (time.perf_counter() - started) / steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shards", type=Path)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    recipe = kaleido_nano()
    batches = ViewBatches(ShardFolder(options.shards), recipe.batches)
    stored = ShardFolder(options.shards).read(0, [0]).rgba.shape[1]
    lines = [
        f"`kaleido-nano`, batch {recipe.data.batch_size} at 64 px from PNGs of {stored} px; {options.steps} steps.",
        "",
        "| | seconds a step | scenes a second |",
        "|---|---|---|",
    ]
    for workers in (0, 1, 2):
        seconds = seconds_per_step(batches, options.steps, workers)
        name = "loading in the process" if workers == 0 else f"loading, {workers} worker{'s' * (workers > 1)}"
        lines.append(f"| {name} | {seconds:.3f} | {recipe.data.batch_size / seconds:.0f} |")
    seconds = step_seconds(batches, options.steps)
    lines.append(f"| training step, eager bf16, {torch.get_num_threads()} threads | {seconds:.3f} | "
                 f"{recipe.data.batch_size / seconds:.0f} |")  # fmt: skip
    write_result("loader", "Loading against training", lines)


if __name__ == "__main__":
    main()
