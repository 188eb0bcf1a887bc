"""What tells views of the network from real ones (3DRAE, appendix A.5; method C.3)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kaleidoscene.encoders.features import IMAGENET_MEAN, IMAGENET_STD, read_dinov2, special_tokens
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rae3d.config import DiscriminatorConfig
from kaleidoscene.nn.precision import exact

_SLOPE, _ALONG = 0.2, 9


class Normed(nn.Module):
    """A convolution divided by the largest singular value of its matrix.

    It is computed exactly, where others keep an estimate beside the weights that each pass improves: what the network
    says is then a function of its weights alone, and a run that goes on is the run that was broken off.

    Args:
        convolution: Of any dimension.
    """

    def __init__(self, convolution: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        weight = exact(self.convolution.weight)
        weight = weight / torch.linalg.matrix_norm(weight.flatten(1), 2).clamp_min(1e-12)
        return self.convolution._conv_forward(x, weight, self.convolution.bias)


class PatchHead(nn.Module):
    """Patches of an image, real or not: strided convolutions, for networks that no frozen encoder stands beside.

    Args:
        channels: Behind each convolution, which halves the sides.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        sides = pairwise((3, *channels))
        self.layers = nn.ModuleList([Normed(nn.Conv2d(a, b, 4, stride=2, padding=1)) for a, b in sides])
        self.out = Normed(nn.Conv2d(channels[-1], 1, 3, padding=1))

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n places"]:
        """How real each place looks; any number."""
        x = 2 * images - 1
        for layer in self.layers:
            x = F.leaky_relu(layer(x), _SLOPE)
        return self.out(x).flatten(1)


class TokenHead(nn.Module):
    """Tokens of one layer of a frozen encoder, real or not.

    Args:
        channels: Of a token.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Normed(nn.Conv1d(channels, channels, 1))
        self.along = Normed(nn.Conv1d(channels, channels, _ALONG))
        self.norms = nn.ModuleList([nn.GroupNorm(1, channels) for _ in range(2)])
        self.out = Normed(nn.Conv1d(channels, 1, 1))

    def forward(self, tokens: Float[Tensor, "n tokens channels"]) -> Float[Tensor, "n tokens"]:
        """How real each token looks."""
        x = F.leaky_relu(self.norms[0](self.first(tokens.movedim(-1, 1))), _SLOPE)
        places = torch.arange(-(_ALONG // 2), x.shape[-1] + _ALONG // 2, device=x.device) % x.shape[-1]  # around
        x = (x + F.leaky_relu(self.norms[1](self.along(x[..., places])), _SLOPE)) / 2**0.5
        return self.out(x).flatten(1)


def make_heads(config: DiscriminatorConfig) -> nn.ModuleList:
    """The trained part of a discriminator: one head, or one for each layer of the frozen encoder."""
    if config.kind == "patches":
        return nn.ModuleList([PatchHead(config.channels)])
    return nn.ModuleList([TokenHead(config.width) for _ in range(len(config.layers) + 1)])


class FrozenLayers(nn.Module):
    """Tokens of some layers of a frozen DINOv2, and of its input; gradients go through to the images.

    Args:
        model: A ``transformers`` DINOv2.
        layers: Blocks behind which it is looked.
    """

    def __init__(self, model: Any, layers: Sequence[int]) -> None:
        super().__init__()
        self.model, self.layers = model.eval().requires_grad_(False), tuple(layers)
        self.patch: int = model.config.patch_size
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    @classmethod
    def read(cls, config: DiscriminatorConfig) -> FrozenLayers:
        """From the folder or hub id that a configuration names.

        Raises:
            KaleidosceneError: It is missing, has too few layers, or tokens of another width.
        """
        model = read_dinov2(config.source)
        if model.config.hidden_size != config.width or model.config.num_hidden_layers <= config.layers[-1]:
            raise KaleidosceneError(
                f"{config.source}: a DINOv2 of {model.config.num_hidden_layers} layers of width "
                f"{model.config.hidden_size}; the discriminator takes layers {config.layers} of width {config.width}."
            )
        return cls(model, config.layers)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[Float[Tensor, "n tokens channels"]]:
        """Tokens of patches, by layer; images are brought to whole patches."""
        size = [max(self.patch, round(side / self.patch) * self.patch) for side in images.shape[-2:]]
        resized = F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)
        states = self.model((resized - self.mean) / self.std, output_hidden_states=True).hidden_states
        first = special_tokens(self.model)
        return [states[number][:, first:] for number in (0, *(layer + 1 for layer in self.layers))]
