"""A loaded 3DDiT checkpoint."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.families.dit3d.checkpoint import FAMILY, load_autoencoder, load_model
from kaleidoscene.families.dit3d.plan import Dit3dPlan, resampled
from kaleidoscene.families.dit3d.renderer import Dit3dRenderer, Dit3dScene
from kaleidoscene.families.rae3d.scene import pack, unpack
from kaleidoscene.geometry.poses import focal_over_side
from kaleidoscene.nn.precision import TYPES, Precision
from kaleidoscene.rendering.cost import Cost
from kaleidoscene.rendering.renderer import Scene
from kaleidoscene.rendering.scene_file import fingerprint_of
from kaleidoscene.rendering.system import Background, PlainSystem


class Dit3dSystem(PlainSystem):
    """A 3DDiT network that is ready to render."""

    family = FAMILY

    def __init__(self, renderer: Dit3dRenderer) -> None:
        self.renderer = self._own = renderer

    @property
    def focal_over_height(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the views it was trained on."""
        h, w = self.image_size
        return focal_over_side(self._own.settings.field_of_view) * min(h, w) / h

    @property
    def lenses(self) -> tuple[float, float]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the views it was trained on."""
        return (self._own.settings.field_of_view, self._own.settings.field_of_view)

    @property
    def background(self) -> Background:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Of the objects that its autoencoder was trained on."""
        return self._own.autoencoder.renderer.settings.background

    @property
    def method_note(self) -> dict[str, Any]:
        """Steps, guidance and autoencoder."""
        return Dit3dPlan(self._own.settings).method_note

    def cost(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        """Of drawing a scene, of what is seen of it, and of its views."""
        plan = Dit3dPlan(self._own.settings, self._own.autoencoder.renderer.settings)
        return plan.cost(references, targets, independent=independent)

    @cached_property
    def fingerprint(self) -> str:
        """Of the network and its autoencoder, whatever they are sampled with."""
        both = nn.ModuleList([self._own.model, self._own.autoencoder.renderer.model])
        return fingerprint_of(self._own.settings.model, both)

    def pack(self, scene: Scene) -> dict[str, Tensor]:
        """Tokens that were drawn, cameras and the world of a scene.

        Raises:
            KaleidosceneError: Nothing is drawn yet, or more than one answer is.
        """
        assert isinstance(scene, Dit3dScene)
        if len(scene.drawn) != 1:
            raise KaleidosceneError(f"One drawn scene can be kept, this one was drawn {len(scene.drawn)} times.")
        return pack(next(iter(scene.drawn.values())))

    def unpack(self, tensors: dict[str, Tensor]) -> Dit3dScene:
        """Inverse of :meth:`pack`; what was drawn is all that there is of it, whatever the seed.

        Raises:
            KaleidosceneError: A tensor is missing, or not of the shape that the autoencoder has.
        """
        own = self._own.autoencoder.renderer
        seen = unpack(tensors, own.settings.model, self.image_size, str(own.device))
        return Dit3dScene(seen, drawn={None: seen})

    def route(self, references: int) -> str:
        """``decode`` or ``diffusion``."""
        return self._own.settings.route(references)

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> Dit3dSystem:
        """The same checkpoint with other sampling; None keeps its default. Scenes are drawn, however much is seen.

        Raises:
            ValueError: There is no such sampling.
        """
        own = self._own
        settings = resampled(own.settings, steps=steps, guidance=guidance)
        return Dit3dSystem(Dit3dRenderer(own.model, settings, own.autoencoder, precision=own.precision))


def load_system(folder: Path, device: str = "cpu", precision: str = "fp32") -> Dit3dSystem:
    """Load a checkpoint folder and its autoencoder.

    Raises:
        KaleidosceneError: It does not load strictly, or the autoencoder is not to be had (:func:`load_autoencoder`).
    """
    if precision not in TYPES:
        raise unknown_name("precision", precision, TYPES)
    model, settings = load_model(folder, device)
    autoencoder = load_autoencoder(settings, device, precision)
    return Dit3dSystem(Dit3dRenderer(model, settings, autoencoder, precision=cast(Precision, precision)))
