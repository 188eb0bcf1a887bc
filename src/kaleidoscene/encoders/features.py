"""Auxiliary features of reference images: one vector for each token of the network (Kaleido section 3.2.1 (v))."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.pretrained import locate

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_PATCH = 14


@runtime_checkable
class FeatureEncoder(Protocol):
    """What turns references into features."""

    def __call__(self, images: Float[Tensor, "batch refs 3 h w"]) -> Float[Tensor, "batch refs tokens feature"]:
        """Features of every token, row by row."""
        ...


class DinoV2(nn.Module):
    """A frozen DINOv2, resized so that its patches fall on the tokens of the network.

    An image of (16 H, 16 W) becomes (14 H, 14 W) for the encoder: 256 px gives 224 (method A.6).

    Args:
        model: A ``transformers.Dinov2Model`` with patches of 14 pixels.
        token_pixels: Image pixels along the side of a token of the network.
    """

    def __init__(self, model: Any, token_pixels: int) -> None:
        super().__init__()
        if model.config.patch_size != _PATCH:
            raise KaleidosceneError(
                f"DINOv2 has patches of {_PATCH} pixels, this encoder has {model.config.patch_size}."
            )
        self.model = model.eval().requires_grad_(False)
        self.token_pixels = token_pixels
        self.channels: int = model.config.hidden_size
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    @classmethod
    def from_pretrained(cls, source: str, token_pixels: int) -> DinoV2:
        """Load from a folder or a hub id, for example ``facebook/dinov2-base``.

        Raises:
            KaleidosceneError: The library or the weights are not there.
        """
        return cls(read_dinov2(source), token_pixels)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "batch refs 3 h w"]) -> Float[Tensor, "batch refs tokens feature"]:
        """Normalised patch tokens (class token and registers are left out)."""
        batch, refs, _, h, w = images.shape
        size = (h // self.token_pixels * _PATCH, w // self.token_pixels * _PATCH)
        flat = nn.functional.interpolate(
            images.flatten(0, 1), size, mode="bicubic", antialias=True, align_corners=False
        )
        tokens = self.model((flat.clamp(0, 1) - self.mean) / self.std).last_hidden_state[
            :, special_tokens(self.model) :
        ]
        return tokens.unflatten(0, (batch, refs)).float()


def read_dinov2(source: str) -> Any:
    """A DINOv2 of ``transformers``, with or without registers, from a folder or a hub id.

    Raises:
        KaleidosceneError: The library or the weights are not there, or are those of another model.
    """
    try:
        from transformers import AutoModel  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("DINOv2 features need transformers: pip install 'kaleidoscene[codecs]'.") from error
    try:
        name, folder = locate(source)
        model, told = AutoModel.from_pretrained(name, subfolder=folder, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise KaleidosceneError(
            f"No DINOv2 at {source!r}: expected a folder or hub id with config.json and weights."
        ) from error
    except (SafetensorError, RuntimeError) as error:  # torn files, and tensors of other shapes
        raise KaleidosceneError(
            f"{source}: its weights are damaged, or not of its config.json ({str(error).splitlines()[0]})."
        ) from error
    # The library would leave what it does not find as random numbers.
    if missing := sorted(told["missing_keys"]):
        raise KaleidosceneError(
            f"{source}: {len(missing)} tensors of the network are not in its weights, such as {missing[0]!r}."
        )
    if model.config.model_type not in ("dinov2", "dinov2_with_registers"):
        raise KaleidosceneError(f"{source}: a model of type {model.config.model_type!r}, expected a DINOv2.")
    return model


def special_tokens(model: Any) -> int:
    """Tokens of a DINOv2 before its patches: a class token, and registers where it has any."""
    return 1 + getattr(model.config, "num_register_tokens", 0)
