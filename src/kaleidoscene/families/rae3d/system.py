"""A loaded 3DRAE checkpoint."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import cast

from torch import Tensor

from kaleidoscene.encoders.resized import ResizedDinoV2
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.families.rae3d.checkpoint import FAMILY, load_model
from kaleidoscene.families.rae3d.plan import plan
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.scene import Rae3dScene, pack, unpack
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.geometry.poses import focal_over_side
from kaleidoscene.nn.precision import TYPES, Precision
from kaleidoscene.rendering.renderer import Scene
from kaleidoscene.rendering.scene_file import fingerprint_of
from kaleidoscene.rendering.system import Background, PlainSystem


class Rae3dSystem(PlainSystem):
    """A 3DRAE network that is ready to render."""

    family = FAMILY

    def __init__(self, renderer: Rae3dRenderer) -> None:
        self.renderer = self._own = renderer
        self.plan = plan(renderer.settings)

    @property
    def autoencoder(self) -> Rae3dRenderer:
        """The renderer, as what it is."""
        return self._own

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

    @cached_property
    def fingerprint(self) -> str:
        """Of settings and weights."""
        return fingerprint_of(self._own.settings, self._own.model)

    def route(self, references: int) -> str:
        """Always ``decode``."""
        del references
        return "decode"

    def pack(self, scene: Scene) -> dict[str, Tensor]:
        """Tokens, cameras and the world of a scene.

        Raises:
            KaleidosceneError: It is not known yet which views will be asked for, so that there are no tokens.
        """
        assert isinstance(scene, Rae3dScene)
        if scene.tokens is None:
            raise KaleidosceneError("The scene has no tokens yet: they are made for the views that are asked for.")
        return pack(scene)

    def unpack(self, tensors: dict[str, Tensor]) -> Rae3dScene:
        """Inverse of :meth:`pack`.

        Raises:
            KaleidosceneError: A tensor is missing, or not of the shape that the network has.
        """
        return unpack(tensors, self._own.settings.model, self.image_size, str(self._own.device))


def load_system(folder: Path, device: str = "cpu", precision: str = "fp32") -> Rae3dSystem:
    """Load a checkpoint folder.

    Raises:
        KaleidosceneError: It does not load strictly, or the encoder that it names is missing.
    """
    if precision not in TYPES:
        raise unknown_name("precision", precision, TYPES)
    model, settings = load_model(folder, device)
    features = load_features(settings, device)
    return Rae3dSystem(Rae3dRenderer(model, settings, features, precision=cast(Precision, precision)))


def load_features(settings: Rae3dSettings, device: str) -> ResizedDinoV2 | None:
    """The frozen encoder of a checkpoint; None where the network has its own.

    Raises:
        KaleidosceneError: It is missing, or its tokens are of another width.
    """
    encoder, config = settings.model.encoder, settings.model
    if encoder.kind == "image":
        return None
    return ResizedDinoV2.from_pretrained(encoder.source, config.patch_size, config.width).to(device)
