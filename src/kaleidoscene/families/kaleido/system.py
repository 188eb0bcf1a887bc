"""A Kaleido checkpoint, ready to render."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.encoders.features import DinoV2
from kaleidoscene.errors import unknown_name
from kaleidoscene.families.kaleido.checkpoint import load_model
from kaleidoscene.families.kaleido.cost import (
    Request,
    activation_bytes,
    cache_bytes,
    forward_flops,
    reprojection_lookups,
)
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer, Precision
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.system import Cost
from kaleidoscene.serialisation import to_plain


class KaleidoSystem:
    """Network, codec and encoder of a checkpoint behind the interface of all families."""

    family = "kaleido"

    def __init__(self, renderer: KaleidoRenderer) -> None:
        self.renderer = renderer
        self.settings: KaleidoSettings = renderer.settings
        self.image_size = renderer.image_size
        # Buckets are cut from square views: there it is the longer side that has their angle.
        is_bucket = self.image_size in self.settings.buckets
        side = (max if is_bucket else min)(self.image_size) / self.image_size[0]
        self.focal_over_height = 0.5 * side / math.tan(math.radians(self.settings.field_of_view) / 2)

    @property
    def image_sizes(self) -> tuple[tuple[int, int], ...]:
        """All sizes it was trained at."""
        return (self.settings.image_size, *self.settings.buckets)

    def with_image_size(self, image_size: tuple[int, int]) -> KaleidoSystem:
        """The same checkpoint at another of :attr:`image_sizes`."""
        return KaleidoSystem(self.renderer.changed(image_size=image_size))

    @property
    def sampling(self) -> dict[str, Any]:
        """How it samples, as plain values."""
        return to_plain(self.renderer.sampling)

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> KaleidoSystem:
        """The same checkpoint with other sampling; None keeps its default."""
        sampling = self.renderer.sampling
        if steps is not None:
            sampling = replace(sampling, schedule=replace(sampling.schedule, steps=steps))
        if guidance is not None:
            sampling = replace(sampling, guidance=guidance)
        return KaleidoSystem(self.renderer.changed(sampling=sampling))

    def cost(self, references: int, targets: int, *, independent: bool = False) -> Cost:
        """Cost of rendering ``targets`` new views in one call; both branches of guidance are counted."""
        settings = replace(self.settings, sampling=self.renderer.sampling)
        number = 4 if self.renderer.precision == "fp32" else 2
        return request_cost(
            settings, references, targets, independent=independent, cached=self.renderer.use_cache,
            number_bytes=number, image_size=self.image_size,
        )  # fmt: skip


def token_grid(settings: KaleidoSettings, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens of a view of ``image_size``."""
    # Every KL autoencoder in use halves three times.
    pixels = (settings.codec.factor if settings.codec.kind == "pixel" else 8) * settings.model.patch_size
    return image_size[0] // pixels, image_size[1] // pixels


def request_cost(
    settings: KaleidoSettings,
    references: int,
    targets: int,
    *,
    independent: bool = False,
    cached: bool,
    number_bytes: int = 4,
    image_size: tuple[int, int] | None = None,
) -> Cost:
    """Cost of a request from the settings alone; no weights are needed. Codec and feature encoder are not counted.

    Args:
        settings: Of a checkpoint or recipe.
        references: N.
        targets: M, all in one call.
        independent: Every target alone.
        cached: Keys and values of references are kept.
        number_bytes: Bytes of a kept number.
        image_size: ``(height, width)``; by default that of the settings.
    """
    config, sampling = settings.model, settings.sampling
    grid = token_grid(settings, image_size or settings.image_size)
    batch, together = (targets, 1) if independent else (1, targets)
    queries = together if cached else references + together
    conditional = Request(queries, references + together, grid, batch, together / queries)
    steps = sampling.schedule.steps
    evaluations = steps if sampling.solver == "euler" else 2 * steps - 1
    flops = evaluations * forward_flops(config, conditional)
    if sampling.guidance != 1.0:
        flops += evaluations * forward_flops(config, Request(together, together, grid, batch, 0.0))
    if cached:
        flops += forward_flops(config, Request(references, references, grid, composed=0.0))
    cache = cache_bytes(config, references, grid, number_bytes) if cached else 0
    with torch.device("meta"):
        parameters = sum(p.numel() for p in Kaleido(config).parameters())
    lookups = evaluations * reprojection_lookups(config, references, targets, grid)
    return Cost(parameters, flops, activation_bytes(config, conditional) + cache, cache, lookups)


def load_system(folder: Path, device: str = "cpu", precision: str = "fp32") -> KaleidoSystem:
    """Load a checkpoint folder.

    Raises:
        KaleidosceneError: It does not load strictly, or a part that it names (autoencoder, DINOv2) is missing.
    """
    if precision not in ("fp32", "bf16", "fp16"):
        raise unknown_name("precision", precision, ("fp32", "bf16", "fp16"))
    model, settings = load_model(folder, device)
    codec = make_codec(settings.codec).to(device)
    features = None
    if settings.model.feature_channels:
        features = DinoV2.from_pretrained(settings.feature_source, codec.factor * settings.model.patch_size).to(device)
    return KaleidoSystem(KaleidoRenderer(model, settings, codec, features, precision=cast(Precision, precision)))
