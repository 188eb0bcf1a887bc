"""What every loaded checkpoint offers, whatever its family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.nn.positions import NOMINAL_FOCAL
from kaleidoscene.rendering.cost import Cost, Plan
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.rendering.renderer import Renderer, Rendering, Scene

Background = Literal["any", "white"]
"""``white``: objects on white alone."""


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
        """The focal length it was trained with, over image height; of one that takes any lens, the usual one."""
        ...

    @property
    def method_note(self) -> dict[str, Any]:
        """How it makes its views, as plain values to stand beside numbers."""
        ...

    @property
    def background(self) -> Background:
        """What was behind the objects that it was trained on."""
        ...

    @property
    def lenses(self) -> tuple[float, float] | None:
        """Of one that takes any lens: least and greatest angle, over the longer side, that it was trained with."""
        ...

    @property
    def held_out_psnr(self) -> tuple[tuple[float, float, float], ...]:
        """What to expect: quartiles of PSNR on held-out objects, dB, of views that references show up to a share of:
        ``(share, lower, upper)``, shares ascending; empty where nobody has measured it.
        """
        ...

    @property
    def default_plan(self) -> RenderPlan:
        """Which targets go into which call where nobody asks for another plan: as it was trained, or is best."""
        ...

    def cost(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        """Cost of rendering ``targets`` new views in one call."""
        ...


class PlainSystem:
    """What most systems have in common: one size, no choices, every target by itself.

    To be inherited from by those to whom that applies.
    """

    family: str
    renderer: Renderer
    plan: Plan
    focal_over_height = NOMINAL_FOCAL
    background: Background = "any"
    lenses: tuple[float, float] | None = None
    held_out_psnr: tuple[tuple[float, float, float], ...] = ()
    default_plan = RenderPlan(mode="independent")

    @property
    def image_size(self) -> tuple[int, int]:
        """Of its renderer."""
        return self.renderer.image_size

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """One."""
        return (self.image_size,)

    def with_image_size(self, image_size: tuple[int, int]) -> PlainSystem:
        """Itself.

        Raises:
            KaleidosceneError: Another size is asked for.
        """
        if image_size != self.image_size:
            raise KaleidosceneError(f"It renders {self.image_size}, not {image_size}.")
        return self

    @property
    def method_note(self) -> dict[str, Any]:
        """That of its plan."""
        return self.plan.method_note

    def cost(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        """That of its plan."""
        return self.plan.cost(references, targets, independent=independent)


@runtime_checkable
class Variable(Protocol):
    """A system that can be had in other forms than it was trained in, to be timed."""

    def variant(self, image_size: tuple[int, int], *, use_cache: bool | None) -> System:
        """The same weights at another size, with or without kept references (None: as it is).

        Raises:
            KaleidosceneError: There is no such form.
        """
        ...


@runtime_checkable
class Magnifying(Protocol):
    """A system that can copy pixels from references that are larger than its network sees them."""

    @property
    def magnification(self) -> int:
        """How many times larger its views are than it was trained at."""
        ...

    def magnified(self, times: int) -> System:
        """The same checkpoint with views so many times larger than it was trained at.

        Raises:
            KaleidosceneError: This one copies no pixels.
        """
        ...


@runtime_checkable
class Sampler(Protocol):
    """A system that draws its views in steps, with guidance (``Capabilities.samples``)."""

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> System:
        """The same checkpoint with other sampling; None keeps its default.

        Raises:
            ValueError: There is no such sampling.
        """
        ...


@runtime_checkable
class TellsCameras(Protocol):
    """A system of which it may be known how well it estimates cameras."""

    @property
    def held_out_auc30(self) -> float | None:
        """AUC@30 on held-out objects, percent; None where nobody has measured it."""
        ...


@runtime_checkable
class Routed(Protocol):
    """A system that makes views in one of several ways, or in one that users should know of."""

    def route(self, references: int) -> str:
        """What it does with so many references: ``decode`` (an answer that no seed changes) or ``diffusion`` (a scene
        is drawn, and views of it are decoded).
        """
        ...


@runtime_checkable
class Imagining(Protocol):
    """A renderer that draws scenes of nothing (``Capabilities.generates``)."""

    def imagine(self, cameras: Cameras, label: int | None = None) -> Scene:
        """A scene without references for targets ``(batch, targets)``.

        Args:
            cameras: Of the targets.
            label: Class of what is to be drawn; None: any.

        Raises:
            KaleidosceneError: The model has no labels, or not this one.
        """
        ...


@runtime_checkable
class Drawing(Protocol):
    """A renderer that draws a scene as a whole, once for all its views."""

    def draw(self, scene: Scene, seed: int) -> None:
        """Draw what the requests of a seed are rendered from, unless that is done; the scene keeps it."""
        ...


@runtime_checkable
class Drafting(Protocol):
    """A renderer that has views sooner, of fewer pixels, for who moves about."""

    def draft(self, scene: Scene, cameras: Cameras, *, seeds: Sequence[int]) -> Rendering:
        """Targets by themselves, as of :meth:`kaleidoscene.rendering.renderer.Renderer.render`, at half the size.

        The cameras that come back are those that were asked for.
        """
        ...


@runtime_checkable
class SceneKeeper(Protocol):
    """A system whose scenes can be kept in a file (:mod:`kaleidoscene.rendering.scene_file`)."""

    @property
    def fingerprint(self) -> str:
        """Of architecture and weights: a scene fits no other ones."""
        ...

    def pack(self, scene: Scene) -> dict[str, Tensor]:
        """All of a scene that rendering needs, as tensors by name; where scenes are drawn, once one is."""
        ...

    def unpack(self, tensors: dict[str, Tensor]) -> Scene:
        """Inverse of :meth:`pack`.

        Raises:
            KaleidosceneError: A tensor is missing, or not of the shape that the network has.
        """
        ...
