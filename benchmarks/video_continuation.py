"""The same weights continue a video and render posed views: after clips alone, and after 3D training from there."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from anyview.api import Model, load
from anyview.cli.evaluate import read_objects
from anyview.data.conversion.clips import ClipConfig, clips_of
from anyview.evaluation.protocols import ESCHERNET_GSO
from anyview.evaluation.run import evaluate, means
from anyview.families.kaleido.renderer import KaleidoRenderer
from anyview.families.kaleido.system import KaleidoSystem
from benchmarks.common import write_result

KNOWN, NEW, STRIDE, REFERENCES = 5, 3, 2, (1, 3, 5)


def psnr(a: Tensor, b: Tensor) -> float:
    """Of two stacks of images."""
    return float(-10 * (a - b).square().mean().log10())


def first_clip(video: Path, size: tuple[int, int]) -> Tensor:
    """As many frames as a clip in training has."""
    config = ClipConfig(frames=KNOWN + NEW, least=KNOWN + NEW, strides=(STRIDE,))
    clip = next(iter(clips_of(video, video.stem, size, config)))
    return torch.from_numpy(clip.rgba[..., :3].copy()).movedim(-1, 1).float() / 255


def continued(renderer: KaleidoRenderer, clip: Tensor) -> float:
    """PSNR of the frames that the model makes of those before them."""
    made = renderer.continue_video(clip[None, :KNOWN], NEW, clip=KNOWN + NEW, seeds=list(range(NEW)))[0]
    return psnr(made, clip[KNOWN:])


def posed(model: Model, renderer: KaleidoRenderer, captures: Path, objects: int) -> list[float]:
    """PSNR of views at given poses, by number of references."""
    held_out = read_objects(captures, model)[:objects]
    found = means(evaluate(renderer, held_out, ESCHERNET_GSO, list(REFERENCES)))
    return [found[count]["psnr"] for count in REFERENCES]


def row(name: str, numbers: list[float]) -> str:
    """Of the table."""
    return f"| {name} | " + " | ".join(f"{number:.2f}" for number in numbers) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("captures", type=Path, help="held-out captures")
    parser.add_argument("models", type=Path, nargs="+", help="runs or checkpoints")
    parser.add_argument("--videos", type=Path, nargs="+", required=True, help="videos that were not trained on")
    parser.add_argument("--objects", type=int, default=12)
    options = parser.parse_args()
    lines = [
        f"{KNOWN} frames of a held-out video are known, every second one, and the next {NEW} are made; posed views of",
        f"{options.objects} held-out objects are EscherNet's protocol. No guidance; PSNR in dB.",
        "",
        "| weights | " + " | ".join([path.stem for path in options.videos] + [f"N = {n}" for n in REFERENCES]) + " |",
        "|---|" + "---|" * (len(options.videos) + len(REFERENCES)),
    ]
    for number, path in enumerate(options.models):
        model = load(path)
        assert isinstance(model.system, KaleidoSystem)
        renderer = model.system.renderer
        renderer = renderer.changed(sampling=replace(renderer.sampling, guidance=1.0))
        clips = [first_clip(video, model.image_size) for video in options.videos]
        if not number:
            copies = [psnr(clip[KNOWN - 1 : KNOWN], clip[KNOWN:]) for clip in clips]
            lines.append(row("copy of the last known frame", copies)[:-1] + "| |" + " |" * (len(REFERENCES) - 1))
        numbers = [continued(renderer, clip) for clip in clips]
        lines.append(row(f"`{path.name}`", numbers + posed(model, renderer, options.captures, options.objects)))
    write_result("video_continuation", "A video continued, and posed views, by the same weights", lines)


if __name__ == "__main__":
    main()
