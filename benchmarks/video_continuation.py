"""The same weights continue a video and render posed views: after clips alone, and after 3D training from there."""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import write_result
from kaleidoscene.api import Model, load
from kaleidoscene.datasets.clips import ClipConfig, clips_of
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.protocols import ESCHERNET_GSO
from kaleidoscene.evaluation.run import evaluate, means
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.system import KaleidoSystem
from kaleidoscene.families.kaleido.video import continue_video

KNOWN, NEW, REFERENCES = 5, 3, (1, 3, 5)


def psnr(a: Tensor, b: Tensor) -> float:
    """Of two stacks of images."""
    return float(-10 * (a - b).square().mean().log10())


def clips(video: Path, size: tuple[int, int]) -> list[Tensor]:
    """The video cut into clips of as many frames as in training."""
    config = ClipConfig(frames=KNOWN + NEW, least=KNOWN + NEW, strides=(2,))
    found = clips_of(video, video.stem, size, config)
    return [torch.from_numpy(clip.rgba[..., :3].copy()).movedim(-1, 1).float() / 255 for clip in found]


def continued(renderer: KaleidoRenderer, clip: Tensor) -> float:
    """PSNR of the frames that the model makes of those before them."""
    made = continue_video(renderer, clip[None, :KNOWN], NEW, clip=KNOWN + NEW, seeds=list(range(NEW)))[0]
    return psnr(made, clip[KNOWN:])


def posed(model: Model, renderer: KaleidoRenderer, captures: Path, objects: int) -> list[float]:
    """PSNR of views at given poses, by number of references."""
    held_out = read_objects(captures, model.system)[:objects]
    found = means(evaluate(renderer, held_out, ESCHERNET_GSO, list(REFERENCES)))
    return [found[count]["psnr"] for count in REFERENCES]


def row(name: str, numbers: list[float]) -> str:
    """Of the table."""
    return f"| {name} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path, help="held-out captures")
    parser.add_argument("models", type=Path, nargs="+", help="runs or checkpoints")
    parser.add_argument("--video", type=Path, required=True, help="one that was not trained on")
    parser.add_argument("--objects", type=int, default=12)
    options = parser.parse_args()
    lines: list[str] = []
    for path in options.models:
        model = load(path)
        assert isinstance(model.system, KaleidoSystem)
        renderer = model.system.renderer
        renderer = renderer.changed(sampling=replace(renderer.sampling, guidance=1.0))
        found = clips(options.video, model.image_size)
        if not lines:
            copy = statistics.fmean(psnr(clip[KNOWN - 1 : KNOWN], clip[KNOWN:]) for clip in found)
            lines = [
                f"`{options.video.stem}` in {len(found)} clips of every second frame: {KNOWN} known, the next {NEW}",
                f"made. Posed views of {options.objects} held-out objects. Without guidance; mean PSNR in dB.",
                "",
                "| weights | frames that follow | " + " | ".join(f"N = {count}" for count in REFERENCES) + " |",
                "|---|---|" + "---|" * len(REFERENCES),
                f"| copy of the last known frame | {copy:.2f} |" + " |" * len(REFERENCES),
            ]
        numbers = [statistics.fmean(continued(renderer, clip) for clip in found)]
        lines.append(row(f"`{path.name}`", numbers + posed(model, renderer, options.captures, options.objects)))
    write_result("video_continuation", "A video continued, and posed views, by the same weights", lines)


if __name__ == "__main__":
    main()
