"""Memory of a training step when the views of a scene are spread over processes, and what comes out of it."""

import resource
import tempfile

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from benchmarks.common import network, write_result
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.view_parallel import ViewGroup

VIEWS, REFERENCES, SIDE = 16, 6, 40


def _step(model: Kaleido, group: ViewGroup | None) -> tuple[float, float]:
    """Sum of squares of what one forward pass says of this process's targets, and MiB that the step took."""
    torch.manual_seed(1)
    latents, positions = torch.randn(1, VIEWS, 16, SIDE, SIDE), ViewPositions.from_poses(random_rigid(1, VIEWS))
    own = range(VIEWS) if group is None else group.own
    mine = slice(own.start, own.stop)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    out = model(latents[:, mine], torch.tensor([0.4]), positions.select(mine), REFERENCES, group=group)
    loss = out.square().sum()
    loss.backward()
    return float(loss.detach()), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _work(rank: int, size: int, meeting: str, told: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    torch.manual_seed(0)
    model = network(window=4)
    for p in model.parameters():  # gates and head begin at zero, and nothing would be seen of what is exchanged
        torch.nn.init.normal_(p, std=0.03)
    _step(network(window=4, depth=1), None if size == 1 else ViewGroup(None, rank, size, VIEWS))  # libraries load
    loss, memory = _step(model, None if size == 1 else ViewGroup(None, rank, size, VIEWS))
    found = [None] * size
    dist.all_gather_object(found, (loss, memory))
    if rank == 0:
        torch.save(found, told)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    lines = [
        f"Forward and backward of one scene of {VIEWS} views ({REFERENCES} references) of {SIDE // 2} x {SIDE // 2} "
        "tokens, width 256, 4 blocks, windows of 4, fp32.",
        "Growth of the peak resident memory of a process in the step; the sum over all targets of what comes out is",
        "the same. Weights and their gradients, which every process has here, are 13 MiB.",
        "",
        "| processes | MiB, largest process | of one process | sum of squares |",
        "|---|---|---|---|",
    ]
    one = 0.0
    for size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder:
            spawn(_work, (size, f"{folder}/meeting", f"{folder}/told"), nprocs=size)
            found = torch.load(f"{folder}/told", weights_only=True)
        memory = max(memory for _, memory in found)
        one = one or memory
        lines.append(f"| {size} | {memory:,.0f} | {memory / one:.2f} | {sum(loss for loss, _ in found):.6g} |")
    write_result("view_parallel", "Views over processes: memory", lines)


if __name__ == "__main__":
    main()
