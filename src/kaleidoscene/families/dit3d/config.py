"""Architecture of 3DDiT as plain values: the paper's sizes and small ones from the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kaleidoscene.choices import check_choices


@dataclass(frozen=True, kw_only=True)
class Dit3dConfig:
    """The network; the defaults are the paper's XL (method C.5).

    Attributes:
        depth: Blocks of the backbone.
        width: Its channels.
        heads: Of its attention.
        tokens: Of a scene.
        channels: Of a token, those of the autoencoder.
        head_depth: Blocks of the wide head.
        head_width: Its channels.
        head_heads: Of its attention.
        condition: ``channels``: the tokens of what is seen stand beside the noisy ones, channel by channel; ``tokens``:
            behind them, in one sequence.
        classes: Labels of the first stage of training; 0 without.
    """

    depth: int = 28
    width: int = 1152
    heads: int = 16
    tokens: int = 1024
    channels: int = 768
    head_depth: int = 2
    head_width: int = 2048
    head_heads: int = 16
    condition: Literal["channels", "tokens"] = "channels"
    classes: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        if self.width % self.heads or self.head_width % self.head_heads:
            raise ValueError("width and head_width must be multiples of their heads.")
        if min(self.depth, self.tokens, self.channels, self.head_depth) < 1 or self.classes < 0:
            raise ValueError("depth, tokens, channels and head_depth must be at least 1, classes at least 0.")

    @property
    def shift(self) -> float:
        """Of times, towards noise: the root of the numbers of a scene over 4096 (method C.5)."""
        return (self.tokens * self.channels / 4096) ** 0.5


def dit3d_small() -> Dit3dConfig:
    """S: 198M parameters."""
    return Dit3dConfig(depth=12, width=384, heads=6)


def dit3d_base() -> Dit3dConfig:
    """B: 296M parameters."""
    return Dit3dConfig(depth=12, width=768, heads=12)


def dit3d_xl() -> Dit3dConfig:
    """XL: 840M parameters."""
    return Dit3dConfig()
