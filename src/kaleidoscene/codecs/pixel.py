"""The pixel codec: space to depth, no weights, exact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.codecs.codec import check_size


class PixelCodec:
    """Blocks of ``factor`` x ``factor`` pixels become channels; values go from [0, 1] to [-1, 1]."""

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.channels = 3 * factor**2

    def to(self, device: torch.device | str) -> PixelCodec:
        """Nothing to move."""
        return self

    def encode(
        self, images: Float[Tensor, "*batch 3 h w"], generators: Sequence[torch.Generator] | None = None
    ) -> Float[Tensor, "*batch c lh lw"]:
        """Rearrange; there is no posterior to sample from."""
        h, w = images.shape[-2:]
        check_size(h, w, self.factor)
        return torch.nn.functional.pixel_unshuffle(2 * images - 1, self.factor)

    def decode(self, latents: Float[Tensor, "*batch c lh lw"]) -> Float[Tensor, "*batch 3 h w"]:
        """Rearrange back and clamp to [0, 1]."""
        return (0.5 + 0.5 * torch.nn.functional.pixel_shuffle(latents, self.factor)).clamp(0, 1)
