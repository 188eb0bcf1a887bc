"""RnG's weights under its protocol: cameras, depth, new views and shape of unseen scans, beside other ways to get them.

    python -m benchmarks.rng CAPTURES [--model rng] [--counts 1 2 4 6] [--no-others]

CAPTURES is what ``kaleidoscene synthesize CAPTURES --captures --scenes.depth --scenes.meshes TEST_MESHES
--scenes.image-size 128 128`` writes. 14 of the 25 views of a scene are drawn with seed 0; the first 4 are sources, the
last 10 targets (method B.11).
"""

import argparse
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from benchmarks.common import read_views, write_result
from kaleidoscene.api import Model, load
from kaleidoscene.captures.formats.photos import read_photos
from kaleidoscene.captures.posing import PoseConfig, estimate_poses
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.baselines import make_baseline
from kaleidoscene.evaluation.metrics.image import psnr, ssim
from kaleidoscene.evaluation.unposed import TrueViews, UnposedSplit, draw_splits, render_some, score_unposed
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.pixels import resize_image, to_bytes
from kaleidoscene.reconstruction.fusion import FusionConfig
from kaleidoscene.rendering.renderer import estimated_cameras

COLUMNS = {
    "ra5": "RA@5", "ra15": "RA@15", "ra30": "RA@30", "rt5": "RT@5", "rt15": "RT@15", "rt30": "RT@30", "auc30": "AUC@30",
    "source rel": "Rel, sources", "source a1": "a1", "target rel": "Rel, targets", "target a1": "a1", "psnr": "PSNR",
    "ssim": "SSIM", "chamfer": "CD",
}  # fmt: skip
Scores = list[dict[str, float]]


def row(name: str, scores: Sequence[Mapping[str, float]]) -> str:
    cells = []
    for key in COLUMNS:
        values = [score[key] for score in scores if key in score]
        digits = 3 if key in ("ssim", "chamfer") else 2 if key == "psnr" else 1
        cells.append(f"{sum(values) / len(values):.{digits}f}" if values else "")
    return f"| {name} | " + " | ".join(cells) + " |"


def with_kaleido(
    kaleido: Model, truth: TrueViews, split: UnposedSplit, cameras: Cameras, size: tuple[int, int]
) -> dict[str, float]:
    """Kaleido's weights, told that the first four sources are where ``cameras`` say, and scored at ``size``.

    Args:
        kaleido: The model.
        truth: Views of the scene as Kaleido takes them.
        split: Which are sources and targets.
        cameras: What it is told of the sources.
        size: Of images that are compared.
    """
    sources, targets = list(split.sources[: len(cameras)]), list(split.targets)
    renderer = kaleido.system.renderer
    scene = renderer.encode(truth.images[None, sources], cameras.reshape(1, len(cameras)))
    scene = renderer.expect(scene, truth.cameras[targets].reshape(1, len(targets)))
    new = render_some(renderer, scene, truth.cameras[targets]).images[0]
    new, true = resize_image(new, size), resize_image(truth.images[targets], size)
    return {"psnr": float(psnr(new, true).mean()), "ssim": float(ssim(new, true).mean())}


def registered_of(images: Float[Tensor, "n 3 h w"]) -> int:
    """How many of some images structure from motion gives cameras."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "images").mkdir()
        for number, image in enumerate(images):
            Image.fromarray(to_bytes(image)).save(folder / "images" / f"{number:02d}.png")
        return estimate_poses(
            read_photos(folder / "images"), folder / "out", PoseConfig(), on_stage=lambda stage: None
        ).registered
    except KaleidosceneError:
        return 0
    finally:
        shutil.rmtree(folder)


class Study:
    """Scores of all scenes by what they are of."""

    def __init__(self, model: Model, counts: Sequence[int], *, others: bool) -> None:
        self.model, self.counts, self.fusion = model, counts, FusionConfig()
        names = ("nearest", "plane-sweep") if others else ()
        self.baselines = {name: make_baseline(name, model.image_size) for name in names}
        self.kaleido = load("default") if others else None
        self.scores: dict[str, Scores] = {}
        self.registered: list[int] = []

    def keep(self, name: str, scores: dict[str, float]) -> None:
        self.scores.setdefault(name, []).append(scores)

    def scene(self, folder: Path, split: UnposedSplit) -> None:
        truth = read_views(folder, self.model)
        renderer = self.model.system.renderer
        for count in self.counts:
            self.keep(f"rng, N = {count}", score_unposed(renderer, truth, split, count, self.fusion))
        for name, baseline in self.baselines.items():
            self.keep(f"{name}, true cameras, N = 4", score_unposed(baseline, truth, split, 4, self.fusion))
        if self.baselines:
            self.registered.append(registered_of(truth.images[list(split.sources[:4])]))
        if self.kaleido is not None:
            four, larger = list(split.sources[:4]), read_views(folder, self.kaleido)
            seen = renderer.encode(truth.images[None, four], truth.cameras[four].reshape(1, 4))
            estimated = estimated_cameras(seen)
            assert estimated is not None
            true = larger.cameras[four]
            told = replace(true, world_from_cam=estimated.world_from_cam[0].to(true.world_from_cam))
            for name, cameras in (("true", true), ("rng's", told)):
                scores = with_kaleido(self.kaleido, larger, split, cameras, self.model.image_size)
                self.keep(f"default (Kaleido), {name} cameras, N = 4", scores)

    def lines(self) -> list[str]:
        scenes, side = len(next(iter(self.scores.values()))), self.model.image_size[0]
        lines = [
            f"{scenes} scans that were not trained on, {side} px. Shares and Rel in percent, PSNR in dB, CD (both "
            "directions) in distances of the first camera; means over scenes.", "",
            "| | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|",
            *(row(name, of) for name, of in self.scores.items()), "",
        ]  # fmt: skip
        if self.registered:
            whole, parts = (sum(n in some for n in self.registered) for some in ((4,), (2, 3)))
            lines.append(
                f"Structure from motion on the same four views at this size: all four registered in {whole} of "
                f"{len(self.registered)} scenes, two or three in {parts}."
            )
        return lines


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("captures", type=Path)
    parser.add_argument("--model", default="rng")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2, 4, 6])
    parser.add_argument("--others", action=argparse.BooleanOptionalAction, default=True)
    options = parser.parse_args()
    model = load(options.model)
    study = Study(model, options.counts, others=options.others)
    folders = sorted(path.parent for path in options.captures.glob("*/transforms.json"))
    splits = draw_splits([folder.name for folder in folders], 25)
    for folder in folders:
        study.scene(folder, splits[folder.name])
        print(folder.name, flush=True)
    write_result("rng", "RnG under its protocol", study.lines())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
