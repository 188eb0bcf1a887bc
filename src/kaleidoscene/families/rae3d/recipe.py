"""What a training run of 3DRAE is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.encoded_recipe import EncodedRecipe
from kaleidoscene.families.rae3d.checkpoint import FAMILY
from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.discriminator import FrozenLayers
from kaleidoscene.families.rae3d.loss import Rae3dLoss
from kaleidoscene.families.rae3d.plan import decode_flops, encode_flops, parameters_of, plan, view_tokens
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.families.rae3d.system import load_features
from kaleidoscene.families.rae3d.task import Rae3dTask
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost

# Residual streams of one fp32 token that a block keeps for its backward pass, and those that stay where only its input
# is kept; bytes of a trained parameter: weight, gradient, two moments of AdamW and the running average.
_KEPT_STREAMS, _RECOMPUTED_STREAMS, _BYTES_PER_PARAMETER = 21, 1, 4 + 4 + 8 + 4
# Softmaxes of attention that is told places: in fp32, and in the type of the values.
_KEPT_WEIGHTS = 1.5


@dataclass(frozen=True, kw_only=True)
class Rae3dOptions:
    """What of a recipe may be changed where it is started."""

    features: str | None = None
    """Folder or hub id to load the recipe's DINOv2 from."""
    discriminator_features: str | None = None
    """Folder or hub id to load the DINOv2 of the discriminator from."""
    perceptual_weights: Path | None = None
    """``imagenet-vgg-verydeep-19.mat`` of MatConvNet, for --loss.perceptual."""
    train: TrainConfig = TrainConfig()
    data: BatchConfig = BatchConfig()
    loss: Rae3dLoss = Rae3dLoss()
    synthetic: tyro.conf.AvoidSubcommands[SyntheticScenes | None] = SyntheticScenes()


@dataclass(frozen=True, kw_only=True)
class Rae3dRecipe(EncodedRecipe):
    """One training run."""

    settings: Rae3dSettings
    loss: Rae3dLoss = Rae3dLoss()

    family = FAMILY
    options_type = Rae3dOptions

    def changed(self, options: Rae3dOptions) -> Rae3dRecipe:
        """The recipe with other options.

        Raises:
            KaleidosceneError: A DINOv2 is given to a recipe that has no place for it, or the perceptual loss is left
                out and nothing stands in for it.
        """
        recipe = super().changed(options)
        if self.loss.perceptual and not recipe.loss.perceptual and not recipe.loss.gradients:
            raise KaleidosceneError(
                "--loss.perceptual 0: squared errors of pixels alone would blur; give --loss.gradients 1 with it, "
                "differences of neighbouring pixels, which need no weights."
            )
        if not recipe.loss.adversarial:  # nobody would teach it
            model = replace(recipe.settings.model, discriminator=None)
            recipe = replace(recipe, settings=replace(recipe.settings, model=model))
        if options.discriminator_features is None:
            return recipe
        model = recipe.settings.model
        if model.discriminator is None or model.discriminator.kind != "dinov2":
            raise KaleidosceneError("--discriminator-features: this recipe's discriminator looks at no DINOv2.")
        judge = replace(model.discriminator, source=options.discriminator_features)
        return replace(recipe, settings=replace(recipe.settings, model=replace(model, discriminator=judge)))

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise if they hold no views, or no depth where a depth of 0 is said to be background.

        Raises:
            KaleidosceneError: With what to make.
        """
        super().check_shards(folder, scene)
        if self.data.depth and self.loss.background and scene.depth is None:
            raise KaleidosceneError(
                f"{folder.name}: no depth is stored, from which the decoder of points learns; make shards with depth "
                "(kaleidoscene synthesize --scenes.depth, convert --shards.depth), or train rae3d-nano-images."
            )

    @property
    def plan(self) -> Plan:
        """What rendering with its network costs."""
        return plan(self.settings)

    def training_costs(self, placement: Placement) -> Sequence[TrainingCost]:
        """Cost of a step."""
        config = self.settings.model
        parameters, out = parameters_of(config), []
        decoders = 1 + (config.points is not None)
        for shape in self.batches.shapes:
            size = shape.image_size or self.settings.image_size
            sources, targets = self.data.sampling.of(shape.views).mean_counts()
            whole, one = max(1, round(sources)), max(1, round(targets))
            forward = shape.batch_size * (encode_flops(config, whole, size) + decode_flops(config, one, size))
            kept = _RECOMPUTED_STREAMS if placement.checkpointing else _KEPT_STREAMS
            view, latents = view_tokens(config, size), config.tokens
            decoded = targets * (view + latents) if config.decoder == "full" else targets * view + latents
            streams = config.neck_depth * (sources * view + latents) + decoders * config.decoder_depth * decoded
            shared = placement.processes * placement.parts
            pixels = shape.batch_size * targets * size[0] * size[1] / shared
            weights = _attention_bytes(config, sources, targets, view) * shape.batch_size / shared
            dense = 40 * pixels * config.points.fused if config.points else 0
            out.append(TrainingCost(
                parameters=parameters, tokens=round(shape.batch_size * (sources + targets) * view),
                flops=round((4 if placement.checkpointing else 3) * forward),
                state_bytes=_BYTES_PER_PARAMETER * parameters // placement.shards,
                activation_bytes=int(4 * config.width * kept * streams * shape.batch_size / shared + weights + dense),
            ))  # fmt: skip
        return out

    def make_task(self, device: str) -> Rae3dTask:
        """The task of a run, its network still without weights."""
        features, judge = load_features(self.settings, device), self.settings.model.discriminator
        layers = FrozenLayers.read(judge).to(device) if judge is not None and judge.kind == "dinov2" else None
        with torch.device("meta"):
            return Rae3dTask(self.settings, self.loss, features, self.perceptual(device), layers)


def _attention_bytes(config: Rae3dConfig, sources: float, targets: float, view: int) -> float:
    """What attention of a scene that is told places keeps for its backward pass; none where it is not told."""
    if not config.located:
        return 0.0
    neck = config.neck_depth * (sources * view + config.tokens) ** 2
    decoders = (1 + (config.points is not None)) * config.decoder_depth
    return 4 * _KEPT_WEIGHTS * config.heads * (neck + decoders * targets * view * (view + config.tokens))
