"""What a training run of 3DDiT is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.sampling import SINGLE
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene, StoredTokens
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import read_weights, resolve, shipped_weights
from kaleidoscene.families.dit3d.ahead import NOTE
from kaleidoscene.families.dit3d.checkpoint import FAMILY, load_autoencoder, load_model, weights_of
from kaleidoscene.families.dit3d.distillation import Dit3dDistillation, student_settings
from kaleidoscene.families.dit3d.plan import Dit3dPlan, flops_of, parameters_of
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.dit3d.task import Dit3dLoss, Dit3dTask
from kaleidoscene.families.students import NO_DISTILLATION, check_student, check_teacher, identity_of
from kaleidoscene.flow.distillation import Distillation
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost
from kaleidoscene.training.recipe import PlainRecipe, check_size

# Residual streams of one fp32 token that a block keeps for its backward pass, and those that stay where only its input
# is kept; bytes of a trained parameter: weight, gradient, two moments of AdamW and the running average.
_KEPT_STREAMS, _RECOMPUTED_STREAMS, _BYTES_PER_PARAMETER = 24, 1, 4 + 4 + 8 + 4


@dataclass(frozen=True, kw_only=True)
class Dit3dOptions:
    """What of a recipe may be changed where it is started."""

    autoencoder: str | None = None
    """Name, folder or hub id of the 3DRAE whose tokens are drawn."""
    distil: Distillation = NO_DISTILLATION
    """Learn to follow a trained model in fewer steps; start from its weights with --init."""
    classes: int | None = None
    """Classes of the labels that training scenes have; 0: none are asked for. By default those of the recipe."""
    tokens_ahead: bool = False
    """Shards hold tokens that were made ahead (examples/10_tokens_ahead.py): a step takes one draw of each scene, whose
    views were chosen, augmented and hidden then."""
    train: TrainConfig = TrainConfig()
    data: BatchConfig = BatchConfig()
    loss: Dit3dLoss = Dit3dLoss()
    synthetic: tyro.conf.AvoidSubcommands[SyntheticScenes | None] = SyntheticScenes()


@dataclass(frozen=True, kw_only=True)
class Dit3dRecipe(PlainRecipe):
    """One training run."""

    settings: Dit3dSettings
    loss: Dit3dLoss = Dit3dLoss()
    distil: Distillation = NO_DISTILLATION
    tokens_ahead: bool = False
    """Whether shards hold tokens, and a step takes one draw of each scene."""

    family = FAMILY
    remark = "without the autoencoder"

    @property
    def options(self) -> Dit3dOptions:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a command line may change."""
        return Dit3dOptions(
            train=self.train, data=self.data, loss=self.loss, synthetic=self.synthetic, distil=self.distil,
            tokens_ahead=self.tokens_ahead,
        )  # fmt: skip

    def changed(self, options: Dit3dOptions) -> Dit3dRecipe:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The recipe with other options.

        Raises:
            KaleidosceneError: They ask for views of another size, or say how tokens made ahead are drawn.
        """
        settings = self.settings
        check_size(options.data, settings.image_size)
        if options.tokens_ahead:
            self._check_ahead(options)
        if options.autoencoder is not None:
            settings = replace(settings, autoencoder=_from_anywhere(options.autoencoder))
        if options.classes is not None:
            settings = replace(settings, model=replace(settings.model, classes=options.classes))
        return replace(
            self, settings=settings, train=options.train, data=options.data, loss=options.loss,
            synthetic=options.synthetic, distil=options.distil, tokens_ahead=options.tokens_ahead,
        )  # fmt: skip

    def _check_ahead(self, options: Dit3dOptions) -> None:
        """Raise if options say how views are drawn, of which there are none any more."""
        ours, theirs = self.data, options.data
        if (ours.sampling, ours.augmentation, self.loss.hidden_share) != (
            theirs.sampling, theirs.augmentation, options.loss.hidden_share,
        ):  # fmt: skip
            raise KaleidosceneError(
                "--tokens-ahead: views were drawn, augmented and hidden when tokens were made; leave out "
                "--data.sampling, --data.augmentation and --loss.hidden-share."
            )

    @property
    def batches(self) -> BatchConfig:
        """``data`` at the size of the network; of tokens one draw of as many scenes as there are at most."""
        data = super().batches
        if not self.tokens_ahead:
            return data
        most = max(shape.batch_size for shape in data.shapes)
        return replace(data, batch_size=most, buckets=(), sampling=SINGLE, augmentation=Augmentation.none())

    @property
    def plan(self) -> Plan:
        """What rendering with its network costs."""
        return Dit3dPlan(self.settings)

    def identity(self) -> dict[str, Any]:
        """Loss, what a student follows, and whether tokens were made ahead."""
        ahead = {"tokens_ahead": True} if self.tokens_ahead else {}
        return {"loss": self.loss, **identity_of(self.distil), **ahead}

    def check_start(self, init: str | None, *, resumes: bool, has_shards: bool) -> None:
        """Raise if a student has nothing to begin from, or nobody gives the tokens that were made ahead."""
        if self.tokens_ahead and not has_shards:
            raise KaleidosceneError("--tokens-ahead: give --shards with tokens (examples/10_tokens_ahead.py).")
        check_student(self.distil, init, resumes=resumes)

    def training_costs(self, placement: Placement) -> Sequence[TrainingCost]:
        """Cost of a step."""
        config = self.settings.model
        parameters, out = parameters_of(config), []
        kept = _RECOMPUTED_STREAMS if placement.checkpointing else _KEPT_STREAMS
        streams = config.depth * config.width + config.head_depth * config.head_width
        for shape in self.batches.shapes:
            tokens = shape.batch_size * config.tokens
            local = tokens / (placement.processes * placement.parts)
            out.append(TrainingCost(
                parameters=parameters, tokens=tokens,
                flops=(4 if placement.checkpointing else 3) * shape.batch_size * flops_of(config),
                state_bytes=_BYTES_PER_PARAMETER * parameters // placement.shards,
                activation_bytes=int(4 * kept * streams * local),
            ))  # fmt: skip
        return out

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise if shards hold what is not asked for: tokens of another autoencoder, or in place of views."""
        if scene.latents is None and self.tokens_ahead:
            raise KaleidosceneError(f"{folder.name}: views, and no tokens that were made ahead of them.")
        if scene.latents is None:
            return
        if not isinstance(scene.latents, StoredTokens):
            raise KaleidosceneError(f"{folder.name}: latents of views, which 3DDiT has no use for.")
        if not self.tokens_ahead:
            raise KaleidosceneError(f"{folder.name}: holds tokens that were made ahead; give --tokens-ahead.")
        if json.loads(folder.read_note(NOTE))["autoencoder"] != weights_of(self.settings.autoencoder):
            raise KaleidosceneError(f"{folder.name}: tokens of another autoencoder than {self.settings.autoencoder}.")

    def make_task(self, device: str) -> Dit3dTask:
        """The task of a run, its network still without weights."""
        weights = weights_of(self.settings.autoencoder)
        settings = replace(self.settings, autoencoder_weights=weights)
        autoencoder = load_autoencoder(settings, device)
        if self.distil.teacher is None:
            with torch.device("meta"):
                return Dit3dTask(settings, self.loss, autoencoder)
        teacher, theirs = load_model(resolve(self.distil.teacher))
        check_teacher(self.distil, theirs.model, self.settings.model)
        if weights_of(theirs.autoencoder) != weights:
            raise KaleidosceneError(
                f"{self.distil.teacher}: draws tokens of {theirs.autoencoder}, the run has those of "
                f"{self.settings.autoencoder}; give --autoencoder."
            )
        own = replace(theirs, autoencoder=settings.autoencoder, autoencoder_weights=weights)
        student = student_settings(own, self.distil)
        with torch.device("meta"):
            return Dit3dDistillation(student, self.loss, autoencoder, teacher, self.distil)

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of a 3DDiT checkpoint, without the labels of the first stage where none are asked for any more."""
        weights = read_weights(folder)
        return {name: x for name, x in weights.items() if self.settings.model.classes or name != "labels.weight"}


def _from_anywhere(source: str) -> str:
    """A name or hub id as it is, a folder by its whole path, since a checkpoint is loaded from other places too."""
    shipped = source in [path.name for path in shipped_weights()]
    return source if shipped or not Path(source).is_dir() else str(Path(source).resolve())
