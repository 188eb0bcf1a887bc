"""Cost of one more denoising step with cached references, against computing them anew."""

import torch

from benchmarks.common import interleaved_medians, network, write_result
from kaleidoscene.families.kaleido.cost import Request, forward_flops
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions

TARGETS = 4


def least_work(model: Kaleido, n: int, grid: tuple[int, int]) -> float:
    """Operations of a causal step that reads its references anew over those of a cached one."""
    cached = forward_flops(model.config, Request(TARGETS, n + TARGETS, grid))
    return 1 + forward_flops(model.config, Request(n, n, grid)) / cached


def main() -> None:
    causal = dict(reference_attention="causal", reference_time="zero")
    model = network(**causal, window=None).eval().requires_grad_(False)
    bidirectional = network(window=None).eval().requires_grad_(False)
    t = torch.tensor([0.5])
    lines = [
        f"One evaluation of the network for M = {TARGETS} targets, width 256, 4 blocks, full cross-view attention,",
        "fp32; medians of 9 interleaved runs. (N + M) / M is what the number of tokens would give: the gain over the",
        "paper's bidirectional network, whose views all see each other. A causal network that reads references anew",
        "does less than it, since they do not look at targets: there the bound is the ratio of operations.",
        "With 8 x 8 tokens the products of a cached step are too small to fill the machine.",
        "",
        "| tokens | N | bidirectional ms | causal ms | cached ms | (N + M) / M | gain over bidirectional | share of it "
        "| operations | gain over causal | share of it | cache MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for side, n in ((16, 1), (16, 4), (16, 12), (8, 12)):
        latents = torch.randn(1, n + TARGETS, 16, 2 * side, 2 * side)
        positions = ViewPositions.from_poses(random_rigid(1, n + TARGETS, translation=0.5))
        cache = model.allocate_cache(1, n, (side, side), torch.float32)
        model.encode_references(latents[:, :n], positions.select(slice(0, n)), cache)
        targets = positions.select(slice(n, None))
        seconds = interleaved_medians(
            {
                "bidirectional": lambda x=latents, p=positions, n=n: bidirectional(x, t, p, n),
                "causal": lambda x=latents, p=positions, n=n: model(x, t, p, n),
                "cached": lambda x=latents[:, n:], p=targets, c=cache: model(x, t, p, 0, cache=c),
            },
            repeats=9,
        )
        times = " | ".join(f"{1e3 * value:.1f}" for value in seconds.values())
        gains = []
        for name, bound in (("bidirectional", (n + TARGETS) / TARGETS), ("causal", least_work(model, n, (side, side)))):
            gain = seconds[name] / seconds["cached"]
            gains.append(f"{bound:.2f} | {gain:.2f} | {gain / bound:.2f}")
        lines.append(f"| {side} x {side} | {n} | {times} | {' | '.join(gains)} | {cache.nbytes / 2**20:.2f} |")
    write_result("cached_step", "A denoising step with cached references", lines)


if __name__ == "__main__":
    main()
