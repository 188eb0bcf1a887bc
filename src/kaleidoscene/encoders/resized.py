"""DINOv2 with patches of another size than it was trained with, on images as they are (RnG, method B.2)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.encoders.features import IMAGENET_MEAN, IMAGENET_STD, read_dinov2, special_tokens
from kaleidoscene.errors import KaleidosceneError


class ResizedDinoV2(nn.Module):
    """A frozen DINOv2 whose patch kernel and position embedding are brought to another grid; images are not enlarged.

    Args:
        model: A ``transformers.Dinov2Model`` or ``Dinov2WithRegistersModel``, which is changed.
        patch_size: Pixels along a patch.
    """

    def __init__(self, model: Any, patch_size: int) -> None:
        super().__init__()
        embeddings = model.embeddings
        old: nn.Conv2d = embeddings.patch_embeddings.projection
        new = nn.Conv2d(old.in_channels, old.out_channels, patch_size, patch_size)
        size = (patch_size, patch_size)
        kernel = nn.functional.interpolate(old.weight.data, size, mode="bilinear", align_corners=False)
        new.weight.data, new.bias.data = kernel, old.bias.data.clone()  # pyright: ignore[reportOptionalMemberAccess]
        embeddings.patch_embeddings.projection = new
        # The class itself brings its position embedding to as many patches as an image has.
        embeddings.patch_size = embeddings.config.patch_size = patch_size
        embeddings.patch_embeddings.patch_size = size
        self.model = model.eval().requires_grad_(False)
        self.special = special_tokens(model)
        self.channels: int = model.config.hidden_size

    @classmethod
    def from_pretrained(cls, source: str, patch_size: int, width: int) -> ResizedDinoV2:
        """Load from a folder or a hub id, for example ``facebook/dinov2-with-registers-large``.

        Args:
            source: Folder or hub id.
            patch_size: Pixels along a patch.
            width: Channels of the network that takes its tokens.

        Raises:
            KaleidosceneError: The library or the weights are not there, or its tokens are of another width.
        """
        found = cls(read_dinov2(source), patch_size)
        if found.channels != width:
            raise KaleidosceneError(f"{source} has tokens of {found.channels} channels, the network has {width}.")
        return found

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch refs 3 h w"]) -> Float[Tensor, "batch refs tokens feature"]:
        """Normalised patch tokens, row by row, of RGB in [0, 1]."""
        mean, std = (images.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
        tokens = self.model(((images - mean) / std).flatten(0, 1)).last_hidden_state[:, self.special :]
        return tokens.unflatten(0, images.shape[:2])
