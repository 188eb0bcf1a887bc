"""Architecture of 3DRAE as plain values: the paper's size and small ones from the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kaleidoscene.choices import check_choices
from kaleidoscene.nn.dpt import DPTConfig


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What makes tokens of images beside their rays (method C.1).

    Attributes:
        kind: ``image``: a linear layer on patches, trained with the rest (the paper's ablation without a frozen
            encoder, which is its best at reconstruction); ``dinov2``: a frozen DINOv2.
        source: Folder or hub id of kind ``dinov2``.
    """

    kind: Literal["image", "dinov2"] = "dinov2"
    source: str = "facebook/dinov2-base"

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """What tells real views from made ones, for training alone (method C.3).

    Attributes:
        kind: ``dinov2``: trained heads on layers of a frozen DINOv2 (paper); ``patches``: a small network (ours).
        source: Folder or hub id of kind ``dinov2``.
        width: Channels of its tokens.
        layers: Its blocks behind which there is a head; there is one on its input as well.
        channels: Of kind ``patches``: behind each convolution, which halves the sides.
    """

    kind: Literal["dinov2", "patches"] = "dinov2"
    source: str = "facebook/dinov2-small"
    width: int = 384
    layers: tuple[int, ...] = (2, 5, 8, 11)
    channels: tuple[int, ...] = (32, 64, 128)

    def __post_init__(self) -> None:
        check_choices(self)
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"layers must rise from 0 or more, got {self.layers}.")
        if not self.channels or min(*self.channels, self.width) < 1:
            raise ValueError("width and channels must be at least 1.")


@dataclass(frozen=True, kw_only=True)
class Rae3dConfig:
    """The network; the defaults are the paper's.

    Attributes:
        width: Channels of a token.
        heads: Of attention.
        patch_size: Pixels along a token of a view.
        tokens: Latents of a scene (m).
        neck_depth: Blocks that fuse the tokens of all views into the latents.
        decoder_depth: Blocks of the decoder of images, and of that of points.
        mlp_ratio: Hidden channels of feed-forwards over ``width``.
        encoder: Of images.
        decoder: ``full``: latents see the tokens of the view that is decoded (paper), so that every view is a sequence
            of its own; ``causal``: they see latents alone, so that their keys and values serve all views (ours).
        located: Latents stand for places around what the cameras look at, and attention prefers what is near
            (:mod:`kaleidoscene.families.rae3d.places`; ours).
        points: Head of the decoder of points; None: without that decoder.
        point_layers: The four layers it looks at.
        discriminator: For the adversarial loss; rendering does without it.
    """

    width: int = 768
    heads: int = 16
    patch_size: int = 14
    tokens: int = 1024
    neck_depth: int = 12
    decoder_depth: int = 16
    mlp_ratio: float = 4.0
    encoder: EncoderConfig = EncoderConfig()
    decoder: Literal["full", "causal"] = "full"
    located: bool = False
    points: DPTConfig | None = DPTConfig()
    point_layers: tuple[int, int, int, int] = (3, 7, 11, 15)
    discriminator: DiscriminatorConfig | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}.")
        if min(self.tokens, self.neck_depth, self.decoder_depth) < 1:
            raise ValueError("tokens, neck_depth and decoder_depth must be at least 1.")
        if self.located and self.heads < 2:
            raise ValueError("located latents need at least two heads: the first does not look at places.")
        rising = list(self.point_layers) == sorted(set(self.point_layers))
        if self.points is not None and not (rising and self.point_layers[-1] < self.decoder_depth):
            raise ValueError(f"point_layers must rise and lie in 0..{self.decoder_depth - 1}, got {self.point_layers}.")

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image.

        Raises:
            ValueError: It is no whole number of patches.
        """
        h, w = image_size
        if h % self.patch_size or w % self.patch_size or min(h, w) < self.patch_size:
            raise ValueError(f"Images of {h}x{w} are no whole number of patches of {self.patch_size} pixels.")
        return h // self.patch_size, w // self.patch_size
