"""Runs of the frame interpolator: the paper's size, and a small one for a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import read_weights
from kaleidoscene.families.film.checkpoint import FAMILY
from kaleidoscene.families.film.config import FilmConfig, FilmSettings
from kaleidoscene.families.film.model import Film
from kaleidoscene.families.film.task import FilmLoss, FilmTask
from kaleidoscene.rendering.cost import Cost, PlainPlan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost
from kaleidoscene.training.optim import OptimConfig
from kaleidoscene.training.recipe import PlainRecipe

# Of a trained parameter: weight, gradient, two moments of AdamW and the running average. Of a pixel at full size and
# filter, fp32: what a step keeps for its backward pass, counted by hand on both directions and all sizes.
_BYTES_PER_PARAMETER, _KEPT_PER_FILTER = 4 + 4 + 8 + 4, 4 * 60


@dataclass(frozen=True, kw_only=True)
class FilmOptions:
    """What of a recipe may be changed where it is started."""

    perceptual_weights: Path | None = None
    """``imagenet-vgg-verydeep-19.mat`` of MatConvNet, for --loss.perceptual."""
    train: TrainConfig = TrainConfig()
    data: BatchConfig = BatchConfig()
    loss: FilmLoss = FilmLoss()


@dataclass(frozen=True, kw_only=True)
class FilmRecipe(PlainRecipe):
    """One training run."""

    settings: FilmSettings
    loss: FilmLoss = FilmLoss()
    perceptual_weights: Path | None = None
    synthetic: SyntheticScenes | None = None

    family = FAMILY

    @property
    def batches(self) -> BatchConfig:
        """Frames as they are stored: crops are drawn from them by the task."""
        return self.data

    @property
    def options(self) -> Any:
        """What a command line may change."""
        return FilmOptions(perceptual_weights=self.perceptual_weights, train=self.train, data=self.data, loss=self.loss)

    def changed(self, options: Any) -> FilmRecipe:
        """The recipe with other options."""
        return replace(
            self, perceptual_weights=options.perceptual_weights, train=options.train, data=options.data,
            loss=options.loss,
        )  # fmt: skip

    @property
    def plan(self) -> PlainPlan:
        """What a frame between two costs."""
        return plan(self.settings)

    def training_costs(self, placement: Placement) -> Sequence[TrainingCost]:
        """Cost of a step."""
        config, size = self.settings.model, self.settings.image_size
        parameters, clips = parameters_of(config), self.data.batch_size
        pixels = clips * size[0] * size[1]
        return [TrainingCost(
            parameters=parameters, tokens=3 * pixels,
            flops=(4 if placement.checkpointing else 3) * clips * frame_flops(config, size),
            state_bytes=_BYTES_PER_PARAMETER * parameters // placement.shards,
            activation_bytes=_KEPT_PER_FILTER * config.filters * pixels // (placement.processes * placement.parts),
        )]  # fmt: skip

    @property
    def remark(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Nothing is left out of the costs but the perceptual distance."""
        return "without the perceptual distance" if self.loss.perceptual else ""

    def identity(self) -> dict[str, Any]:
        """The loss."""
        return {"loss": self.loss}

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise unless scenes are clips that crops fit into.

        Raises:
            KaleidosceneError: They have no times, or are too small.
        """
        if scene.times is None:
            raise KaleidosceneError(f"{folder.name}: film learns from clips (kaleidoscene convert VIDEOS --shards).")
        (h, w), (least_h, least_w) = scene.rgba.shape[1:3], self.settings.image_size
        if h < least_h or w < least_w:
            raise KaleidosceneError(f"{folder.name}: frames of {h}x{w}, crops are {least_h}x{least_w}.")

    def make_task(self, device: str) -> FilmTask:
        """The task of a run, its network still without weights."""
        weights = self.perceptual_weights
        perceptual = None if weights is None else PerceptualDistance.read(weights).to(device)
        with torch.device("meta"):
            return FilmTask(self.settings, self.loss, perceptual)

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of a checkpoint."""
        return read_weights(folder)


def plan(settings: FilmSettings) -> PlainPlan:
    """What a checkpoint's frames cost: ``targets`` of them, each between two."""

    def cost(references: int, targets: int, image_size: tuple[int, int]) -> Cost:
        del references
        multiple = settings.model.multiple
        h, w = (-(-side // multiple) * multiple for side in image_size)
        memory = 4 * 20 * settings.model.filters * h * w
        return Cost(parameters_of(settings.model), targets * frame_flops(settings.model, (h, w)), memory, 0)

    return PlainPlan(settings.image_size, cost)


@cache
def parameters_of(config: FilmConfig) -> int:
    """Of the network."""
    with torch.device("meta"):
        return sum(p.numel() for p in Film(config).parameters())


@cache
def frame_flops(config: FilmConfig, image_size: tuple[int, int]) -> int:
    """Operations of a frame between two: multiply-adds of convolutions times two."""
    with torch.device("meta"):
        frame, network = torch.zeros(1, 3, *image_size), Film(config)
        with FlopCounterMode(display=False) as counter:
            network(frame, frame)
    return counter.get_total_flops()


def film_paper() -> FilmRecipe:
    """The published interpolator: 34.4M parameters, crops of 256 px, 3M steps of 8 clips; needs --shards of clips."""
    return FilmRecipe(
        settings=FilmSettings(model=FilmConfig()),
        loss=FilmLoss(perceptual=0.25),
        data=_clips(batch_size=8),
        train=TrainConfig(
            steps=3_000_000, precision="bf16", device="cuda", sharding="ddp", workers=8,
            optim=OptimConfig(learning_rate=1e-4, warmup=1000, cooldown=1.0, fall="cosine", betas=(0.9, 0.999)),
        ),
    )  # fmt: skip


def film_nano() -> FilmRecipe:
    """For a CPU: 0.6M parameters, crops of 96 px, mean absolute difference; needs --shards of clips."""
    return FilmRecipe(
        settings=FilmSettings(
            model=FilmConfig(
                filters=16, levels=6, fusion_levels=4, own_levels=2, tree_levels=3, flow_convolutions=(3, 3, 3),
                flow_filters=(16, 32, 64), blend=True,
            ),
            image_size=(96, 96),
        ),
        loss=FilmLoss(sizes=1.0),
        data=_clips(batch_size=16),
        train=TrainConfig(
            steps=6000, ema_decay=0.998, log_every=10, validate_every=250, checkpoint_every=250,
            optim=OptimConfig(learning_rate=5e-4, warmup=100, cooldown=0.9, fall="cosine", betas=(0.9, 0.99)),
        ),
    )  # fmt: skip


def film_debug() -> FilmRecipe:
    """A tiny run that ends in seconds on a CPU, for tests and first steps; needs --shards of clips."""
    base = film_nano()
    model = replace(base.settings.model, filters=4, levels=4, fusion_levels=3, flow_filters=(4, 4, 6))
    return replace(
        base,
        settings=FilmSettings(model=model, image_size=(16, 24)),
        data=_clips(batch_size=2),
        train=replace(
            base.train, steps=20, validate_every=20, checkpoint_every=10, workers=0, precision="fp32",
        ),
    )  # fmt: skip


def _clips(batch_size: int) -> BatchConfig:
    """Three neighbouring frames of every clip, without the augmentation of posed views."""
    return BatchConfig(
        batch_size=batch_size, reference_dropout=0.0, augmentation=Augmentation.none(),
        sampling=ViewSampling(views=3, kind="fixed", masking="none"),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], FilmRecipe]] = {
    "film-debug": film_debug,
    "film-nano": film_nano,
    "film-paper": film_paper,
}
"""Every recipe by the name the command line knows it by."""
