"""Recipes of networks that encode images by themselves or by a frozen DINOv2, and may learn from a perceptual loss."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import read_weights
from kaleidoscene.training.recipe import PlainRecipe, check_size


@dataclass(frozen=True, kw_only=True)
class EncodedRecipe(PlainRecipe):
    """What these have in common; to be inherited from.

    Settings have a ``model`` with an ``encoder`` of kind ``dinov2`` or another; ``options_type`` is a dataclass with
    ``features``, ``perceptual_weights``, ``train``, ``data``, ``loss`` and ``synthetic``.
    """

    loss: Any
    perceptual_weights: Path | None = None
    options_type: ClassVar[type[Any]]

    @property
    def options(self) -> Any:
        """What a command line may change."""
        return self.options_type(
            train=self.train, data=self.data, loss=self.loss, synthetic=self.synthetic,
            perceptual_weights=self.perceptual_weights,
        )  # fmt: skip

    def changed(self, options: Any) -> Any:
        """The recipe with other options.

        Raises:
            KaleidosceneError: A DINOv2 is given to a network that trains its own encoder, or batches have another size.
        """
        settings = self.settings
        check_size(options.data, settings.image_size)
        if options.features is not None:
            if settings.model.encoder.kind != "dinov2":
                raise KaleidosceneError("--features: this recipe trains its own encoder of images.")
            encoder = replace(settings.model.encoder, source=options.features)
            settings = replace(settings, model=replace(settings.model, encoder=encoder))
        return replace(
            self, settings=settings, train=options.train, data=options.data, loss=options.loss,
            synthetic=options.synthetic, perceptual_weights=options.perceptual_weights,
        )  # fmt: skip

    @property
    def remark(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the costs of training leave out."""
        return "without DINOv2" if self.settings.model.encoder.kind == "dinov2" else ""

    def identity(self) -> dict[str, Any]:
        """The loss."""
        return {"loss": self.loss}

    def perceptual(self, device: str) -> PerceptualDistance | None:
        """The perceptual distance, where its weights are given."""
        return None if self.perceptual_weights is None else PerceptualDistance.read(self.perceptual_weights).to(device)

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of a checkpoint."""
        return read_weights(folder)


def check_perceptual(weight: float, perceptual: PerceptualDistance | None) -> None:
    """Raise unless a perceptual loss and its weights come together.

    Args:
        weight: Of the loss.
        perceptual: The distance, where its weights are given.

    Raises:
        KaleidosceneError: One is there without the other.
    """
    if (perceptual is None) != (weight == 0):
        raise KaleidosceneError(
            "The perceptual loss and its weights come together: give --perceptual-weights FILE "
            "(imagenet-vgg-verydeep-19.mat of MatConvNet), or --loss.perceptual 0."
        )
