"""The seam between families and everything that asks them for views."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras

OnStep = Callable[[int, int], None]
"""Called with the denoising steps done and their total."""


@runtime_checkable
class Scene(Protocol):
    """What a model made of the references of a batch of scenes."""

    @property
    def num_references(self) -> int:
        """References in it."""
        ...

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        ...


@dataclass(frozen=True, eq=False)
class Rendering:
    """New views of a batch of scenes.

    Attributes:
        images: RGB in [0, 1].
        cameras: They were taken with.
        depths: Along the optical axis in world units, 0 where nothing is met; None of renderers that know none.
    """

    images: Float[Tensor, "batch targets 3 h w"]
    cameras: Cameras
    depths: Float[Tensor, "batch targets h w"] | None = None


@runtime_checkable
class Renderer(Protocol):
    """What CLI, evaluation, viewer and reconstruction are written against."""

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        ...

    @property
    def renders_depth(self) -> bool:
        """Whether its renderings have depths."""
        ...

    def encode(self, images: Float[Tensor, "batch refs 3 h w"], cameras: Cameras) -> Scene:
        """Make a scene of references; cameras have batch shape ``(batch, refs)`` and world units."""
        ...

    def expect(self, scene: Scene, cameras: Cameras) -> Scene:
        """The scene when these targets ``(batch, targets)`` will be asked for, in one call or in several.

        Models that take the scale of the world from all views take it from these as well, and keep it for all calls.
        """
        ...

    def render(
        self,
        scene: Scene,
        cameras: Cameras,
        *,
        seeds: Sequence[int],
        independent: bool = False,
        on_step: OnStep | None = None,
    ) -> Rendering:
        """Render targets, cameras ``(batch, targets)``, with one seed for each target.

        With ``independent`` no target sees another, so that any chunking gives the same images.
        """
        ...

    def extend(
        self, scene: Scene, images: Float[Tensor, "batch new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> Scene:
        """A scene with the references ``keep`` of the old one and new ones behind them."""
        ...
