"""What finer rays, outlines and a coarse pass are worth, in dB and seconds a view, with the default weights.

python -m benchmarks.outlines CAPTURES [--references 1 3 10]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

import kaleidoscene
from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.run import HeldOutObject
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer

FIRST_TARGET = 10
VARIANTS = {
    "as trained": (1, False, False), "finer": (2, False, False), "outlines": (1, True, False),
    "both": (2, True, False), "coarse to fine": (2, True, True),
}  # fmt: skip


def renderers() -> dict[str, KaleidoRenderer]:
    """The default weights with other ways of looking along rays."""
    shipped = kaleidoscene.load("default").system
    assert isinstance(shipped.renderer, KaleidoRenderer)
    found = {}
    for name, (points, outlines, coarse) in VARIANTS.items():
        config = replace(
            shipped.renderer.settings.model, points_per_depth=points, outlines=outlines, coarse_to_fine=coarse
        )
        model = Kaleido(config).eval().requires_grad_(False)
        model.load_state_dict(shipped.renderer.model.state_dict())
        settings = replace(shipped.renderer.settings, model=config)
        found[name] = KaleidoRenderer(model, settings, make_codec(settings.codec))
    return found


def scored(renderer: KaleidoRenderer, thing: HeldOutObject, count: int) -> tuple[float, float]:
    """PSNR and seconds a view; targets are the views behind all references."""
    targets = list(range(max(count, FIRST_TARGET), len(thing.cameras)))
    scene = renderer.encode(thing.images[None, :count], thing.cameras[list(range(count))].reshape(1, count))
    started = time.perf_counter()
    made = renderer.render(scene, thing.cameras[targets].reshape(1, len(targets)), seeds=targets, independent=True)
    seconds = (time.perf_counter() - started) / len(targets)
    return float(psnr(made.images[0], thing.images[targets]).mean()), seconds


def main(captures: Path, counts: list[int]) -> None:
    torch.set_num_threads(1)
    ways = renderers()
    things = read_objects(captures, kaleidoscene.load("default").system)
    print(f"{len(things)} captures, one thread: PSNR in dB, seconds a view")
    for count in counts:
        rows = {name: [scored(way, thing, count) for thing in things] for name, way in ways.items()}
        means = {name: [sum(column) / len(column) for column in zip(*row, strict=True)] for name, row in rows.items()}
        said = "   ".join(f"{name} {found[0]:.2f} {found[1]:.3f}" for name, found in means.items())
        print(f"{count:3} references: {said}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captures", type=Path)
    parser.add_argument("--references", type=int, nargs="+", default=[1, 2, 3, 4, 5, 10, 20])
    chosen = parser.parse_args()
    main(chosen.captures, chosen.references)
