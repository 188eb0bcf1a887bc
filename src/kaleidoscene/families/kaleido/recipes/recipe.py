"""What a training run of Kaleido is made of."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.latents import NOTE
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene, StoredTokens
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.encoders.features import DinoV2
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import read_weights, resolve
from kaleidoscene.families.kaleido.checkpoint import FAMILY, load_model
from kaleidoscene.families.kaleido.distillation import KaleidoDistillation, student_settings
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.plan import KaleidoPlan, token_grid
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from kaleidoscene.families.kaleido.training_cost import training_cost
from kaleidoscene.families.students import NO_DISTILLATION, check_student, check_teacher, identity_of
from kaleidoscene.flow.distillation import Distillation
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost
from kaleidoscene.training.recipe import check_size


@dataclass(frozen=True, kw_only=True)
class KaleidoOptions:
    """What of a recipe may be changed where it is started."""

    autoencoder: str | None = None
    """Folder or hub id (OWNER/NAME or OWNER/NAME/FOLDER) to load the recipe's autoencoder from."""
    features: str | None = None
    """Folder or hub id to load the recipe's DINOv2 from."""
    field_of_view: float | None = None
    """Degrees of the shorter side, in place of the recipe's, for shards that were made with another
    (kaleidoscene convert --shards.field-of-view)."""
    distil: Distillation = NO_DISTILLATION
    """Learn to follow a trained model in fewer steps; start from its weights with --init."""
    train: TrainConfig = TrainConfig()
    data: BatchConfig = BatchConfig()
    loss: KaleidoLoss = KaleidoLoss()
    synthetic: tyro.conf.AvoidSubcommands[SyntheticScenes | None] = SyntheticScenes()


@dataclass(frozen=True, kw_only=True)
class KaleidoRecipe:
    """One training run."""

    settings: KaleidoSettings
    loss: KaleidoLoss = KaleidoLoss()
    data: BatchConfig = BatchConfig()
    synthetic: SyntheticScenes | None = SyntheticScenes()
    """What to render ahead where no shards are given; None: shards must be given."""
    train: TrainConfig = TrainConfig()
    distil: Distillation = NO_DISTILLATION
    other_lens: bool = False
    """Whether the field of view is that of given shards, so that none can be rendered here."""

    family = FAMILY

    @property
    def batches(self) -> BatchConfig:
        """``data`` at the size of the network, where it has no buckets of its own."""
        return self.data if self.data.buckets else replace(self.data, image_size=self.settings.image_size)

    @property
    def options(self) -> KaleidoOptions:
        """What a command line may change."""
        return KaleidoOptions(
            distil=self.distil, train=self.train, data=self.data, loss=self.loss, synthetic=self.synthetic
        )

    def changed(self, options: KaleidoOptions) -> KaleidoRecipe:
        """The recipe with other options.

        Raises:
            KaleidosceneError: They ask for what its network has not, or for views of another size.
        """
        settings, angle = self.settings, options.field_of_view
        check_size(options.data, settings.image_size)
        if options.autoencoder is not None:
            if settings.codec.kind != "kl":
                raise KaleidosceneError("--autoencoder: this recipe works on pixels and has none.")
            settings = replace(settings, codec=replace(settings.codec, source=options.autoencoder))
        if options.features is not None:
            if not settings.model.feature_channels:
                raise KaleidosceneError("--features: this recipe has no features of references.")
            settings = replace(settings, feature_source=options.features)
        if angle is not None:
            if settings.lenses is not None:
                raise KaleidosceneError(
                    "--field-of-view: this recipe has lenses of many angles, and takes those of shards."
                )
            if not 1 <= angle < 180:
                raise KaleidosceneError(f"--field-of-view must be from 1 to below 180 degrees, got {angle:g}.")
            settings = replace(settings, field_of_view=angle)
        return replace(
            self, settings=settings, train=options.train, data=options.data, loss=options.loss,
            synthetic=options.synthetic, distil=options.distil, other_lens=self.other_lens or angle is not None,
        )  # fmt: skip

    @property
    def plan(self) -> KaleidoPlan:
        """What rendering with its network costs."""
        return KaleidoPlan(self.settings)

    def training_costs(self, placement: Placement) -> Sequence[TrainingCost]:
        """Cost of a step of each of the shapes of its batches."""
        with torch.device("meta"):
            parameters = sum(p.numel() for p in Kaleido(self.settings.model).parameters())
        return [
            training_cost(
                self.settings.model, parameters, views=self.data.sampling.of(shape.views).mean_views(),
                batch=shape.batch_size, placement=placement, reprojection_stride=self.loss.reprojection_stride,
                grid=token_grid(self.settings, shape.image_size or self.settings.image_size),
            )
            for shape in self.batches.shapes
        ]  # fmt: skip

    @property
    def remark(self) -> str:
        """What the costs of training leave out."""
        if self.settings.model.feature_channels or self.settings.codec.kind == "kl":
            return "without autoencoder and DINOv2, which latents made ahead (kaleidoscene convert) spare"
        return ""

    def identity(self) -> dict[str, Any]:
        """Loss, and what a student follows."""
        return {"loss": self.loss, **identity_of(self.distil)}

    def check_start(self, init: str | None, *, resumes: bool, has_shards: bool) -> None:
        """Raise if a student has nothing to begin from, or another lens no shards."""
        if self.other_lens and not has_shards:
            raise KaleidosceneError(
                "--field-of-view is for shards that were made with another lens: give --shards; synthetic scenes have "
                "that of the recipe."
            )
        check_student(self.distil, init, resumes=resumes)

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise if scenes were stored with another lens, or latents by another autoencoder."""
        settings = self.settings
        if isinstance(scene.latents, StoredTokens):
            raise KaleidosceneError(f"{folder.name}: tokens of scenes, which recipes of dit3d alone take.")
        if scene.latents is not None:
            made = json.loads(folder.read_note(NOTE))
            for what, ours in (("autoencoder", settings.codec.source), ("features", settings.feature_source)):
                if made[what] != ours:
                    raise KaleidosceneError(
                        f"{folder.name}: latents by {what} {made[what]!r}, the recipe has {ours!r}."
                    )
        if scene.cameras is None:
            return
        if self.loss.depth and scene.depth is None:
            raise KaleidosceneError(
                f"{folder.name}: no depth is stored, which this recipe learns from; make shards with depth "
                "(kaleidoscene synthesize --scenes.depth, convert --shards.depth)."
            )
        h, w = scene.rgba.shape[1:3] if scene.latents is None else scene.latents.image_size
        focal, lenses = float(scene.cameras.intrinsics[0, 1, 1]), settings.lenses
        angle = math.degrees(field_of_view(focal, min(h, w) if lenses is None else max(h, w)))
        if lenses is not None:
            if not lenses[0] - 1 <= angle <= lenses[1] + 1:
                raise KaleidosceneError(
                    f"{folder.name}: views of {angle:.1f} degrees, the recipe has lenses of {lenses[0]:g} to "
                    f"{lenses[1]:g}."
                )
        elif abs(angle - settings.field_of_view) > 1:
            raise KaleidosceneError(
                f"{folder.name}: views of {angle:.1f} degrees, the recipe has {settings.field_of_view:.1f}; for "
                "those of the shards give --field-of-view."
            )

    def make_task(self, device: str) -> KaleidoTask:
        """The task of a run, its network still without weights."""
        settings, features = self.settings, None
        codec = make_codec(settings.codec).to(device)
        if settings.model.feature_channels:
            features = DinoV2.from_pretrained(settings.feature_source, codec.factor * settings.model.patch_size)
            features = features.to(device)
        if self.distil.teacher is None:
            with torch.device("meta"):
                return KaleidoTask(settings, self.loss, codec=codec, features=features)
        teacher, theirs = load_model(resolve(self.distil.teacher))
        check_teacher(self.distil, theirs.model, settings.model)
        student = student_settings(settings, self.distil)
        try:
            with torch.device("meta"):
                return KaleidoDistillation(student, self.loss, teacher, self.distil, codec=codec, features=features)
        except ValueError as error:
            raise KaleidosceneError(str(error)) from error

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of a Kaleido checkpoint."""
        return read_weights(folder)
