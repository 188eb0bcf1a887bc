"""Architecture of RnG as plain values: the paper's size and small ones from the same code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kaleidoscene.choices import check_choices
from kaleidoscene.nn.dpt import DPTConfig


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """What makes tokens of source images (method B.2).

    Attributes:
        kind: ``dinov2``: a frozen vision transformer whose patches and positions are brought to the token grid
            (paper); ``patch``: a few blocks that are trained with the rest.
        depth: Blocks of kind ``patch``.
        source: Folder or hub id of kind ``dinov2``.
    """

    kind: Literal["dinov2", "patch"] = "dinov2"
    depth: int = 0
    source: str = "facebook/dinov2-with-registers-large"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.depth < 0:
            raise ValueError(f"The encoder's depth must be at least 0, got {self.depth}.")


@dataclass(frozen=True, kw_only=True)
class CameraHeadConfig:
    """The iterative head that tells cameras (method B.6).

    Attributes:
        depth: Blocks.
        iterations: Estimates, each of which corrects the one before.
        layer_scale: First value of LayerScale in its blocks, as VGGT has it; None: without.
    """

    depth: int = 4
    iterations: int = 4
    layer_scale: float | None = 0.01

    def __post_init__(self) -> None:
        if self.depth < 1 or self.iterations < 1:
            raise ValueError("The camera head needs at least one block and one iteration.")


@dataclass(frozen=True, kw_only=True)
class RngConfig:
    """The network; the defaults are the paper's.

    Attributes:
        width: Channels of a token.
        depth: Layers, each a block within views and one across views.
        heads: Of attention.
        patch_size: Pixels along a token.
        registers: Tokens of a view beside its camera token and its patches.
        mlp_ratio: Hidden channels of feed-forwards over ``width``.
        layer_scale: First value of LayerScale.
        encoder: Of source images.
        camera: Head that tells cameras; None: cameras are not told (an ablation of the paper).
        dense: Size of the two heads for colours and points.
        dense_layers: The four layers these look at.
        attention: ``causal``: sources do not see targets, which is what a cache needs (section 3.2); ``full``: they do
            (the ablated variant).
    """

    width: int = 1024
    depth: int = 24
    heads: int = 16
    patch_size: int = 8
    registers: int = 4
    mlp_ratio: float = 4.0
    layer_scale: float = 0.01
    encoder: EncoderConfig = EncoderConfig()
    camera: CameraHeadConfig | None = CameraHeadConfig()
    dense: DPTConfig = DPTConfig()
    dense_layers: tuple[int, int, int, int] = (4, 11, 17, 23)
    attention: Literal["causal", "full"] = "causal"

    def __post_init__(self) -> None:
        check_choices(self)
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 4 channels for each of {self.heads} heads.")
        if list(self.dense_layers) != sorted(set(self.dense_layers)) or self.dense_layers[-1] >= self.depth:
            raise ValueError(f"dense_layers must rise and lie in 0..{self.depth - 1}, got {self.dense_layers}.")

    @property
    def special(self) -> int:
        """Tokens of a view that are no patches."""
        return 1 + self.registers

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches of an image.

        Raises:
            ValueError: It is no whole number of patches.
        """
        h, w = image_size
        if h % self.patch_size or w % self.patch_size:
            raise ValueError(f"Images of {h}x{w} are no whole number of patches of {self.patch_size} pixels.")
        return h // self.patch_size, w // self.patch_size
