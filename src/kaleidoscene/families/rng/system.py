"""A loaded RnG checkpoint."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.errors import unknown_name
from kaleidoscene.families.rng.checkpoint import FAMILY, load_model
from kaleidoscene.families.rng.plan import plan
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.families.rng.scene import RngScene, pack, unpack
from kaleidoscene.geometry.poses import focal_over_side
from kaleidoscene.nn.precision import TYPES, Precision
from kaleidoscene.rendering.renderer import Scene
from kaleidoscene.rendering.scene_file import fingerprint_of
from kaleidoscene.rendering.system import Background, PlainSystem


class RngSystem(PlainSystem):
    """An RnG network that is ready to render."""

    family = FAMILY

    def __init__(self, renderer: RngRenderer) -> None:
        self.renderer = self._own = renderer
        self.plan = plan(renderer.settings)

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
        """Of the objects it was trained on."""
        return self._own.settings.background

    @property
    def held_out_auc30(self) -> float | None:
        """What its settings say."""
        return self._own.settings.held_out_auc30

    @property
    def method_note(self) -> dict[str, Any]:
        """Which attention it has."""
        return {"attention": self._own.settings.model.attention}

    @cached_property
    def fingerprint(self) -> str:
        """Of settings and weights."""
        return fingerprint_of(self._own.settings, self._own.model)

    def pack(self, scene: Scene) -> dict[str, Tensor]:
        """Keys, values, cameras and the world of a scene."""
        assert isinstance(scene, RngScene)
        return pack(scene)

    def unpack(self, tensors: dict[str, Tensor]) -> RngScene:
        """Inverse of :meth:`pack`.

        Raises:
            KaleidosceneError: A tensor is missing.
        """
        return unpack(tensors, self._own.settings.model, self.image_size, str(self._own.device))


def load_system(folder: Path, device: str = "cpu", precision: str = "fp32") -> RngSystem:
    """Load a checkpoint folder.

    Raises:
        KaleidosceneError: It does not load strictly, or the encoder that it names is missing.
    """
    if precision not in TYPES:
        raise unknown_name("precision", precision, TYPES)
    model, settings = load_model(folder, device)
    features, config = None, settings.model
    if config.encoder.kind == "dinov2":
        features = ResizedDinoV2.from_pretrained(config.encoder.source, config.patch_size, config.width).to(device)
    return RngSystem(RngRenderer(model, settings, features, precision=cast(Precision, precision)))
