"""A Kaleido checkpoint, ready to render."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.encoders.features import DinoV2
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.families.kaleido.checkpoint import FAMILY, load_model
from kaleidoscene.families.kaleido.cost import KaleidoCost
from kaleidoscene.families.kaleido.plan import KaleidoPlan, changed_sampling, copies_at_any_size, token_grid
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.nn.precision import TYPES, Precision
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.rendering.system import Background
from kaleidoscene.serialisation import to_plain


class KaleidoSystem:
    """Network, codec and encoder of a checkpoint behind the interface of all families."""

    family = FAMILY

    def __init__(self, renderer: KaleidoRenderer) -> None:
        self.renderer = renderer
        self.settings: KaleidoSettings = renderer.settings
        self.image_size = renderer.image_size
        # Buckets are cut from square views: there it is the longer side that has their angle.
        is_bucket = self.image_size in self.image_sizes[1:]
        side = (max if is_bucket else min)(self.image_size) / self.image_size[0]
        self.focal_over_height = 0.5 * side / math.tan(math.radians(self.settings.field_of_view) / 2)

    @property
    def magnification(self) -> int:
        """How many times larger its views are than the network sees them."""
        return self.renderer.parts.magnification

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """All sizes it was trained at, so many times larger as it is to copy."""
        times = self.magnification
        return tuple((times * h, times * w) for h, w in (self.settings.image_size, *self.settings.buckets))

    def with_image_size(self, image_size: tuple[int, int]) -> KaleidoSystem:
        """The same checkpoint at another of :attr:`image_sizes`."""
        return KaleidoSystem(self.renderer.changed(image_size=image_size))

    def magnified(self, times: int) -> KaleidoSystem:
        """The same checkpoint, which copies pixels from references so many times larger than its network sees them.

        Raises:
            KaleidosceneError: It copies no pixels.
        """
        if times != 1 and not copies_at_any_size(self.settings):
            raise KaleidosceneError(
                f"This model renders {max(self.settings.image_size)} pixels alone: larger views are for models that "
                "copy pixels from references."
            )
        h, w = (times * side // self.magnification for side in self.image_size)
        return KaleidoSystem(self.renderer.changed(image_size=(h, w), magnification=times))

    def variant(self, image_size: tuple[int, int], *, use_cache: bool | None) -> KaleidoSystem:
        """The same weights at another size, with or without kept references (None: as it is).

        Raises:
            KaleidosceneError: The size is no whole number of tokens, or the model has no exact cache.
        """
        tokens = token_grid(self.settings, self.settings.image_size)
        for pixels, whole, count in zip(image_size, self.settings.image_size, tokens, strict=True):
            if pixels % (self.magnification * whole // count):
                raise KaleidosceneError(f"Images of {image_size[1]}x{image_size[0]} are no whole number of tokens.")
        return KaleidoSystem(self.renderer.changed(image_size=image_size, use_cache=use_cache))

    @property
    def method_note(self) -> dict[str, Any]:
        """How it samples, as plain values."""
        return to_plain(self.renderer.sampling)

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> KaleidoSystem:
        """The same checkpoint with other sampling; None keeps its default."""
        sampling = changed_sampling(self.renderer.sampling, steps, guidance)
        return KaleidoSystem(self.renderer.changed(sampling=sampling))

    @property
    def background(self) -> Background:
        """What its settings say."""
        return self.settings.background

    @property
    def lenses(self) -> tuple[float, float] | None:
        """What its settings say."""
        return self.settings.lenses

    @property
    def held_out_psnr(self) -> tuple[tuple[float, float, float], ...]:
        """What its settings say."""
        return self.settings.held_out_psnr

    @property
    def default_plan(self) -> RenderPlan:
        """What its settings say."""
        return self.settings.render_plan

    def cost(self, references: int, targets: int, *, independent: bool = False) -> KaleidoCost:
        """Cost of rendering ``targets`` new views in one call; both branches of guidance are counted."""
        parts = self.renderer.parts
        h, w = (side // parts.magnification for side in self.image_size)
        settings = replace(self.settings, sampling=self.renderer.sampling, image_size=(h, w))
        plan = KaleidoPlan(settings, parts.use_cache, parts.magnification)
        return plan.cost(references, targets, independent=independent, precision=parts.precision)


def load_system(folder: Path, device: str = "cpu", precision: str = "fp32") -> KaleidoSystem:
    """Load a checkpoint folder.

    Raises:
        KaleidosceneError: It does not load strictly, or a part that it names (autoencoder, DINOv2) is missing.
    """
    if precision not in TYPES:
        raise unknown_name("precision", precision, TYPES)
    model, settings = load_model(folder, device)
    codec = make_codec(settings.codec).to(device)
    features = None
    if settings.model.feature_channels:
        features = DinoV2.from_pretrained(settings.feature_source, codec.factor * settings.model.patch_size).to(device)
    return KaleidoSystem(KaleidoRenderer(model, settings, codec, features, precision=cast(Precision, precision)))
