"""The KL autoencoder of latent diffusion (8 x 8, 16 channels), through diffusers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.codecs.codec import check_size
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.pretrained import locate
from kaleidoscene.randomness import draw_noise


class KLCodec:
    """A frozen ``AutoencoderKL``; latents are ``(z - shift) * scale`` with both numbers from its own config.

    Args:
        model: A ``diffusers.AutoencoderKL``.
    """

    def __init__(self, model: Any) -> None:
        self.model = model.eval().requires_grad_(False)
        self.channels: int = model.config.latent_channels
        self.factor: int = 2 ** (len(model.config.block_out_channels) - 1)
        if model.config.scaling_factor is None:
            raise KaleidosceneError("The autoencoder's config has no scaling_factor.")
        self.scale: float = model.config.scaling_factor
        self.shift: float = model.config.shift_factor or 0.0

    @classmethod
    def from_pretrained(cls, source: str) -> KLCodec:
        """Load from a folder or a hub id that holds ``config.json`` and safetensors weights.

        In ``OWNER/NAME/FOLDER`` they lie in a folder of a repository, as they do beside whole diffusion models.

        Raises:
            KaleidosceneError: The library or the weights are not there.
        """
        try:
            from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL  # noqa: PLC0415  an extra
        except ImportError as error:
            raise KaleidosceneError("The KL codec needs diffusers: pip install 'kaleidoscene[codecs]'.") from error
        try:
            name, folder = locate(source)
            return cls(AutoencoderKL.from_pretrained(name, subfolder=folder or None, use_safetensors=True))
        except (OSError, ValueError) as error:  # what is not there; what is no hub id
            raise KaleidosceneError(
                f"No autoencoder at {source!r}: expected a folder or hub id with config.json and safetensors weights."
            ) from error

    def to(self, device: torch.device | str) -> KLCodec:
        """Move the autoencoder."""
        self.model.to(device)
        return self

    @torch.no_grad()
    def posterior(
        self, images: Float[Tensor, "*batch 3 h w"]
    ) -> tuple[Float[Tensor, "*batch c lh lw"], Float[Tensor, "*batch c lh lw"]]:
        """Mean and standard deviation of the latents of images in [0, 1], scaled and shifted."""
        *batch, _, h, w = images.shape
        check_size(h, w, self.factor)
        # In its own precision: half of the mantissa is not enough for latents that are trained on.
        with torch.autocast(images.device.type, enabled=False):
            found = self.model.encode(2 * images.float().reshape(-1, 3, h, w) - 1).latent_dist
        mean, std = found.mean.unflatten(0, tuple(batch)), found.std.unflatten(0, tuple(batch))
        return (mean - self.shift) * self.scale, std * self.scale

    @torch.no_grad()
    def encode(
        self, images: Float[Tensor, "*batch 3 h w"], generators: Sequence[torch.Generator] | None = None
    ) -> Float[Tensor, "*batch c lh lw"]:
        """The posterior mean; samples of the posterior if generators are given."""
        mean, std = self.posterior(images)
        return mean if generators is None else mean + std * draw_noise(std.shape, generators).to(std.device)

    @torch.no_grad()
    def decode(self, latents: Float[Tensor, "*batch c lh lw"]) -> Float[Tensor, "*batch 3 h w"]:
        """Decode and clamp to [0, 1]."""
        *batch, c, h, w = latents.shape
        with torch.autocast(latents.device.type, enabled=False):
            images = self.model.decode(latents.float().reshape(-1, c, h, w) / self.scale + self.shift).sample
        return (0.5 + 0.5 * images).clamp(0, 1).unflatten(0, tuple(batch))
