"""What a request costs, from the settings of a checkpoint or recipe alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch

from kaleidoscene.families.dit3d.config import Dit3dConfig
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.rae3d.plan import plan as rae3d_plan
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.rendering.cost import Cost
from kaleidoscene.rendering.ordering import RenderPlan

# Peak of one block's activations without gradients, in residual streams of one fp32 token.
_LIVE_STREAMS = 14


@dataclass(frozen=True)
class Dit3dPlan:
    """A checkpoint without its weights.

    Attributes:
        settings: Of the checkpoint.
        autoencoder: Of the one that makes views of its tokens; None where it is not at hand, and not counted.
    """

    settings: Dit3dSettings
    autoencoder: Rae3dSettings | None = None
    default_plan = RenderPlan(mode="independent")
    remembers = False

    @property
    def image_size(self) -> tuple[int, int]:
        """Of the autoencoder."""
        return self.settings.image_size

    def with_image_size(self, image_size: tuple[int, int]) -> Dit3dPlan:
        """The same over an autoencoder of other views.

        Raises:
            ValueError: They are no whole number of tokens.
        """
        if min(image_size) < 1:
            raise ValueError(f"Views of {image_size[0]}x{image_size[1]} are none.")
        other = None if self.autoencoder is None else replace(self.autoencoder, image_size=image_size)
        return Dit3dPlan(replace(self.settings, image_size=image_size), other)

    @property
    def method_note(self) -> dict[str, Any]:
        """Steps, guidance and autoencoder."""
        sampling = self.settings.sampling
        return {
            "steps": sampling.steps, "guidance": sampling.guidance, "decode_from": sampling.decode_from,
            "autoencoder": self.settings.autoencoder,
        }  # fmt: skip

    def with_sampling(self, *, steps: int | None, guidance: float | None) -> Dit3dPlan:
        """The same with other sampling; None keeps its own."""
        return Dit3dPlan(resampled(self.settings, steps=steps, guidance=guidance), self.autoencoder)

    def cost(
        self,
        references: int,
        targets: int,
        *,
        independent: bool = False,
        precision: str = "fp32",
    ) -> Cost:
        """Of drawing one scene, which does not depend on how many views are asked for, and of its views."""
        config, sampling = self.settings.model, self.settings.sampling
        told = references > 0 or config.classes > 0  # a label may be asked for
        guided = told and sampling.guidance not in (0.0, 1.0)
        passes = sampling.steps * (2 if guided else 1)
        if self.settings.route(references) == "decode":
            passes = 0
        kept = 4 * config.tokens * config.channels
        memory = 4 * _LIVE_STREAMS * config.tokens * max(config.width, config.head_width) + kept
        sampling_flops = passes * flops_of(config)
        drawn = Cost(parameters_of(config), sampling_flops, memory, kept, sampling_flops)
        if self.autoencoder is None:
            return drawn
        views = rae3d_plan(self.autoencoder).cost(references, targets, independent=independent, precision=precision)
        return replace(drawn.followed_by(views), shared=sampling_flops + views.shared)


def resampled(settings: Dit3dSettings, *, steps: int | None, guidance: float | None) -> Dit3dSettings:
    """Settings with other sampling; who asks for one asks for a scene that is drawn.

    Raises:
        ValueError: There is no such sampling.
    """
    given = {"steps": steps, "guidance": guidance}
    changed = {name: value for name, value in given.items() if value is not None}
    if not changed:
        return settings
    return replace(settings, sampling=replace(settings.sampling, **changed, decode_from=None))


@cache
def parameters_of(config: Dit3dConfig) -> int:
    """Of the network."""
    with torch.device("meta"):
        return sum(p.numel() for p in Dit3d(config).parameters())


def flops_of(config: Dit3dConfig) -> int:
    """Operations of one pass over one scene: multiply-adds times two of matrix products."""
    tokens, width, wide = config.tokens, config.width, config.head_width
    twice = config.condition == "tokens"
    inside = config.channels * (1 if twice else 2)
    sequence = tokens * (2 if twice else 1)
    backbone = config.depth * (sequence * _block_flops(width, sequence) + 12 * width * width)
    head = config.head_depth * tokens * (_block_flops(wide, tokens) + 12 * wide * wide)
    ends = 2 * tokens * (inside * (width + wide) + 2 * wide * wide + wide * config.channels)
    ends += 2 * tokens * (width * wide if width != wide else 0) + (2 * tokens * config.channels * width if twice else 0)
    return round(backbone + head + ends + 2 * (512 * width + width * width))


def _block_flops(width: int, keys: int) -> int:
    """Of one token in one block, without modulation."""
    return 2 * (4 * width * width + 3 * width * int(8 * width / 3)) + 4 * width * keys
