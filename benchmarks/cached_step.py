"""Cost of one more denoising step with cached references, against computing them anew."""

import torch

from anyview.geometry.poses import random_rigid
from anyview.nn.positions import ViewPositions
from benchmarks.common import interleaved_medians, network, write_result

TARGETS, SIDE = 4, 16


def main() -> None:
    model = network(reference_attention="causal", reference_time="zero", window=None).eval().requires_grad_(False)
    t = torch.tensor([0.5])
    lines = [
        f"One evaluation of the network for {TARGETS} targets of 8 x 8 tokens, width 256, 4 blocks, full cross-view",
        "attention, fp32; medians of 9 interleaved runs.",
        "",
        "| references | uncached ms | cached ms | ratio | cache MiB |",
        "|---|---|---|---|---|",
    ]
    for n in (1, 4, 12):
        latents = torch.randn(1, n + TARGETS, 16, SIDE, SIDE)
        positions = ViewPositions.from_poses(random_rigid(1, n + TARGETS, translation=0.5))
        cache = model.allocate_cache(1, n, (SIDE // 2, SIDE // 2), torch.float32)
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
        lines.append(f"| {n} | {a:.1f} | {b:.1f} | {a / b:.2f} | {cache.nbytes / 2**20:.2f} |")
    write_result("cached_step", "A denoising step with cached references", lines)


if __name__ == "__main__":
    main()
