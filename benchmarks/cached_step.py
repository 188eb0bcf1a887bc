"""Cost of one more denoising step with cached references, against computing them anew."""

import torch

from anyview.geometry.poses import random_rigid
from anyview.nn.positions import ViewPositions
from benchmarks.common import interleaved_medians, network, write_result

TARGETS = 4


def main() -> None:
    model = network(reference_attention="causal", reference_time="zero", window=None).eval().requires_grad_(False)
    t = torch.tensor([0.5])
    lines = [
        f"One evaluation of the network for M = {TARGETS} targets, width 256, 4 blocks, full cross-view attention,",
        "fp32; medians of 9 interleaved runs. (N + M) / M is what the number of tokens would give. With 8 x 8 tokens",
        "the products of a cached step are too small to fill the machine.",
        "",
        "| tokens | references N | uncached ms | cached ms | ratio | (N + M) / M | share of it | cache MiB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for side, n in ((16, 1), (16, 4), (16, 12), (8, 12)):
        latents = torch.randn(1, n + TARGETS, 16, 2 * side, 2 * side)
        positions = ViewPositions.from_poses(random_rigid(1, n + TARGETS, translation=0.5))
        cache = model.allocate_cache(1, n, (side, side), torch.float32)
        model.encode_references(latents[:, :n], positions.select(slice(0, n)), cache)
        targets = positions.select(slice(n, None))
        seconds = interleaved_medians(
            {
                "uncached": lambda x=latents, p=positions, n=n: model(x, t, p, n),
                "cached": lambda x=latents[:, n:], p=targets, c=cache: model(x, t, p, 0, cache=c),
            },
            repeats=9,
        )
        a, b = 1e3 * seconds["uncached"], 1e3 * seconds["cached"]
        whole = (n + TARGETS) / TARGETS
        times = f"{a:.1f} | {b:.1f} | {a / b:.2f} | {whole:.2f} | {a / b / whole:.2f}"
        lines.append(f"| {side} x {side} | {n} | {times} | {cache.nbytes / 2**20:.2f} |")
    write_result("cached_step", "A denoising step with cached references", lines)


if __name__ == "__main__":
    main()
