"""The image codec contract: images in [0, 1] to latents and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.errors import KaleidosceneError


@runtime_checkable
class Codec(Protocol):
    """What turns images into latents for a flow model.

    Attributes:
        factor: Image pixels along the side of a latent pixel.
        channels: Channels of the latents.
    """

    factor: int
    channels: int

    def encode(
        self, images: Float[Tensor, "*batch 3 h w"], generators: Sequence[torch.Generator] | None = None
    ) -> Float[Tensor, "*batch c lh lw"]:
        """Latents of images in [0, 1]: the mean, or a sample where the codec has a posterior.

        Args:
            images: At least one leading axis.
            generators: One for each item of the first axis, to draw samples with; None gives the means.
        """
        ...

    def to(self, device: torch.device | str) -> Codec:
        """Move weights, where there are any; returns itself."""
        ...

    def decode(self, latents: Float[Tensor, "*batch c lh lw"]) -> Float[Tensor, "*batch 3 h w"]:
        """Images of latents, clamped to [0, 1]."""
        ...


@dataclass(frozen=True, kw_only=True)
class CodecConfig:
    """Which codec a checkpoint was trained with."""

    kind: Literal["pixel", "kl"] = "pixel"
    factor: int = 8
    """Block side of the pixel codec; a KL autoencoder knows its own."""
    source: str = ""
    """Folder or hub id of the KL autoencoder."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.factor < 1:
            raise ValueError(f"factor must be at least 1, got {self.factor}.")


def check_size(h: int, w: int, factor: int) -> None:
    """Raise if an image cannot be cut into blocks.

    Raises:
        KaleidosceneError: A side is no multiple of ``factor``.
    """
    if h % factor or w % factor:
        raise KaleidosceneError(f"Images of {h}x{w} do not fit the codec: both sides must be multiples of {factor}.")
