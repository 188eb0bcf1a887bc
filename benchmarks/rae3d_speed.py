"""3DRAE and 3DDiT at the paper's sizes on this CPU: what tokens cost, what views cost, and Kaleido-Small beside them.

    python -m benchmarks.rae3d_speed [--views 16 64] [--side 252]

Random weights, which changes no time; bf16 products; DINOv2-B of random weights for the views that are given; images
alone are decoded, without points. What a whole sampling takes is added up from its parts: 50 steps of two evaluations
each (guidance) and one decoding.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.common import interleaved_medians, median_seconds, write_result
from benchmarks.rng_speed import random_dinov2
from kaleidoscene.families.dit3d.config import Dit3dConfig, dit3d_base, dit3d_small, dit3d_xl
from kaleidoscene.families.dit3d.initialisation import initialise as initialise_diffusion
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.kaleido.config import kaleido_small
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.initialisation import initialise
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.positions import ViewPositions

TOKENS, GIVEN, VIEWS, EVALUATIONS = (256, 512, 1024), 6, 16, 100


def quickly(function: Callable[[], object]) -> Callable[[], None]:
    """The same without gradients, with products in bf16."""

    @torch.no_grad()
    def call() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            function()

    return call


def autoencoder(tokens: int, side: int) -> tuple[Callable[[], None], Callable[[int], None]]:
    """Encoding of six views, and decoding of so many."""
    network = Rae3d(Rae3dConfig(tokens=tokens, points=None)).eval()
    initialise(network)
    encoder = random_dinov2(network.config.patch_size, base=True)
    images, rays = torch.rand(1, GIVEN, 3, side, side), torch.randn(1, GIVEN, side, side, 6)
    seen, scene = torch.ones(1, GIVEN, dtype=torch.bool), torch.randn(1, tokens, network.config.width)

    def decode(views: int) -> None:
        for start in range(0, views, VIEWS):
            shown = torch.randn(1, min(VIEWS, views - start), side, side, 6)
            quickly(lambda shown=shown: network.decode(scene, shown))()

    return quickly(lambda: network.encode(images, rays, seen, encoder(images))), decode


def diffusion(config: Dit3dConfig) -> float:
    """One evaluation."""
    network = Dit3d(config).eval()
    initialise_diffusion(network)
    noisy, t = torch.randn(1, config.tokens, config.channels), torch.tensor([0.7])
    return median_seconds(quickly(lambda: network(noisy, t, noisy)), repeats=3)


def kaleido(views: int) -> float:
    """One evaluation of Kaleido-Small for so many views of 256 px from one, features of that given."""
    network = Kaleido(kaleido_small()).eval()
    latents, features = torch.randn(1, views + 1, 16, 32, 32), torch.randn(1, 1, 256, 768)
    positions, t = ViewPositions.from_poses(random_rigid(1, views + 1, translation=0.5)), torch.tensor([0.7])
    return median_seconds(quickly(lambda: network(latents, t, positions, 1, features=features)), repeats=1, warmup=0)


def main(counts: list[int], side: int) -> None:
    torch.manual_seed(0)
    lines = [
        f"{GIVEN} views of {side}x{side} encoded and {VIEWS} decoded; the paper's are seconds on a GPU.", "",
        "| tokens | encode, s | decode, s | together, of that with 256 | paper | one step of XL, s | paper, whole |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    made = {tokens: autoencoder(tokens, side) for tokens in TOKENS}
    calls = {f"encode {tokens}": encode for tokens, (encode, _) in made.items()}
    calls |= {f"decode {tokens}": lambda decode=decode: decode(VIEWS) for tokens, (_, decode) in made.items()}
    times, steps, first = interleaved_medians(calls, repeats=3), {}, 0.0
    papers = {256: (0.10, 1.41), 512: (0.17, 1.67), 1024: (0.23, 1.98)}
    for tokens in TOKENS:
        encoding, decoding = times[f"encode {tokens}"], times[f"decode {tokens}"]
        steps[f"XL, {tokens}"] = step = diffusion(replace(dit3d_xl(), tokens=tokens))
        together = encoding + decoding
        first = first or together
        decode, whole = papers[tokens]
        lines.append(
            f"| {tokens} | {encoding:.1f} | {decoding:.1f} | {together / first:.2f} | {decode / 0.10:.2f} | "
            f"{step:.2f} | {whole:.2f} s |"
        )
        print(lines[-1], flush=True)
    lines += ["", "| size, 1024 tokens | one evaluation, s | 50 steps and 16 views, of XL's | paper |"]
    lines.append("|---|---|---|---|")
    steps |= {"S": diffusion(dit3d_small()), "B": diffusion(dit3d_base()), "XL": steps["XL, 1024"]}
    decoding = times[f"decode {TOKENS[-1]}"]
    whole = {name: EVALUATIONS * steps[name] + decoding for name in ("S", "B", "XL")}
    for name, paper in (("S", 1.14), ("B", 1.35), ("XL", 1.98)):
        lines.append(f"| {name} | {steps[name]:.2f} | {whole[name] / whole['XL']:.2f} | {paper / 1.98:.2f} |")
    lines += ["", "| views | XL: 50 steps once, then decoded, s | Kaleido-Small: 50 steps of all, s | ratio |"]
    lines.append("|---|---|---|---|")
    for views in sorted({VIEWS, *counts}):
        decoding = median_seconds(lambda views=views: made[TOKENS[-1]][1](views), repeats=1, warmup=0)
        tokens_once = EVALUATIONS * steps["XL"] + decoding
        together = EVALUATIONS * kaleido(views)
        lines.append(f"| {views} | {tokens_once:.0f} | {together:.0f} | {together / tokens_once:.1f} |")
        print(lines[-1], flush=True)
    write_result("rae3d_speed", "3DRAE and 3DDiT at the paper's sizes", lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--side", type=int, default=252)
    options = parser.parse_args()
    main(options.views, options.side)
