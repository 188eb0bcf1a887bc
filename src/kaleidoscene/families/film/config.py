"""Sizes of a frame interpolator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class FilmConfig:
    """Architecture of FILM (method A.14); the defaults are the paper's 34.4M parameters.

    Attributes:
        filters: Channels of the features at full size; they double with every level of a feature tree.
        levels: Sizes that motion is looked for at, each half of the one before.
        fusion_levels: The finest of them, which the frame is put together from.
        own_levels: The finest of them, which have motion predictors of their own; the coarser ones share one.
        tree_levels: Depth of a feature tree.
        flow_convolutions: 3x3 convolutions of each predictor, fine to coarse; the last is the shared one's.
        flow_filters: Their channels, likewise.
        blend: Add the mean of the two warped frames to what is put together (ours): an untrained network blends.
    """

    filters: int = 64
    levels: int = 7
    fusion_levels: int = 5
    own_levels: int = 3
    tree_levels: int = 4
    flow_convolutions: tuple[int, ...] = (3, 3, 3, 3)
    flow_filters: tuple[int, ...] = (32, 64, 128, 256)
    blend: bool = False

    def __post_init__(self) -> None:
        for name in ("filters", "levels", "fusion_levels", "tree_levels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not self.own_levels < self.levels or self.own_levels < 0:
            raise ValueError(f"own_levels must be from 0 to below levels ({self.levels}), got {self.own_levels}.")
        if self.fusion_levels > self.levels:
            raise ValueError(f"fusion_levels must be at most levels ({self.levels}), got {self.fusion_levels}.")
        for name in ("flow_convolutions", "flow_filters"):
            if len(getattr(self, name)) != self.own_levels + 1:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} numbers, {self.own_levels + 1} predictors need one each."
                )

    @property
    def multiple(self) -> int:
        """Height and width must be multiples of this."""
        return 2 ** (self.levels - 1)

    def feature_channels(self, level: int) -> int:
        """Of the features at a level: those of all trees that reach it."""
        return sum(self.filters << depth for depth in range(min(level + 1, self.tree_levels)))


@dataclass(frozen=True, kw_only=True)
class FilmSettings:
    """Everything but the weights that a checkpoint needs.

    Attributes:
        model: Architecture of the network.
        image_size: ``(height, width)`` of the crops it was trained on; it takes any.
    """

    model: FilmConfig
    image_size: tuple[int, int] = (256, 256)

    def __post_init__(self) -> None:
        if any(side % self.model.multiple for side in self.image_size):
            raise ValueError(
                f"image_size must be multiples of {self.model.multiple} ({self.model.levels} levels), got "
                f"{self.image_size}."
            )
