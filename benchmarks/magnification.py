"""What copying at twice the size is worth, against enlarging what is rendered at the size of training.

python -m benchmarks.magnification CAPTURES [--references 1 3 5 10] [--times 2]

The captures are of ``kaleidoscene synthesize --captures --scenes.image-size 256 256``, or larger.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

import kaleidoscene
from kaleidoscene.api import Model
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.evaluation.run import HeldOutObject
from kaleidoscene.geometry.cameras import Cameras

FIRST_TARGET, EVERY = 10, 3


def smaller(thing: HeldOutObject, times: int) -> HeldOutObject:
    """The same views as means of so many times so many pixels."""
    images, cameras = torch.nn.functional.avg_pool2d(thing.images, times), thing.cameras
    matrix = cameras.intrinsics.clone()
    matrix[..., :2, :] /= times
    size = (images.shape[-2], images.shape[-1])
    return HeldOutObject(thing.name, images, Cameras(cameras.world_from_cam, matrix, size))


def rendered(model: Model, thing: HeldOutObject, count: int, targets: list[int]) -> tuple[torch.Tensor, float]:
    """New views from the first references, and seconds for each."""
    renderer, started = model.system.renderer, time.perf_counter()
    scene = renderer.encode(thing.images[None, :count], thing.cameras[list(range(count))].reshape(1, count))
    asked = thing.cameras[targets].reshape(1, len(targets))
    images = renderer.render(scene, asked, seeds=targets, independent=True).images[0]
    return images, (time.perf_counter() - started) / len(targets)


def main(captures: Path, counts: list[int], times: int) -> None:
    torch.set_num_threads(1)
    own = kaleidoscene.load()
    size = times * max(own.image_size)
    large = own.at_size(size)
    things = read_objects(captures, large.system)
    print(f"{len(things)} captures, {size} px, one thread: PSNR in dB / SSIM, seconds a view")
    for count in counts:
        rows: dict[str, list[tuple[float, float, float]]] = {"enlarged": [], "copied": []}
        for thing in things:
            targets = list(range(max(count, FIRST_TARGET), len(thing.cameras), EVERY))
            truth = thing.images[targets]
            few, quick = rendered(own, smaller(thing, times), count, targets)
            few = torch.nn.functional.interpolate(few, (size, size), mode="bicubic").clamp(0, 1)
            many, slow = rendered(large, thing, count, targets)
            for name, images, seconds in (("enlarged", few, quick), ("copied", many, slow)):
                rows[name].append((float(psnr(images, truth).mean()), float(ssim(images, truth).mean()), seconds))
        means = {name: [sum(column) / len(column) for column in zip(*row, strict=True)] for name, row in rows.items()}
        said = "   ".join(f"{name} {p:.2f} / {s:.3f}, {t:.3f} s" for name, (p, s, t) in means.items())
        print(f"{count:3} references: {said}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--times", type=int, default=2)
    chosen = parser.parse_args()
    main(chosen.captures, chosen.references, chosen.times)
