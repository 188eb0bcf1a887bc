"""What every loaded checkpoint offers, whatever its family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from kaleidoscene.rendering.renderer import Renderer


@dataclass(frozen=True)
class Cost:
    """What a call will take, before anything runs.

    Attributes:
        parameters: Of the network.
        flops: Floating-point operations of the whole request.
        memory: Peak bytes beyond the weights.
        cache: Bytes of kept keys and values (0 without).
        lookups: References that are looked up at points of rays (reprojection), which takes time that ``flops`` does
            not tell.
    """

    parameters: int
    flops: int
    memory: int
    cache: int
    lookups: int = 0


@runtime_checkable
class System(Protocol):
    """A checkpoint that is ready to render."""

    @property
    def family(self) -> str:
        """Name of its family."""
        ...

    @property
    def renderer(self) -> Renderer:
        """Renders at ``image_size``."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        ...

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """All sizes it was trained at, one for each aspect ratio."""
        ...

    def with_image_size(self, image_size: tuple[int, int]) -> System:
        """The same checkpoint at another of ``image_sizes``."""
        ...

    @property
    def focal_over_height(self) -> float:
        """The focal length it was trained with, over image height."""
        ...

    @property
    def sampling(self) -> dict[str, Any]:
        """How it samples, as plain values to stand beside numbers."""
        ...

    def cost(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        """Cost of rendering ``targets`` new views in one call."""
        ...

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> System:
        """The same checkpoint with other sampling; None keeps its default."""
        ...
