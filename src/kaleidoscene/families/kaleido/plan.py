"""What a request costs, from the settings of a checkpoint or recipe alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.families.kaleido.cost import (
    KaleidoCost,
    Request,
    activation_bytes,
    cache_bytes,
    forward_flops,
    reprojection_lookups,
)
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.serialisation import to_plain


def token_grid(settings: KaleidoSettings, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tokens of a view of ``image_size``."""
    # Every KL autoencoder in use halves three times.
    pixels = (settings.codec.factor if settings.codec.kind == "pixel" else 8) * settings.model.patch_size
    return image_size[0] // pixels, image_size[1] // pixels


def copies_at_any_size(settings: KaleidoSettings) -> bool:
    """Whether pixels can be copied from references that are larger than the network sees them."""
    model = settings.model
    return bool(model.reprojection_depths) and not model.refined_points and settings.codec == CodecConfig(factor=1)


def changed_sampling(sampling: SamplingConfig, steps: int | None, guidance: float | None) -> SamplingConfig:
    """Sampling with another number of steps or another guidance; None keeps its own.

    Raises:
        ValueError: There is no schedule of so many steps.
    """
    if steps is not None:
        sampling = replace(sampling, schedule=replace(sampling.schedule, steps=steps))
    return sampling if guidance is None else replace(sampling, guidance=guidance)


@cache
def _parameters_of(config: KaleidoConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Kaleido(config).parameters())


@dataclass(frozen=True)
class KaleidoPlan:
    """Settings that requests are reckoned with.

    Attributes:
        settings: Of a checkpoint or recipe; no weights are needed.
        cached: Whether keys and values of references are kept; None: wherever it is possible.
        magnification: How many times larger views are than the network sees them.
    """

    settings: KaleidoSettings
    cached: bool | None = None
    magnification: int = 1
    remembers = True

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        h, w = self.settings.image_size
        return (self.magnification * h, self.magnification * w)

    @property
    def method_note(self) -> dict[str, Any]:
        """How it samples, as plain values."""
        return to_plain(self.settings.sampling)

    @property
    def default_plan(self) -> RenderPlan:
        """What the settings say."""
        return self.settings.render_plan

    def with_image_size(self, image_size: tuple[int, int]) -> KaleidoPlan:
        """The same with views of another size: a whole number of times larger where pixels are copied, as ``render``.

        Raises:
            ValueError: They are no whole number of tokens.
        """
        own = self.settings.image_size
        times = image_size[0] // own[0]
        if copies_at_any_size(self.settings) and times > 1 and image_size == (times * own[0], times * own[1]):
            return replace(self, magnification=times)
        tokens = token_grid(self.settings, own)
        for pixels, whole, count in zip(image_size, own, tokens, strict=True):
            if pixels < 1 or pixels % (whole // count):
                raise ValueError(f"Images of {image_size[1]}x{image_size[0]} are no whole number of tokens.")
        return replace(self, settings=replace(self.settings, image_size=image_size), magnification=1)

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> KaleidoPlan:
        """The same with other sampling; None keeps its own."""
        sampling = changed_sampling(self.settings.sampling, steps, guidance)
        return replace(self, settings=replace(self.settings, sampling=sampling))

    def cost(
        self,
        references: int,
        targets: int,
        *,
        independent: bool = False,
        precision: str = "fp32",
    ) -> KaleidoCost:
        """Cost of one call, with both branches of guidance; codec and feature encoder are not counted."""
        config, sampling = self.settings.model, self.settings.sampling
        cached = config.cacheable if self.cached is None else self.cached
        times, grid = self.magnification, token_grid(self.settings, self.settings.image_size)
        batch, together = (targets, 1) if independent else (1, targets)
        queries = together if cached else references + together
        conditional = Request(queries, references + together, grid, batch, together / queries, times)
        steps = sampling.schedule.steps
        evaluations = steps if sampling.solver == "euler" else 2 * steps - 1
        flops = evaluations * forward_flops(config, conditional)
        if sampling.guidance != 1.0:
            flops += evaluations * forward_flops(config, Request(together, together, grid, batch, 0.0))
        encoding = forward_flops(config, Request(references, references, grid, composed=0.0)) if cached else 0
        kept = cache_bytes(config, references, grid, 4 if precision == "fp32" else 2, times) if cached else 0
        parameters = _parameters_of(config)
        lookups = evaluations * reprojection_lookups(config, references, targets, grid, times)
        memory = activation_bytes(config, conditional) + kept
        return KaleidoCost(parameters, flops + encoding, memory, kept, encoding, lookups)
