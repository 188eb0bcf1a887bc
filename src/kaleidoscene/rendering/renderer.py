"""The seam between families and everything that asks them for views."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.capabilities import Capabilities

OnStep = Callable[[int, int], None]
"""Called with the denoising steps done and their total."""


TARGET_SEEDS = 1_000_003
"""The seed of target ``i`` of a request is that of the request times this, plus ``i``."""


def request_seed(seeds: Sequence[int]) -> int:
    """The seed of the request that some targets belong to: what is drawn for a scene as a whole comes from it."""
    return seeds[0] // TARGET_SEEDS


@runtime_checkable
class Scene(Protocol):
    """What a model made of the references of a batch of scenes."""

    @property
    def num_references(self) -> int:
        """References in it."""
        ...

    @property
    def cameras(self) -> Cameras | None:
        """Of the references, ``(batch, refs)``: as they were given, or as the model estimated them; in the world that
        targets are asked for in. None of a scene that knows none.
        """
        ...

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""
        ...


@runtime_checkable
class Estimating(Protocol):
    """A scene of a model that tells cameras, also where some were given."""

    @property
    def estimated(self) -> Cameras | None:
        """As the model tells them, ``(batch, refs)``, in the world of the scene; None of a model without."""
        ...


def estimated_cameras(scene: Scene) -> Cameras | None:
    """The cameras that a model told; None of scenes of which it told none."""
    return scene.estimated if isinstance(scene, Estimating) else None


@dataclass(frozen=True, eq=False)
class Rendering:
    """New views of a batch of scenes.

    Attributes:
        images: RGB in [0, 1].
        cameras: They were taken with.
        depths: Along the optical axis in world units, 0 where nothing is met; None where not wanted, or not known.
        points: World points of the pixels; None likewise.
        confidence: How sure the points are, at least 0; None without points.
    """

    images: Float[Tensor, "batch targets 3 h w"]
    cameras: Cameras
    depths: Float[Tensor, "batch targets h w"] | None = None
    points: Float[Tensor, "batch targets h w 3"] | None = None
    confidence: Float[Tensor, "batch targets h w"] | None = None

    def __post_init__(self) -> None:
        if (self.points is None) != (self.confidence is None):
            raise ValueError("World points come with a confidence each.")


@runtime_checkable
class Renderer(Protocol):
    """What CLI, evaluation, viewer and reconstruction are written against."""

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What may be asked of it."""
        ...

    def encode(self, images: Float[Tensor, "batch refs 3 h w"], cameras: Cameras | None) -> Scene:
        """Make a scene of references.

        Args:
            images: RGB in [0, 1], of ``image_size``.
            cameras: ``(batch, refs)``, world units; None where they are not known.

        Raises:
            KaleidosceneError: There are no references, images and cameras do not match in number or size, or cameras
                are needed and not given.
        """
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
        depth: bool = True,
        on_step: OnStep | None = None,
    ) -> Rendering:
        """Render targets, cameras ``(batch, targets)``, with one seed for each target.

        With ``independent`` no target sees another, so that any chunking gives the same images. Without ``depth`` there
        are neither depths nor points, which costs less where they have a network of their own; images are the same.
        """
        ...

    def extend(
        self, scene: Scene, images: Float[Tensor, "batch new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> Scene:
        """A scene with the references ``keep`` of the old one and new ones behind them."""
        ...


class PlainRenderer:
    """What most renderers have in common: targets change no scene, and scenes do not grow.

    To be inherited from by those to whom that applies.
    """

    def expect(self, scene: Scene, cameras: Cameras) -> Scene:
        """The same scene."""
        del cameras
        return scene

    def extend(
        self, scene: Scene, images: Float[Tensor, "batch new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> Scene:
        """Refused.

        Raises:
            KaleidosceneError: Always (``Capabilities.takes_back_views`` is off).
        """
        raise KaleidosceneError(
            "Rendered views cannot become references of this method; render without autoregression."
        )


def in_chunks(count: int, size: int, on_step: OnStep | None = None) -> Iterator[slice]:
    """Places of so many targets, ``size`` at a time; ``on_step`` hears of each chunk that is done."""
    for first in range(0, count, size):
        last = min(first + size, count)
        yield slice(first, last)
        if on_step is not None:
            on_step(last, count)


def check_targets(cameras: Cameras, seeds: Sequence[int]) -> None:
    """Raise if there is nothing to render, or not one seed for each target ``(batch, targets)``.

    Raises:
        KaleidosceneError: With what is wrong.
    """
    targets = cameras.batch_shape[1]
    if not targets:
        raise KaleidosceneError("There is nothing to render: zero targets.")
    if len(seeds) != targets:
        raise KaleidosceneError(f"{targets} targets need as many seeds, got {len(seeds)}.")


def check_references(
    images: Float[Tensor, "batch refs 3 h w"],
    cameras: Cameras | None,
    image_size: tuple[int, int],
    *,
    needs_cameras: bool = True,
) -> None:
    """Raise if images and cameras are no references of one renderer.

    Args:
        images: References.
        cameras: Theirs.
        image_size: ``(height, width)`` of the renderer.
        needs_cameras: Whether it can do without.

    Raises:
        KaleidosceneError: With what is wrong.
    """
    count, size = tuple(images.shape[:2]), (images.shape[-2], images.shape[-1])
    if not images.shape[1]:
        raise KaleidosceneError("A scene needs at least one reference ('kaleidoscene generate' makes scenes of none).")
    if size != tuple(image_size):
        raise KaleidosceneError(
            f"References are {size[0]}x{size[1]}, the model renders {image_size[0]}x{image_size[1]}."
        )
    if not bool(torch.isfinite(images).all()):
        raise KaleidosceneError("References have values that are not finite (NaN or infinite).")
    if cameras is None:
        if needs_cameras:
            raise KaleidosceneError("References without cameras: estimate them with 'kaleidoscene pose' first.")
        return
    if cameras.batch_shape != count:
        raise KaleidosceneError(
            f"Images and cameras do not match in number: {count} images, {cameras.batch_shape} cameras."
        )
    if cameras.image_size != size:
        h, w = cameras.image_size
        raise KaleidosceneError(f"References are {size[0]}x{size[1]}, their cameras are of images of {h}x{w}.")
