"""3DRAE's weights on unseen scans: views and depth from 1, 2 and 6 given views; ``benchmarks.dit3d`` draws completions.

    python -m benchmarks.rae3d CAPTURES [--model rae3d]

CAPTURES is what ``kaleidoscene synthesize CAPTURES --captures --scenes.depth --scenes.meshes TEST_MESHES
--scenes.image-size 128 128`` writes. Protocol of the paper scaled down (method C.7): 16 of the 25 views of a scene,
drawn with seed 0; the first 1, 2 or 6 are given, all others are scored.
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import read_views, write_result
from kaleidoscene.api import load
from kaleidoscene.evaluation.baselines import make_baseline
from kaleidoscene.evaluation.metrics.depth import depth_errors
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.evaluation.unposed import TrueViews
from kaleidoscene.images.pixels import resize_image
from kaleidoscene.rendering.renderer import TARGET_SEEDS, Renderer, Rendering

GIVEN, VIEWS = (1, 2, 6), 16
Scores = dict[str, list[dict[str, float]]]


def rendered(
    renderer: Renderer, truth: TrueViews, given: Sequence[int], targets: Sequence[int], seed: int = 0
) -> Rendering:
    """Targets from given views of a scene."""
    scene = renderer.encode(truth.images[None, given], truth.cameras[given].reshape(1, len(given)))
    cameras = truth.cameras[targets].reshape(1, len(targets))
    seeds = [seed * TARGET_SEEDS + place for place in range(len(targets))]
    return renderer.render(renderer.expect(scene, cameras), cameras, seeds=seeds, independent=True)


def scored(found: Rendering, truth: TrueViews, targets: Sequence[int]) -> dict[str, float]:
    """PSNR and SSIM, and Rel of the depth on the object where it is told."""
    true = truth.images[targets]
    images = resize_image(found.images[0], (true.shape[-2], true.shape[-1]))
    scores = {"psnr": float(psnr(images, true).mean()), "ssim": float(ssim(images, true).mean())}
    if found.depths is not None:
        depths = truth.depths[targets]
        errors = depth_errors(found.depths[0], depths, depths > 0)
        scores |= {"rel": 100 * errors.rel, "a1": 100 * errors.a1}
    return scores


def seconds_of(renderer: Renderer, truth: TrueViews, views: list[int]) -> tuple[float, ...]:
    """Of 16 views from 6, of these views alone once the six are encoded, and of both with depth; the best of five."""
    cameras = truth.cameras[views].reshape(1, len(views))
    seeds, kinds = list(range(len(views))), (False, True) if renderer.capabilities.renders_depth else (False,)
    taken = []
    for _ in range(5):
        times = []
        for depth in kinds:
            started = time.perf_counter()
            scene = renderer.encode(truth.images[None, views[:6]], truth.cameras[views[:6]].reshape(1, 6))
            scene = renderer.expect(scene, cameras)
            encoded = time.perf_counter()
            renderer.render(scene, cameras, seeds=seeds, independent=True, depth=depth)
            times += [time.perf_counter() - started, time.perf_counter() - encoded]
        taken.append(times)
    return tuple(min(column) for column in zip(*taken, strict=True))


def mean(values: Sequence[dict[str, float]], key: str) -> float:
    return sum(value[key] for value in values) / len(values)


def lines(scores: Scores, times: dict[str, tuple[float, ...]], side: int) -> list[str]:
    count = len(next(iter(scores.values())))
    out = [
        f"{count} scans that were not trained on, {side} px, targets of {VIEWS} views that were not given; means over "
        "scenes.", "", "| | PSNR | SSIM | Rel, % | a1, % |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, of in scores.items():
        depth = f"{mean(of, 'rel'):.1f} | {mean(of, 'a1'):.1f}" if "rel" in of[0] else " | "
        out.append(f"| {name} | {mean(of, 'psnr'):.2f} | {mean(of, 'ssim'):.3f} | {depth} |")
    kinds = "", ", with depth"
    said = [
        f"{name}{kind} {whole:.2f} ({alone:.2f})" for name, of in times.items()
        for kind, whole, alone in zip(kinds, of[::2], of[1::2], strict=False)
    ]  # fmt: skip
    out += ["", "Seconds for 16 views from 6 (for the views alone, the six being encoded): " + ", ".join(said)]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("captures", type=Path)
    parser.add_argument("--model", default="rae3d")
    options = parser.parse_args()
    model, kaleido = load(options.model), load("default")
    nearest = make_baseline("nearest", model.image_size)
    scores: Scores = {}
    draw, times = random.Random(0), {}
    for path in sorted(options.captures.glob("*/transforms.json")):
        views = draw.sample(range(25), VIEWS)
        truth, large = read_views(path.parent, model), read_views(path.parent, kaleido)
        for n in GIVEN:
            given, targets = views[:n], views[n:]
            small = scored(rendered(model.system.renderer, truth, given, targets), truth, targets)
            scores.setdefault(f"{options.model}, {n} given", []).append(small)
        six, rest = views[:6], views[6:]
        scores.setdefault("nearest of 6", []).append(scored(rendered(nearest, truth, six, rest), truth, rest))
        other = rendered(kaleido.system.renderer, large, six, rest)
        scores.setdefault("default (Kaleido), 6 given", []).append(
            scored(Rendering(other.images, other.cameras), truth, rest)
        )
        if not times:
            times = {
                options.model: seconds_of(model.system.renderer, truth, views),
                "default": seconds_of(kaleido.system.renderer, large, views),
            }
        print(path.parent.name, flush=True)
    write_result("rae3d", "3DRAE on unseen scans", lines(scores, times, model.image_size[0]))


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
