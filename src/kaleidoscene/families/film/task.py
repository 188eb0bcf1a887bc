"""Training of the frame interpolator: three neighbouring frames, the middle one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.samples import SHEET
from kaleidoscene.families.encoded_recipe import check_perceptual
from kaleidoscene.families.film.checkpoint import FAMILY, describe
from kaleidoscene.families.film.config import FilmSettings
from kaleidoscene.families.film.interpolator import Interpolator
from kaleidoscene.families.film.model import Film
from kaleidoscene.families.film.warping import pyramid
from kaleidoscene.folders import whole_folder
from kaleidoscene.nn.precision import no_autocast
from kaleidoscene.randomness import seeded
from kaleidoscene.rendering.outputs import SheetRow, write_contact_sheet
from kaleidoscene.training.task import PlainTask

_AUGMENTATION = 31
_MOST_CLIPS = 64
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class FilmLoss:
    """What is minimised: mean absolute difference, and a perceptual distance where its weights are given."""

    pixels: float = 1.0
    sizes: float = 0.0
    """Of the mean of the two moved frames at every size (ours): motion is learned where it is found, coarse first."""
    perceptual: float = 0.0
    """Of VGG19's features (--perceptual-weights)."""


class FilmTask(PlainTask):
    """Losses of a batch of clips of three frames."""

    family = FAMILY

    def __init__(self, settings: FilmSettings, loss: FilmLoss, perceptual: PerceptualDistance | None = None) -> None:
        check_perceptual(loss.perceptual, perceptual)
        self.settings, self.loss, self.perceptual = settings, loss, perceptual
        self.model: nn.Module = Film(settings.model)

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return describe(self.settings)

    def initialise(self, unit: nn.Module) -> None:
        """First weights: convolutions for leaky rectifiers; predictors of motion begin with none."""
        for module in unit.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
        for name, module in unit.named_modules():
            if name.endswith("out") and isinstance(module, nn.Conv2d):
                module.weight.data.mul_(0.01)

    def weight(self, views: Views) -> float:
        """One frame a clip."""
        return float(len(views.images))

    def system(self, model: nn.Module) -> NoReturn:
        """There is none."""
        raise KaleidosceneError("film puts frames between frames; it renders no cameras.")

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """The loss to minimise and its parts.

        Args:
            views: Clips of three frames each, in any order.
            seed: With the place of a scene in the run it tells how a clip is cut, turned and reversed.

        Raises:
            KaleidosceneError: They are no clips of three frames.
        """
        numbers = views.numbers or tuple(range(len(views.images)))
        frames = torch.stack([
            varied(clip, self.settings.image_size, seeded(seed, _AUGMENTATION, number))
            for clip, number in zip(in_order(views), numbers, strict=True)
        ])  # fmt: skip
        assert isinstance(self.model, Film)
        made, means = self.model.at_all_sizes(frames[:, 0], frames[:, 2])
        with no_autocast(made):
            terms = {"pixels": (made - frames[:, 1]).abs().mean()}
            total = self.loss.pixels * terms["pixels"]
            truths = pyramid(frames[:, 1], len(means))
            off = [(mean - truth).abs().mean() for mean, truth in zip(means, truths, strict=True)]
            terms["sizes"] = torch.stack(off).mean()
            total = total + self.loss.sizes * terms["sizes"]
            if self.perceptual is not None:
                terms["perceptual"] = self.perceptual(made, frames[:, 1])
                total = total + self.loss.perceptual * terms["perceptual"]
            blended = (0.5 * (frames[:, 0] + frames[:, 2]) - frames[:, 1]).abs().mean()
        return {"loss": total, "of_blending": blended} | {name: term.detach() for name, term in terms.items()}

    def validation(self, folder: Path) -> Callable[[nn.Module, Path | None], dict[str, float]]:
        """PSNR of the middle frame of held-out clips, and that of blending.

        Args:
            folder: Shards of clips (``kaleidoscene convert VIDEOS --shards``), of which up to 64 are taken.

        Raises:
            KaleidosceneError: They are no clips.
        """
        clips = _held_out_clips(folder)

        def validate(model: nn.Module, pictures: Path | None) -> dict[str, float]:
            assert isinstance(model, Film)
            interpolator = Interpolator(model, self.settings)
            frames = [interpolator.between(clip[0], clip[2]) for clip in clips]
            if pictures is not None:
                _write_sheet(pictures, clips, frames)
            made = [float(psnr(frame, clip[1])) for frame, clip in zip(frames, clips, strict=True)]
            blended = [float(psnr(0.5 * (clip[0] + clip[2]), clip[1])) for clip in clips]
            return {"psnr": sum(made) / len(made), "psnr_of_blending": sum(blended) / len(blended)}

        return validate


def _write_sheet(folder: Path, clips: Sequence[Tensor], frames: Sequence[Tensor]) -> None:
    """Some frames that were made, with those before and behind them, and the truth."""
    shown = [(clip[0], made, clip[1], clip[2]) for clip, made in list(zip(clips, frames, strict=True))[:_SHOWN]]
    labels = ("before", "made", "truth", "behind")
    rows = [SheetRow(label, list(images)) for label, images in zip(labels, zip(*shown, strict=True), strict=True)]
    with whole_folder(folder, overwrite=True) as partial:
        write_contact_sheet(partial / SHEET, rows)


def in_order(views: Views) -> Float[Tensor, "batch 3 3 h w"]:
    """The three frames of every clip as they follow each other.

    Raises:
        KaleidosceneError: They are no clips of three frames.
    """
    if views.times is None or not bool(views.is_video.all()) or views.images.shape[1] != 3:
        raise KaleidosceneError("film learns from clips of three frames (kaleidoscene convert VIDEOS --shards).")
    order = views.times.argsort(dim=1)
    return torch.stack([clip[places] for clip, places in zip(views.images, order, strict=True)])


def varied(
    clip: Float[Tensor, "3 3 h w"], size: tuple[int, int], generator: torch.Generator
) -> Float[Tensor, "3 3 ch cw"]:
    """A crop at random, mirrored, turned and reversed at random (FILM's augmentation).

    Raises:
        KaleidosceneError: The frames are smaller than the crop.
    """
    h, w = clip.shape[-2:]
    if h < size[0] or w < size[1]:
        raise KaleidosceneError(f"Frames of {h}x{w} are smaller than the crops of {size[0]}x{size[1]}.")
    top = int(torch.randint(h - size[0] + 1, (), generator=generator))
    left = int(torch.randint(w - size[1] + 1, (), generator=generator))
    clip = clip[..., top : top + size[0], left : left + size[1]]
    mirrored, upside_down, turned, reverse = (torch.rand(4, generator=generator) < 0.5).tolist()
    clip = clip.flip(-1) if mirrored else clip
    clip = clip.flip(-2) if upside_down else clip
    clip = clip.transpose(-1, -2) if turned and size[0] == size[1] else clip
    return clip.flip(0) if reverse else clip


def _held_out_clips(folder: Path) -> list[Float[Tensor, "3 3 h w"]]:
    shards, clips = ShardFolder(folder), []
    for number in range(0, len(shards), -(-len(shards) // _MOST_CLIPS)):
        stock = shards.stock(number)
        if not stock.is_video or stock.views < 3:
            raise KaleidosceneError(f"{folder}: {shards.key(number)} is no clip of three frames or more.")
        first = (stock.views - 3) // 2
        rgba = torch.from_numpy(shards.read(number, [first, first + 1, first + 2]).rgba).movedim(-1, 1).float() / 255
        clips.append(rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])
    return clips
