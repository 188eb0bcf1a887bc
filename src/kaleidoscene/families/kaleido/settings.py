"""What a Kaleido checkpoint says of itself, and how it is rendered from by default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from kaleidoscene.choices import check_choices, check_range
from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.flow.solvers import SolverName
from kaleidoscene.rendering.ordering import RenderPlan

ScaleFrom = Literal["references", "all"]


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """How images are drawn from the flow; the defaults are the paper's."""

    schedule: Schedule = Schedule()
    solver: SolverName = "euler"
    guidance: float = 1.5
    """Scale of classifier-free guidance; 1 is without."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, 0, math.inf, "guidance")


@dataclass(frozen=True, kw_only=True)
class KaleidoSettings:
    """Everything but the weights that a Kaleido checkpoint needs.

    Attributes:
        model: Architecture of the network.
        codec: Image codec of its latents.
        feature_source: Folder or hub id of the DINOv2 encoder, where the network takes features.
        image_size: ``(height, width)`` it was trained at.
        buckets: Other sizes it was trained at, one for each aspect ratio (appendix B: 1:1, 4:5, 5:4, 16:9, 9:16).
        field_of_view: Angle of view in degrees of the shorter side of ``image_size``, and of the longer side of
            ``buckets``, which are cut from square views; the paper models no intrinsics.
        lenses: Least and greatest angle of view, over the longer side, that it was trained with: it takes and renders
            any lens. None: images are cropped or padded to ``field_of_view``.
        scale_from: Whose farthest camera is at distance 1: the references', so that a scene does not depend on what is
            asked of it (and can be cached), or all views' (paper).
        sampling: How views are drawn by default.
        background: What was behind the objects that it was trained on.
        held_out_psnr: Of views of held-out scenes, by the share of them that references show
            (``geometry/coverage.py``): largest share, lower and upper quartile of PSNR in dB; known of shipped weights.
        render_plan: Which targets go into one call by default: as many as it was trained with, or each by itself.
    """

    model: KaleidoConfig
    codec: CodecConfig = CodecConfig()
    feature_source: str = ""
    image_size: tuple[int, int] = (256, 256)
    buckets: tuple[tuple[int, int], ...] = ()
    field_of_view: float = 49.1
    lenses: tuple[float, float] | None = None
    scale_from: ScaleFrom = "references"
    sampling: SamplingConfig = SamplingConfig()
    background: Literal["any", "white"] = field(default="any", metadata={"of_training": False})
    held_out_psnr: tuple[tuple[float, float, float], ...] = field(default=(), metadata={"of_training": False})
    render_plan: RenderPlan = field(default=RenderPlan(), metadata={"of_training": False})

    def __post_init__(self) -> None:
        check_choices(self)
        if self.lenses is not None and not 0 < self.lenses[0] <= self.field_of_view <= self.lenses[1] < 180:
            raise ValueError(f"lenses must be two angles with field_of_view between them, got {self.lenses}.")
        if self.codec.kind == "pixel" and self.model.latent_channels != 3 * self.codec.factor**2:
            raise ValueError(
                f"The pixel codec of factor {self.codec.factor} has {3 * self.codec.factor**2} channels, "
                f"the network takes {self.model.latent_channels}."
            )
        if self.model.outlines and (self.background != "white" or self.codec != CodecConfig(factor=1)):
            raise ValueError("outlines are of models with background='white' and latents that are pixels.")
        if self.model.coarse_to_fine and self.codec != CodecConfig(factor=1):
            raise ValueError("coarse_to_fine is of models with latents that are pixels.")
        if self.model.cacheable and self.scale_from == "all":
            raise ValueError("A causal model's scene must not depend on targets: scale_from must be 'references'.")
