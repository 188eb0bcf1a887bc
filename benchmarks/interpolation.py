"""The frame between two frames: the shipped interpolator beside blending and copying, and a dense orbit."""

import argparse
import math
import statistics
import time
from collections import defaultdict
from pathlib import Path

import torch

import kaleidoscene
from benchmarks.common import write_result
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.evaluation.adherence import ESTIMATORS, measure_adherence
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.evaluation.metrics.temporal import flicker
from kaleidoscene.families.film import Interpolator, load_interpolator
from kaleidoscene.geometry import trajectories
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import beside_object
from kaleidoscene.images.pixels import resize_image
from kaleidoscene.images.videos import video_frames

EXAMPLE = Path(__file__).parents[1] / "examples" / "captures" / "school_bus"
MOST = 60
FRAMES, SIZE = 61, (144, 192)
ORBIT, VIEW = 25, 384


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


def videos_refilled(interpolator: Interpolator, videos: list[Path]) -> list[str]:
    """Every second frame of a film is taken out and put back; how the film flickers then, beside the true one."""
    lines = [
        "| film, every second frame put between | PSNR | blending | flicker | blending | true |",
        "|---|---|---|---|---|---|",
    ]
    for video in videos:
        frames = torch.stack([
            resize_image(torch.from_numpy(frame.copy()).movedim(-1, 0).float() / 255, SIZE)
            for _, frame in video_frames(video, range(FRAMES))
        ])  # fmt: skip
        kept = [(float(n), frame, False) for n, frame in enumerate(frames[::2])]
        ours = torch.stack([frame for _, frame, _ in interpolator.denser(kept, 1)])
        blended = ours.clone()
        blended[1::2] = (frames[:-1:2] + frames[2::2]) / 2
        scores = [statistics.fmean(map(float, psnr(made[1::2], frames[1:-1:2]))) for made in (ours, blended)]
        shown = [f"{flicker(film):.2f}" for film in (ours, blended, frames)]
        lines.append(f"| {video.stem} | {scores[0]:.2f} | {scores[1]:.2f} | {' | '.join(shown)} |")
    return lines


def adherence(interpolator: Interpolator, meshes: list[Path]) -> list[str]:
    """Cameras of half an orbit, estimated from its frames: all true ones, or every second one put between."""
    lines = ["| scan, frames | registered | ATE_t | ATE_r |", "|---|---|---|---|"]
    start = Cameras.from_field_of_view(beside_object(1.6, 20.0)[None].float(), math.radians(49.1), (VIEW, VIEW))
    path = trajectories.orbit(
        trajectories.View(start[0], torch.zeros(3), torch.tensor([0.0, 0, 1])), ORBIT, degrees=120.0
    )
    rasteriser = Rasteriser((VIEW, VIEW))
    for mesh in meshes:
        rgba = torch.from_numpy(rasteriser.render(fit_unit_box(read_mesh(mesh)), path, Lighting()).rgba).float() / 255
        true = (rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]).movedim(-1, 1)
        kept = [(float(n), frame, False) for n, frame in enumerate(true[::2])]
        made, blended = torch.stack([frame for _, frame, _ in interpolator.denser(kept, 1)]), true.clone()
        blended[1::2] = (true[:-1:2] + true[2::2]) / 2
        for name, frames in (("true", true), ("put between", made), ("blended", blended)):
            found = measure_adherence(frames, path, ESTIMATORS["pycolmap"])
            errors = ["" if x is None else f"{x:.4f}" for x in (found.ate_t, found.ate_r)]
            lines.append(f"| {mesh.stem}, {name} | {found.registered} of {found.frames} | {errors[0]} | {errors[1]} |")
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
    parser.add_argument("clips", type=Path, nargs="*", help="shards of clips that were not trained on")
    parser.add_argument("--videos", type=Path, nargs="*", default=[], help="films that were not trained on")
    parser.add_argument("--meshes", type=Path, nargs="*", default=[], help="scans that were not trained on")
    parser.add_argument("--model", default="film")
    options = parser.parse_args()
    interpolator = load_interpolator(options.model)
    lines = []
    if options.clips:
        lines += [
            *rows_of(interpolator, options.clips),
            "",
            "PSNR in dB of the middle of three frames, means of clips.",
        ]
        lines.append("")
    if options.videos:
        lines += [*videos_refilled(interpolator, options.videos), ""]
        lines += [
            f"{FRAMES} frames of {SIZE[1]} x {SIZE[0]} px; flicker is the mean second difference in time of 255.",
            "",
        ]
    if options.meshes:
        lines += [*adherence(interpolator, options.meshes), ""]
        lines += [f"{ORBIT} frames of {VIEW} px over 120 degrees, structure from motion; ATE_r in degrees."]
        lines.append("")
    write_result("interpolation", "Frames between frames", [*lines, *dense_orbit(interpolator, 480, 3)])


if __name__ == "__main__":
    main()
