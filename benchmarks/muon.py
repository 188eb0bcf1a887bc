"""Muon over processes: time of its step and calls that cross the network, beside PyTorch's own."""

import statistics
import tempfile
import time

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.debug import CommDebugMode
from torch.multiprocessing.spawn import spawn

from benchmarks.common import network, write_result
from kaleidoscene.training.muon import Muon

KINDS = {"PyTorch's": torch.optim.Muon, "ours": Muon}
SIZES = {"width 128, 4 blocks": dict(width=128, depth=4), "width 256, 8 blocks": dict(width=256, depth=8)}
STEPS = 5


def _work(rank: int, size: int, meeting: str, told: str, options: dict[str, int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    torch.manual_seed(0)
    model = network(**options)
    names = set(model.muon_parameters())
    if size > 1:
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
    params = [p for name, p in model.named_parameters() if name in names]
    for p in params:
        p.grad = torch.randn_like(p)
    optimisers = {kind: make(params, lr=1e-3) for kind, make in KINDS.items()}
    calls, times = {}, {kind: [] for kind in KINDS}
    for kind, optimiser in optimisers.items():
        with CommDebugMode() as watched:
            optimiser.step()
        calls[kind] = watched.get_total_counts()
    for _ in range(STEPS):
        for kind, optimiser in optimisers.items():
            dist.barrier()
            started = time.perf_counter()
            optimiser.step()
            times[kind].append(time.perf_counter() - started)
    if rank == 0:
        torch.save({kind: (statistics.median(times[kind]), calls[kind], len(params)) for kind in KINDS}, told)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    columns = ["network", "processes", "matrices", "PyTorch's, ms", "calls", "ours, ms", "calls", "ratio"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, options in SIZES.items():
        for size in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                spawn(_work, args=(size, f"{folder}/meeting", f"{folder}/told", options), nprocs=size)
                found = torch.load(f"{folder}/told", weights_only=True)
            (theirs, many, count), (ours, few, _) = found["PyTorch's"], found["ours"]
            cells = [name, size, count, f"{theirs * 1e3:.0f}", many, f"{ours * 1e3:.0f}", few, f"{theirs / ours:.1f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", f"Medians of {STEPS} steps that take turns; fp32 weights, FSDP2 over gloo, one thread a process."]
    write_result("muon", "Muon over processes", lines)


if __name__ == "__main__":
    main()
