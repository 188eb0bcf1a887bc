"""Kaleido-Large on two processes: built on the meta device, first weights shard by shard, and one forward pass.

Start with ``torchrun --nproc-per-node=2 -m benchmarks.kaleido_large``; it takes 15 GiB of memory in all.
"""

import math
import os
import time

import torch

from benchmarks.common import peak_mebibytes, write_result
from kaleidoscene.families.kaleido.config import kaleido_large
from kaleidoscene.families.kaleido.model import Kaleido, initialise
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.distributed import join_world, leave_world, place


def main() -> None:
    config = TrainConfig(sharding="fsdp", timeout=1800.0)
    world = join_world(config)
    before = peak_mebibytes()
    with torch.device("meta"):
        model = Kaleido(kaleido_large())
    parameters = sum(p.numel() for p in model.parameters())
    largest = max(sum(p.numel() for p in block.parameters()) for block in model.blocks)
    started = time.perf_counter()
    place(model, world, config, initialise)
    placed = time.perf_counter() - started
    after = peak_mebibytes()
    local = sum(p.to_local().numel() for p in model.parameters())  # pyright: ignore[reportAttributeAccessIssue]
    model.eval()
    latents, features = torch.randn(1, 2, 16, 32, 32), torch.randn(1, 1, 256, model.config.feature_channels)
    positions = ViewPositions.from_poses(random_rigid(1, 2, translation=0.5))
    started = time.perf_counter()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        out = model(latents, torch.tensor([0.7]), positions, 1, features=features)
    forward = time.perf_counter() - started
    if not math.isfinite(float(out.sum())):
        raise RuntimeError("the forward pass gave numbers that are not finite")
    rows = world.gather((local, after - before, peak_mebibytes() - before))
    if world.is_main:
        lines = [
            f"{parameters / 1e6:.0f} M parameters without the encoder, fp32, blocks of {largest / 1e6:.0f} M; two gloo",
            f"processes, fsdp. First weights: {placed:.0f} s. One forward pass of 1 + 1 views of 16 x 16 tokens in",
            f"each process, bf16: {forward:.0f} s. With autocast's cache of casts the pass did not fit into 23 GiB.",
            "",
            "| process | parameters held, M | peak MiB after first weights | after the forward pass |",
            "|---|---|---|---|",
        ]
        lines += [f"| {n} | {p / 1e6:.0f} | {a:.0f} | {b:.0f} |" for n, (p, a, b) in enumerate(rows)]
        lines += [
            "",
            f"Peaks are beyond the {before:.0f} MiB of PyTorch itself; half of the weights are "
            f"{2 * parameters / 2**20:.0f} MiB.",
        ]
        start = "torchrun --nproc-per-node=2"
        write_result("kaleido_large", "Kaleido-Large on two processes", lines, start=start)
    leave_world()
    os._exit(0)


if __name__ == "__main__":
    main()
