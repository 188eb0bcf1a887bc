"""Real places: views between references that are far apart, by weights and baselines.

All at 128 x 128 px and 49.1 degrees, cropped or padded with white to them, or by the photographs' own lens and shape at
128 px on the longer side (``--own-lens``), which the default weights cannot take.

python -m benchmarks.places CAPTURE [CAPTURE ...] --models baseline:nearest baseline:plane-sweep default places
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import kaleidoscene
from kaleidoscene.evaluation.baselines import make_baseline
from kaleidoscene.evaluation.protocols import FirstViews
from kaleidoscene.evaluation.run import HeldOutObject, evaluate, means
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.fitting import fit_views
from kaleidoscene.nn.positions import NOMINAL_FOCAL
from kaleidoscene.rendering.renderer import Renderer

SIZE, TARGETS = (128, 128), 10


def held_out(path: Path, most: int, model: kaleidoscene.Model | None = None) -> tuple[HeldOutObject, FirstViews, int]:
    """A capture with its references first, each as far as can be from those before it, and how many there are.

    Its lens and shape are those of ``model``, by default one lens and a square.
    """
    capture = kaleidoscene.read_capture(path)
    taken = torch.linspace(0, len(capture) - 1, min(len(capture), 2 * most + TARGETS)).round().long().unique()
    capture = capture.select(taken.tolist()).recentred()
    if model is None:
        images, cameras = fit_views(capture.images(), capture.cameras, SIZE, NOMINAL_FOCAL)
    else:
        images, cameras = model.for_shape(capture.cameras).prepare(capture)
    targets = [round(place) for place in torch.linspace(1, len(taken) - 2, TARGETS).tolist()]
    free = [number for number in range(len(taken)) if number not in targets]
    order = [free[len(free) // 2]]
    while len(order) < min(most, len(free)):
        distance = torch.cdist(cameras.centres[free], cameras.centres[order]).amin(1)
        order.append(free[int(distance.argmax())])
    chosen = order + targets
    protocol = FirstViews("places", len(chosen), tuple(range(len(order), len(chosen))))
    return HeldOutObject(path.name, images[chosen], cameras[chosen]), protocol, len(order)


def renderer_of(name: str, cameras: Cameras) -> Renderer:
    if name.startswith("baseline:"):
        return make_baseline(name.removeprefix("baseline:"), cameras.image_size)
    return kaleidoscene.load(name).for_shape(cameras).system.renderer


def main(captures: list[Path], models: list[str], counts: list[int], own_lens: bool) -> None:
    for path in captures:
        scene, protocol, references = held_out(path, max(counts), kaleidoscene.load("places") if own_lens else None)
        for name in models:
            scores = means(
                evaluate(renderer_of(name, scene.cameras), [scene], protocol, [n for n in counts if n <= references])
            )
            shown = " / ".join(f"{numbers['psnr']:.2f} dB {numbers['ssim']:.3f}" for numbers in scores.values())
            print(f"{path.name}, {name}, {', '.join(map(str, scores))} references: {shown}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path, nargs="+")
    parser.add_argument(
        "--models", nargs="+", default=["baseline:nearest", "baseline:plane-sweep", "default", "places"]
    )
    parser.add_argument("--references", type=int, nargs="+", default=[1, 3, 9])
    parser.add_argument("--own-lens", action="store_true")
    options = parser.parse_args()
    main(options.captures, options.models, options.references, options.own_lens)
