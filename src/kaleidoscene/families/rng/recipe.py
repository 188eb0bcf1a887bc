"""What a training run of RnG is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.encoded_recipe import EncodedRecipe
from kaleidoscene.families.rng.checkpoint import FAMILY
from kaleidoscene.families.rng.loss import RngLoss
from kaleidoscene.families.rng.plan import parameters_of, plan, source_flops, target_flops, view_tokens
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.task import RngTask
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost

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
class RngRecipe(EncodedRecipe):
    """One training run."""

    settings: RngSettings
    loss: RngLoss = RngLoss()

    family = FAMILY
    options_type = RngOptions

    @property
    def plan(self) -> Plan:
        """What rendering with its network costs."""
        return plan(self.settings)

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
                "(kaleidoscene synthesize --scenes.depth, convert --shards.depth)."
            )

    def make_task(self, device: str) -> RngTask:
        """The task of a run, its network still without weights."""
        features, config = None, self.settings.model
        if config.encoder.kind == "dinov2":
            features = ResizedDinoV2.from_pretrained(config.encoder.source, config.patch_size, config.width).to(device)
        with torch.device("meta"):
            return RngTask(self.settings, self.loss, features, self.perceptual(device))
