"""Share of this machine's measured bf16 matrix peak that training of the default recipe reaches."""

import torch

from benchmarks.common import median_seconds, network, train_step, write_result
from kaleidoscene.families.kaleido.cost import Request, forward_flops
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.recipes import kaleido_nano
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions

BATCH, REFERENCES, TARGETS = 32, 2, 3


def main() -> None:
    a = torch.randn(2048, 2048, dtype=torch.bfloat16)
    peak = 2 * 2048**3 / median_seconds(lambda: a @ a, repeats=9, warmup=3)
    config = kaleido_nano().settings.model
    views = REFERENCES + TARGETS
    latents, t = torch.randn(BATCH, views, config.latent_channels, 8, 8), torch.rand(BATCH)
    positions = ViewPositions.from_poses(random_rigid(BATCH, views, translation=0.5))
    flops = 3 * forward_flops(config, Request(views, views, (8, 8), BATCH))
    lines = [
        f"Forward and backward of `kaleido-nano` at 64 px, batch {BATCH}, {REFERENCES} references, {TARGETS} targets;",
        "operations counted as matrix products times three. Peak: 2048 x 2048 bf16 product.",
        "",
        f"Measured peak: {peak / 1e9:.0f} GFLOP/s.",
        "",
        "| | seconds | GFLOP/s | share of peak |",
        "|---|---|---|---|",
    ]
    for name in ("eager", "compiled"):
        model = Kaleido(config)
        if name == "compiled":
            for block in model.blocks:
                block.compile()

        def step(model: Kaleido = model) -> None:
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(latents, t, positions, REFERENCES).square().mean()
            loss.backward()

        seconds = median_seconds(step, repeats=5, warmup=2)
        lines.append(f"| {name} | {seconds:.2f} | {flops / seconds / 1e9:.0f} | {100 * flops / seconds / peak:.0f} % |")
    lines += ["", "Two blocks of greater width, 12 views (6 references) of 16 x 16 tokens, K = 4, eager:", ""]
    lines += ["| width | key/value heads | seconds | GFLOP/s | share of peak |", "|---|---|---|---|---|"]
    for width, kv_heads in ((768, 1), (768, 4), (1024, 2)):
        model = network(width=width, depth=2, kv_heads=kv_heads)
        flops = 3 * forward_flops(model.config, Request(12, 12, (16, 16)))
        seconds = median_seconds(train_step(model, 12, 6, 32))
        share = f"{flops / seconds / 1e9:.0f} | {100 * flops / seconds / peak:.0f} %"
        lines.append(f"| {width} | {kv_heads} | {seconds:.2f} | {share} |")
    write_result("matrix_peak", "Share of the bf16 matrix peak in training", lines)


if __name__ == "__main__":
    main()
