"""How much noise on its tokens an autoencoder bears: views of six given ones, decoded from noised tokens.

    python -m benchmarks.rae3d_noise CAPTURES [--models rae3d RUN ...]

CAPTURES as for ``benchmarks.rae3d``. ``kaleidoscene ablate --suite rae3d --rows tokens-128 no-noise`` trains two that
differ in whether there was noise in training.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.common import read_views, write_result
from benchmarks.rae3d import VIEWS
from kaleidoscene.api import load
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.unposed import TrueViews
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer

SIZES, GIVEN = (0.0, 0.1, 0.2, 0.4, 0.8), 6
"""Of noise on tokens, whose variance is 1; views that they are made of."""
HEADER = [
    "| standard deviation | " + " | ".join(f"{size:g}" for size in SIZES) + " |", "|---" * (len(SIZES) + 1) + "|",
]  # fmt: skip


def with_noise(autoencoder: Rae3dRenderer, truth: TrueViews, views: Sequence[int]) -> list[float]:
    """PSNR of the views of a scene behind the first six, from tokens of these, for noise of every size."""
    six, rest = list(views[:GIVEN]), list(views[GIVEN:])
    cameras, found = truth.cameras[rest].reshape(1, len(rest)), []
    for size in SIZES:
        scene = autoencoder.encode(truth.images[None, six], truth.cameras[six].reshape(1, GIVEN))
        scene = autoencoder.expect(scene, cameras)
        assert scene.tokens is not None
        scene.tokens.add_(size * torch.randn(scene.tokens.shape, generator=torch.Generator().manual_seed(0)))
        made = autoencoder.render(scene, cameras, seeds=[0] * len(rest))
        found.append(float(psnr(made.images[0], truth.images[rest]).mean()))
    return found


def row(name: str, scores: Sequence[Sequence[float]]) -> str:
    """Means over scenes."""
    return f"| {name} | " + " | ".join(f"{sum(some) / len(some):.2f}" for some in zip(*scores, strict=True)) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("captures", type=Path)
    parser.add_argument("--models", nargs="+", default=["rae3d"])
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.captures.glob("*/transforms.json"))
    lines = []
    for name in options.models:
        model, draw, scores = load(name), random.Random(0), []
        renderer = model.system.renderer
        assert isinstance(renderer, Rae3dRenderer)
        for folder in folders:
            truth = read_views(folder, model)
            scores.append(with_noise(renderer, truth, draw.sample(range(len(truth.images)), VIEWS)))
        lines.append(row(Path(name).name, scores))
        print(lines[-1], flush=True)
    write_result("rae3d_noise", "Views decoded from noised tokens", [
        f"PSNR in dB of the ten views that were not given, of {len(folders)} scans; tokens of {GIVEN} views.", "",
        *HEADER, *lines,
    ])  # fmt: skip


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
