"""What 3DDiT draws of one view beside what 3DRAE decodes of it: distance of feature sets, diversity, poses.

    python -m benchmarks.dit3d CAPTURES [--model dit3d] [--samples 4]

CAPTURES as for ``benchmarks.rae3d``, whose 16 views of a scene are taken: the first is given, the others are scored.

Feature sets are of the autoencoder's own encoder, since Inception and DINOv2 need their weights: an image by itself, as
the only view of its world, and the mean of its tokens. Their distances compare ways within this table and nothing else.
"""

import argparse
import random
from itertools import combinations
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from benchmarks.common import read_views, write_result
from benchmarks.rae3d import VIEWS, rendered
from benchmarks.rng import registered_of
from kaleidoscene.api import Model, load
from kaleidoscene.evaluation.metrics.distribution import frechet_distance
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.families.dit3d.renderer import Dit3dRenderer
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.renderer import TARGET_SEEDS
from kaleidoscene.workflows.generation import Generation


def features(autoencoder: Rae3dRenderer, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n width"]:
    """Mean tokens of images, each by itself in front of one and the same camera."""
    h, w = images.shape[-2:]
    pose = torch.eye(4).expand(len(images), 1, 4, 4)
    camera = Cameras.from_field_of_view(pose, autoencoder.settings.field_of_view * torch.pi / 180, (h, w))
    scene = autoencoder.with_tokens(autoencoder.encode(images[:, None], camera))
    assert scene.tokens is not None
    return scene.tokens.mean(1)


def generated(model: Model, count: int, views: int) -> Float[Tensor, "n 3 h w"]:
    """Views around each of some objects of nothing."""
    renderer = model.system.renderer
    assert isinstance(renderer, Dit3dRenderer)
    turntable = Generation(
        out=Path(), name="", model=model, samples=1, frames=views, elevation=20.0, distance=1.85, seed=0, fps=12.0,
        overwrite=False,
    ).cameras  # fmt: skip
    images = []
    for seed in range(count):
        around = turntable.reshape(1, views)
        seeds = [seed * TARGET_SEEDS + place for place in range(views)]
        images.append(renderer.render(renderer.imagine(around), around, seeds=seeds).images[0])
    return torch.cat(images)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("captures", type=Path)
    parser.add_argument("--model", default="dit3d")
    parser.add_argument("--samples", type=int, default=4)
    options = parser.parse_args()
    model = load(options.model)
    drawing = model.system.renderer
    assert isinstance(drawing, Dit3dRenderer)
    decoding = drawing.autoencoder.renderer
    sets: dict[str, list[Tensor]] = {}
    scores: dict[str, list[float]] = {}
    found, draw = [], random.Random(0)
    for path in sorted(options.captures.glob("*/transforms.json")):
        views, truth = draw.sample(range(25), VIEWS), read_views(path.parent, model)
        given, targets = views[:1], views[1:]
        true = truth.images[targets]
        sets.setdefault("truth", []).append(true)
        answer = rendered(decoding, truth, given, targets).images[0]
        again = [rendered(drawing, truth, given, views, seed).images[0] for seed in range(options.samples)]
        made = [images[1:] for images in again]
        kept = torch.stack([psnr(images[:1], truth.images[given]).mean() for images in again]).mean()
        scores.setdefault("kept", []).append(float(kept))
        scores.setdefault("mean", []).append(float(psnr(torch.stack(made).mean(0), true).mean()))
        for name, images in (("decoded", answer), ("drawn", made[0])):
            sets.setdefault(name, []).append(images)
        each = torch.stack([psnr(images, true).mean() for images in made])
        scores.setdefault("decoded", []).append(float(psnr(answer, true).mean()))
        scores.setdefault("drawn", []).append(float(each.mean()))
        scores.setdefault("best", []).append(float(each.max()))
        apart = [float((a - b).square().mean().sqrt()) for a, b in combinations(made, 2)]
        scores.setdefault("apart", []).append(sum(apart) / len(apart))
        found.append(registered_of(made[0]))
        print(path.parent.name, flush=True)
    known = features(decoding, torch.cat(sets["truth"]))
    objects = features(decoding, generated(model, len(found), VIEWS - 1))
    count = sum(map(len, sets["truth"]))
    distances = {
        name: frechet_distance(known, features(decoding, torch.cat(sets[name]))).value for name in ("decoded", "drawn")
    }
    distances["of nothing"] = frechet_distance(known, objects).value

    def mean(name: str) -> float:
        return sum(scores[name]) / len(scores[name])

    write_result("dit3d", "3DDiT beside 3DRAE, of one view", [
        f"{len(found)} scans that were not trained on, {model.image_size[0]} px, the 15 views of each that were not "
        f"given. FD: distance of {count} images from the {count} true ones in the mean tokens of the autoencoder's own "
        "encoder.", "", "| | PSNR | FD |", "|---|---|---|",
        f"| decoded by the autoencoder | {mean('decoded'):.2f} | {distances['decoded']:.3f} |",
        f"| drawn | {mean('drawn'):.2f} | {distances['drawn']:.3f} |",
        f"| the best of {options.samples} drawn | {mean('best'):.2f} | |",
        f"| the mean of {options.samples} drawn | {mean('mean'):.2f} | |",
        f"| {len(found)} objects of nothing | | {distances['of nothing']:.3f} |", "",
        f"Samples are {mean('apart'):.3f} apart (root mean square of colours in [0, 1]); the autoencoder's answer is "
        f"one. The given view comes back at {mean('kept'):.2f} dB.", "",
        f"Structure from motion on the 15 drawn views: cameras of {sum(found)} of {15 * len(found)} views, so that no "
        "ATE can be told at this size.",
    ])  # fmt: skip


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
