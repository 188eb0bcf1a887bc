"""What a 3DDiT checkpoint says of itself beside its weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.families.dit3d.config import Dit3dConfig
from kaleidoscene.flow.timesteps import shift


@dataclass(frozen=True, kw_only=True)
class Dit3dSampling:
    """How the tokens of a scene are drawn (method C.6).

    Attributes:
        steps: Of Euler's method.
        guidance: Scale of classifier-free guidance; the field without condition knows poses and no image.
        poses: Most cameras of targets whose poses stand in the condition, evenly chosen.
        decode_from: References from which on nothing is drawn and the autoencoder's own answer is decoded, which is
            better then (method C.7); None: scenes are always drawn.
    """

    steps: int = 50
    guidance: float = 2.0
    poses: int = 12
    decode_from: int | None = 2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.poses < 0:
            raise ValueError(f"Sampling needs at least 1 step and 0 poses, got {self.steps} and {self.poses}.")
        if self.decode_from is not None and self.decode_from < 1:
            raise ValueError(f"decode_from must be at least 1, got {self.decode_from}.")
        if not 0 <= self.guidance < float("inf"):
            raise ValueError(f"guidance must be at least 0, got {self.guidance}.")


@dataclass(frozen=True, kw_only=True)
class Dit3dSettings:
    """Everything but the weights that a 3DDiT checkpoint needs.

    Attributes:
        model: Architecture of the network.
        autoencoder: Name, folder or hub id of the 3DRAE whose tokens it draws, with their statistics.
        autoencoder_weights: SHA-256 of its ``model.safetensors`` when the network learned; None: not told.
        image_size: ``(height, width)`` of the autoencoder.
        field_of_view: Degrees of the views it was trained on.
        sampling: How tokens are drawn by default.
    """

    model: Dit3dConfig
    autoencoder: str = "rae3d"
    autoencoder_weights: str | None = None
    image_size: tuple[int, int] = (224, 224)
    field_of_view: float = 50.0
    sampling: Dit3dSampling = Dit3dSampling()

    def times(self, steps: int) -> Float[Tensor, " knots"]:
        """Knots of sampling in so many steps, from noise to data, fp64 (method C.6)."""
        return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), self.model.shift)

    def route(self, references: int) -> str:
        """``decode`` or ``diffusion``, see :class:`kaleidoscene.rendering.system.Routed`."""
        least = self.sampling.decode_from
        return "diffusion" if least is None or references < least else "decode"
