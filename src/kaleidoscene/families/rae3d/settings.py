"""What a 3DRAE checkpoint says of itself beside its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kaleidoscene.families.rae3d.config import Rae3dConfig


@dataclass(frozen=True, kw_only=True)
class Rae3dSettings:
    """Everything but the weights that a 3DRAE checkpoint needs.

    Attributes:
        model: Architecture of the network.
        image_size: ``(height, width)`` it was trained at.
        field_of_view: Degrees of the views it was trained on; it takes others, and may show them badly.
        background: What was behind the objects that it was trained on.
        targets_at_once: Targets that are decoded in one pass of the network, which bounds memory and nothing else.
    """

    model: Rae3dConfig
    image_size: tuple[int, int] = (224, 224)
    field_of_view: float = 50.0
    background: Literal["any", "white"] = "any"
    targets_at_once: int = 8

    def __post_init__(self) -> None:
        self.model.grid(self.image_size)
        if self.targets_at_once < 1:
            raise ValueError(f"targets_at_once must be at least 1, got {self.targets_at_once}.")
