"""RnG with and without its cache at the paper's size on this CPU, and the small weights from photographs to a cloud.

    python -m benchmarks.rng_speed [--counts 1 4 8 16] [--photographs FOLDER] [--no-paper]

The paper's network has random weights, which changes no time: 256 px, one target, bf16 products, DINOv2 (large, with
registers) for the sources. "Uncached" computes sources and target, as without a cache; "cached" the target alone.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.common import interleaved_medians, write_result
from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.families.rng.initialisation import initialise
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.recipes import rng_objaverse_40k
from kaleidoscene.reconstruction.fusion import fuse
from kaleidoscene.workflows.reconstruction import ReconstructionJob, choose_sources

SIZE = (256, 256)
TERA = 1e12


def random_dinov2(patch_size: int, *, base: bool = False) -> ResizedDinoV2:
    """The large one, or the base one."""
    from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel  # noqa: PLC0415  an extra

    width, depth, heads = (768, 12, 12) if base else (1024, 24, 16)
    config = Dinov2WithRegistersConfig(
        hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, patch_size=14, image_size=518
    )
    return ResizedDinoV2(Dinov2WithRegistersModel(config), patch_size)


def paper_rows(config: RngConfig, counts: list[int]) -> list[str]:
    network, encoder = Rng(config).eval(), random_dinov2(config.patch_size)
    initialise(network)
    rays = torch.randn(1, 1, *SIZE, 6)
    rows = []
    for count in counts:
        images = torch.rand(1, count, 3, *SIZE)

        def sources(images=images):
            with torch.autocast("cpu", torch.bfloat16):
                return network.encode(images, encoder(images))

        kept = sources()

        def target(kept=kept):
            with torch.autocast("cpu", torch.bfloat16):
                return network.render(kept, rays)

        def both(sources=sources, target=target):
            target(sources())

        seconds = interleaved_medians({"uncached": both, "cached": target}, repeats=3)
        rows.append(
            f"| {count} | {seconds['uncached']:.1f} | {seconds['cached']:.2f} | "
            f"**{seconds['uncached'] / seconds['cached']:.1f}** | {kept.nbytes / 1e6:.0f} |"
        )
        print(rows[-1], flush=True)
    return rows


def training_step(config: RngConfig) -> str:
    """Two sources and one target, forward and backward, every layer computed twice."""
    network = Rng(config)
    initialise(network)
    for name, unit in network.units().items():
        if name.startswith("layer"):
            forward = unit.forward
            unit.forward = lambda *given, forward=forward: torch.utils.checkpoint.checkpoint(  # pyright: ignore[reportAttributeAccessIssue]
                forward, *given, use_reentrant=False
            )
    images, rays = torch.rand(1, 2, 3, *SIZE), torch.randn(1, 1, *SIZE, 6)
    features = torch.randn(1, 2, (SIZE[0] // config.patch_size) ** 2, config.width)
    started = time.perf_counter()
    with torch.autocast("cpu", torch.bfloat16):
        sources, dense = network(images, rays, features)
    assert sources.cameras is not None
    (dense.colours.mean() + dense.points.square().mean() + sources.cameras.square().mean()).backward()
    seconds = time.perf_counter() - started
    missing = [name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert not missing, missing
    return f"One training step (2 sources, 1 target, 256 px, bf16 products, layers recomputed): {seconds:.1f} s."


def small_rows(photographs: Path) -> list[str]:
    model = load("rng")
    capture, _ = choose_sources(read_capture(photographs), None, 4)
    started = time.perf_counter()
    scene = model.reconstruct(capture)
    views = scene.render(scene.around(24))
    rendered = time.perf_counter()
    sources = scene.sources()
    fusing = time.perf_counter()
    cloud = fuse(sources, views)
    fused = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        began = time.perf_counter()
        ReconstructionJob(out=Path(scratch) / "out", model=model, capture=capture).run()
        whole = time.perf_counter() - began
    h, w = model.image_size
    parts = (
        f"The small weights ({h}x{w}), {len(capture)} photographs: 24 views with points {rendered - started:.1f} s",
        f"fusing {len(sources) + 24} views to {len(cloud)} points {fused - fusing:.2f} s",
        f"`reconstruct` with all its files (video, pictures, PLY, GLB, scene) {whole:.1f} s.",
    )
    return ["; ".join(parts)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--paper", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    lines = []
    if options.paper:
        config = rng_objaverse_40k().settings.model
        with torch.no_grad():
            lines += [
                "| sources | uncached, s | cached, s | ratio | keys and values, MB |", "|---|---|---|---|---|",
                *paper_rows(config, options.counts), "",
                "The paper has 213 and 85 ms on a GPU at 4 sources, a ratio of 2.5.", "",
            ]  # fmt: skip
        lines += [training_step(config), ""]
    if options.photographs is not None:
        with torch.no_grad():
            lines += small_rows(options.photographs)
    write_result("rng_speed", "RnG: what its cache saves, and from photographs to a cloud", lines)


if __name__ == "__main__":
    main()
