"""What a training run of RnG is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import read_weights
from kaleidoscene.families.rng.checkpoint import FAMILY
from kaleidoscene.families.rng.loss import RngLoss
from kaleidoscene.families.rng.plan import parameters_of, plan, source_flops, target_flops, view_tokens
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.task import RngTask
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost
from kaleidoscene.training.recipe import PlainRecipe

# Residual streams of one fp32 token that a layer keeps for its backward pass, and those that stay where only its input
# is kept; bytes of a trained parameter: weight, gradient, two moments of AdamW and the running average.
_KEPT_STREAMS, _RECOMPUTED_STREAMS, _BYTES_PER_PARAMETER = 42, 2, 4 + 4 + 8 + 4


@dataclass(frozen=True, kw_only=True)
class RngOptions:
    """What of a recipe may be changed where it is started."""

    features: str | None = None
    """Folder or hub id to load the recipe's DINOv2 from."""
    perceptual_weights: Path | None = None
    """``imagenet-vgg-verydeep-19.mat`` of MatConvNet, for --loss.perceptual."""
    train: TrainConfig = TrainConfig()
    data: BatchConfig = BatchConfig()
    loss: RngLoss = RngLoss()
    synthetic: tyro.conf.AvoidSubcommands[SyntheticScenes | None] = SyntheticScenes()


@dataclass(frozen=True, kw_only=True)
class RngRecipe(PlainRecipe):
    """One training run."""

    settings: RngSettings
    loss: RngLoss = RngLoss()
    perceptual_weights: Path | None = None

    family = FAMILY

    @property
    def options(self) -> RngOptions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a command line may change."""
        return RngOptions(train=self.train, data=self.data, loss=self.loss, synthetic=self.synthetic)

    def changed(self, options: RngOptions) -> RngRecipe:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The recipe with other options."""
        settings = self.settings
        if options.features is not None:
            if settings.model.encoder.kind != "dinov2":
                raise KaleidosceneError("--features: this recipe trains its own encoder of sources.")
            encoder = replace(settings.model.encoder, source=options.features)
            settings = replace(settings, model=replace(settings.model, encoder=encoder))
        return replace(
            self, settings=settings, train=options.train, data=options.data, loss=options.loss,
            synthetic=options.synthetic, perceptual_weights=options.perceptual_weights,
        )  # fmt: skip

    @property
    def plan(self) -> Plan:
        """What rendering with its network costs."""
        return plan(self.settings)

    @property
    def remark(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the costs of training leave out."""
        return "without DINOv2" if self.settings.model.encoder.kind == "dinov2" else ""

    def identity(self) -> dict[str, Any]:
        """The loss."""
        return {"loss": self.loss}

    def training_costs(self, placement: Placement) -> Sequence[TrainingCost]:
        """Cost of a step."""
        config, size = self.settings.model, self.settings.image_size
        parameters, out = parameters_of(config), []
        for shape in self.batches.shapes:
            sources, targets = self.data.sampling.of(shape.views).mean_counts()
            tokens = round(shape.batch_size * (sources + targets) * view_tokens(config, size))
            whole = max(1, round(sources))
            forward = shape.batch_size * (
                source_flops(config, whole, size) * sources / whole + targets * target_flops(config, whole, size)
            )
            local = tokens / (placement.processes * placement.parts)
            kept = _RECOMPUTED_STREAMS if placement.checkpointing else _KEPT_STREAMS
            streams = config.depth * kept + _KEPT_STREAMS
            pixels = shape.batch_size * targets * size[0] * size[1] / (placement.processes * placement.parts)
            out.append(TrainingCost(
                parameters=parameters, tokens=tokens,
                flops=round((4 if placement.checkpointing else 3) * forward),
                state_bytes=_BYTES_PER_PARAMETER * parameters // placement.shards,
                activation_bytes=int(4 * config.width * local * streams + 4 * pixels * 10 * config.dense.fused),
            ))  # fmt: skip
        return out

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise if there is no depth to learn from."""
        if scene.depth is None:
            raise KaleidosceneError(
                f"{folder.name}: no depth is stored, which RnG learns from; make shards with depth "
                "(kaleidoscene synthesize --scenes.depth)."
            )

    def make_task(self, device: str) -> RngTask:
        """The task of a run, its network still without weights."""
        features, encoder, perceptual = None, self.settings.model.encoder, None
        if encoder.kind == "dinov2":
            features = ResizedDinoV2.from_pretrained(encoder.source, self.settings.model.patch_size).to(device)
        if self.perceptual_weights is not None:
            perceptual = PerceptualDistance.read(self.perceptual_weights).to(device)
        with torch.device("meta"):
            return RngTask(self.settings, self.loss, features, perceptual)

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of an RnG checkpoint."""
        return read_weights(folder)
