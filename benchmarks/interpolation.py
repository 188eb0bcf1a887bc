"""The frame between two frames: the shipped interpolator beside blending and copying, and a dense orbit."""

import argparse
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch

import kaleidoscene
from benchmarks.common import write_result
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.families.film import Interpolator, load_interpolator
from kaleidoscene.geometry import trajectories

EXAMPLE = Path(__file__).parents[1] / "examples" / "captures" / "school_bus"
MOST = 60


def clips(folder: Path) -> dict[str, list[torch.Tensor]]:
    """Three neighbouring frames from the middle of up to 60 clips, by video and stride (or by folder)."""
    shards, found = ShardFolder(folder), defaultdict(list)
    for number in range(0, len(shards), -(-len(shards) // MOST)):
        first = (shards.stock(number).views - 3) // 2
        rgba = torch.from_numpy(shards.read(number, [first, first + 1, first + 2]).rgba).float() / 255
        video, _, stride = shards.key(number).rpartition("-")
        name = f"{video.rpartition('-')[0]}, every {stride}" if stride.isdigit() and "-" in video else folder.name
        found[name].append((rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).movedim(-1, 1))
    return dict(sorted(found.items()))


def rows_of(interpolator: Interpolator, folders: list[Path]) -> list[str]:
    lines = ["| clips | | film | blending | copy | gain | SSIM film | blending |", "|---|---|---|---|---|---|---|---|"]
    for name, some in (item for folder in folders for item in clips(folder).items()):
        scores = []
        for first, middle, last in some:
            made = [interpolator.between(first, last), 0.5 * (first + last), first]
            scores.append([float(psnr(x, middle)) for x in made] + [float(ssim(x, middle)) for x in made[:2]])
        film, blending, copy, ssim_film, ssim_blending = (
            statistics.fmean(column) for column in zip(*scores, strict=True)
        )
        gain = f"{film - blending:+.2f}"
        lines.append(f"| {name} | {len(some)} | {film:.2f} | {blending:.2f} | {copy:.2f} | {gain} | {ssim_film:.3f} | "
                     f"{ssim_blending:.3f} |")  # fmt: skip
    return lines


def dense_orbit(interpolator: Interpolator, frames: int, doublings: int) -> list[str]:
    """An orbit of which every ``2 ** doublings``-th view is rendered, beside all of it rendered."""
    model, capture = kaleidoscene.load("default"), kaleidoscene.read_capture(EXAMPLE)
    path, parts = trajectories.orbit(capture, frames=frames), 2**doublings
    started = time.perf_counter()
    every = model.render(capture[:3], cameras=path, seed=0).images
    whole = time.perf_counter() - started
    started = time.perf_counter()
    few = model.render(capture[:3], cameras=path[list(range(0, frames, parts))], seed=0).images
    rendered = time.perf_counter() - started
    film = interpolator.denser(((float(n), image, False) for n, image in enumerate(few)), doublings)
    made = torch.stack([image for _, image, _ in film])
    total = time.perf_counter() - started
    between = [n for n in range(len(made)) if n % parts]
    blended = torch.stack([
        torch.lerp(few[n // parts], few[n // parts + 1], (n % parts) / parts) for n in between
    ])  # fmt: skip
    ours, theirs = (statistics.fmean(float(psnr(a, every[n])) for a, n in zip(some, between, strict=True))
                    for some in (made[between], blended))  # fmt: skip
    return [
        f"An orbit of {frames} views at {every.shape[-1]} px, of which {len(few)} are rendered:",
        "",
        f"- all rendered: {whole:.1f} s; {len(few)} rendered and {len(between)} put between: {rendered:.1f} s and "
        f"{total - rendered:.1f} s, {total / whole:.2f} of the time;",
        f"- frames put between, against the same views rendered: {ours:.2f} dB (blending: {theirs:.2f} dB).",
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("clips", type=Path, nargs="+", help="shards of clips that were not trained on")
    parser.add_argument("--model", default="film")
    options = parser.parse_args()
    interpolator = load_interpolator(options.model)
    lines = [*rows_of(interpolator, options.clips), "", "PSNR in dB of the middle of three frames, means of clips.", ""]
    write_result("interpolation", "Frames between frames", [*lines, *dense_orbit(interpolator, 480, 3)])


if __name__ == "__main__":
    main()
