"""What an RnG checkpoint says of itself beside its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from kaleidoscene.families.rng.config import RngConfig


@dataclass(frozen=True, kw_only=True)
class RngSettings:
    """Everything but the weights that an RnG checkpoint needs.

    Attributes:
        model: Architecture of the network.
        image_size: ``(height, width)`` it was trained at.
        field_of_view: Degrees of the views it was trained on; it takes others, and may tell them badly.
        background: What was behind the objects that it was trained on.
        targets_at_once: Targets that are rendered in one pass of the network, which bounds memory and nothing else.
        held_out_auc30: AUC@30 of the cameras that it tells of four sources of held-out objects, percent; None where
            nobody has measured it.
    """

    model: RngConfig
    image_size: tuple[int, int] = (256, 256)
    field_of_view: float = 40.0
    background: Literal["any", "white"] = "any"
    targets_at_once: int = 8
    held_out_auc30: float | None = field(default=None, metadata={"of_training": False})

    def __post_init__(self) -> None:
        self.model.grid(self.image_size)
        if self.targets_at_once < 1:
            raise ValueError(f"targets_at_once must be at least 1, got {self.targets_at_once}.")
