"""The architecture of a Kaleido transformer as plain values, and the sizes of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kaleidoscene.choices import check_choices
from kaleidoscene.nn.gta import Frequencies, Representation
from kaleidoscene.nn.mlp import swiglu_width
from kaleidoscene.nn.modulation import ModulationKind
from kaleidoscene.nn.registers import RegisterMode

HEAD_DIM = 64  # 1024/16 = 1280/20 = 1792/28 (Table 1)


@dataclass(frozen=True, kw_only=True)
class EncodingConfig:
    """How places, poses and times enter attention (section 3.2.1 (ii)).

    The ablation's rows: ``pose="gta"`` is the final choice; ``representation="dual"`` with
    ``transform_values=False`` is the baseline "2D RoPE + 3D CaPE"; ``pose="plucker"`` is "RoPE + Pluecker".
    """

    pose: Literal["gta", "plucker"] = "gta"
    """``plucker`` takes poses as a ray map beside the latents in place of SE(3) blocks."""
    representation: Representation = "standard"
    """``dual`` uses P^{-T} in place of P (CaPE)."""
    lens: Literal["none", "projective"] = "none"
    """``projective`` puts the lens into the SE(3) blocks (PRoPE; ours): the nominal one changes nothing there."""
    transform_values: bool = True
    """Whether values and outputs are transformed as well as queries and keys."""
    image_frequencies: Frequencies = Frequencies()
    time_frequencies: Frequencies = Frequencies()

    def __post_init__(self) -> None:
        check_choices(self)
        if self.lens == "projective" and self.pose != "gta":
            raise ValueError("lens='projective' goes into the blocks of pose='gta'; Pluecker rays know the lens.")
        if self.time_frequencies.kind == "rope":
            raise ValueError(
                "time_frequencies cannot be 'rope': it turns by whole steps, and the time of a frame is its place in "
                "the clip, from 0 to 1; take octave, harmonic or geometric."
            )


@dataclass(frozen=True, kw_only=True)
class KaleidoConfig:
    """Architecture of a Kaleido transformer; everything that a checkpoint needs to rebuild it.

    Defaults are the paper's final design, or the recommended reading where it is silent (docs/papers.md).
    """

    width: int
    """Channels of the residual stream, a multiple of 64."""
    depth: int
    """Number of blocks."""
    kv_heads: int
    """Key/value heads; must divide the number of query heads, width / 64."""
    window: int | None = 4
    """K of windowed cross-view attention; None is full attention."""
    latent_channels: int = 16
    """Channels of the image codec."""
    patch_size: int = 2
    """Latent pixels along the side of a token."""
    feature_channels: int = 0
    """Channels of auxiliary reference features (DINOv2: 768 or 1024), 0 without."""
    feed_forward: Literal["swiglu", "gelu"] = "swiglu"
    """``gelu`` is the plain layer of DiT, the ablation's baseline."""
    hidden_width: int | None = None
    """Hidden channels of the feed-forward layer; None is 8/3 width rounded up to a multiple of 256 (gelu: 4 width). A
    gelu layer has half as many more, so that it has the same number of weights."""
    condition_width: int | None = None
    """Channels of the timestep embedding; None is ``width`` (paper). Small models save most of AdaLN's weights here."""
    modulation: ModulationKind = "full"
    registers: int = 1
    """Learned keys and values in every attention layer."""
    cross_view_registers: RegisterMode = "query_frame"
    spatial_registers: RegisterMode = "identity"
    query_key_norm: bool = False
    """Layer norm on queries and keys, before their transforms (not in the paper)."""
    role_embedding: bool = True
    """A learned vector tells references from targets (open choice E7)."""
    camera_ray_bands: int = 0
    """Octaves of the token's ray in its own camera's axes, added to the embedding; 0 is without (paper).

    Ours: it tells tokens where they stand in the image and the field of view, and no world frame enters."""
    ray_bias: bool = False
    """Heads of cross-view attention start out following rays (``ray_bias.py``; ours, not the paper's)."""
    reprojection_depths: int = 0
    """Points on a target's ray at which latents of references may be copied (``reprojection.py``; ours, not the
    paper's); 0 is without."""
    reprojection_beyond: int = 0
    """More points before and behind those, for places: a quarter of them before, from the distance of the farthest
    reference on, the others behind, evenly in disparity to infinity."""
    refined_points: int = 0
    """Points that a pixel looks at once cells of pixels have found surfaces at those depths (``refinement.py``); 0:
    every pixel looks at all depths."""
    ray_contrast: float = 1.0
    """Power of the shares that points of a ray have of its pixel (their sum stays): above 1 the likeliest surface
    counts for more, and copies of unlikely ones blur less. It may be chosen after training."""
    matched_windows: tuple[int, ...] = ()
    """Sides of windows, in pixels of half the resolution, in which references are compared at points of rays
    (``matching.py``); none: they are compared pixel by pixel alone."""
    blending_angle: float | None = None
    """Degrees off the ray of a pixel at which a reference counts for a quarter in the colour of a point; None:
    directions count softly, as in the evidence. It may be chosen after training."""
    looked_at_references: int = 0
    """References that a target is copied from, those whose cameras are nearest to its own; 0: all. Attention sees all
    of them in either case."""
    points_per_depth: int = 1
    """Points that are looked at for each of these depths; what tokens say is taken linearly between them, so that
    shifted copies blend. It may be chosen after training."""
    coarse_to_fine: bool = False
    """Rendering looks closely only where a coarse pass over a view found edges, and at points of rays near those that
    it found (``coarse.py``). It may be chosen after training, for latents that are pixels."""
    outlines: bool = False
    """What outlines of references on white rule out is white, and not looked at (``outlines.py``): of models of objects
    on white whose latents are pixels. It may be chosen after training."""
    reference_attention: Literal["bidirectional", "causal"] = "bidirectional"
    """``causal`` hides targets from references."""
    reference_time: Literal["shared", "zero"] = "shared"
    """``zero`` conditions references on t = 0, whatever the time of the targets."""
    prediction: Literal["velocity", "data"] = "velocity"
    """What the last layer says: the velocity (paper), or the data, from which the velocity follows."""
    encoding: EncodingConfig = EncodingConfig()

    def __post_init__(self) -> None:
        check_choices(self)
        if self.width % HEAD_DIM:
            raise ValueError(f"width must be a multiple of {HEAD_DIM}, got {self.width}.")
        if self.kv_heads < 1 or self.num_heads % self.kv_heads:
            raise ValueError(f"kv_heads must divide the {self.num_heads} query heads, got {self.kv_heads}.")
        for name in ("depth", "latent_channels", "patch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 or None, got {self.window}.")
        self._check_reprojection()
        self._check_looking()
        if (self.reference_attention == "causal") != (self.reference_time == "zero"):
            raise ValueError(
                "reference_attention and reference_time go together: 'bidirectional' with 'shared' (paper) or "
                f"'causal' with 'zero', got {self.reference_attention!r} with {self.reference_time!r}."
            )

    def _check_reprojection(self) -> None:
        if self.looked_at_references < 0 or (self.looked_at_references and not self.reprojection_depths):
            raise ValueError(
                "looked_at_references must be at least 0, and belongs to reprojection_depths, got "
                f"{self.looked_at_references}."
            )
        if self.blending_angle is not None and not (1 <= self.blending_angle < 90 and self.reprojection_depths):
            raise ValueError(
                "blending_angle must lie between 1 and 90 degrees, and belongs to reprojection_depths, got "
                f"{self.blending_angle}."
            )
        if self.points_per_depth < 1 or (self.points_per_depth > 1 and self.refined_points):
            raise ValueError(
                f"points_per_depth must be at least 1, and 1 with refined_points, got {self.points_per_depth}."
            )
        if self.ray_contrast < 1:
            raise ValueError(f"ray_contrast must be at least 1, got {self.ray_contrast}.")
        if self.reprojection_depths < 0:
            raise ValueError(f"reprojection_depths must be at least 0, got {self.reprojection_depths}.")
        if self.reprojection_beyond < 0 or (self.reprojection_beyond and not self.reprojection_depths):
            raise ValueError(
                "reprojection_beyond must be at least 0, and belongs to reprojection_depths, got "
                f"{self.reprojection_beyond}."
            )
        if self.reprojection_beyond and self.refined_points:
            raise ValueError("refined_points find surfaces among reprojection_depths alone: reprojection_beyond is 0.")
        if self.refined_points < 0:
            raise ValueError(f"refined_points must be at least 0, got {self.refined_points}.")
        if self.refined_points and not self.reprojection_depths:
            raise ValueError("refined_points refine reprojection: reprojection_depths must be at least 1.")

    def _check_looking(self) -> None:
        if self.matched_windows and (not self.reprojection_depths or self.refined_points):
            raise ValueError("matched_windows belong to reprojection_depths, without refined_points.")
        if any(side < 1 or side % 2 == 0 for side in self.matched_windows):
            raise ValueError(f"matched_windows must be odd and at least 1, got {self.matched_windows}.")
        if self.coarse_to_fine and (not self.reprojection_depths or self.refined_points):
            raise ValueError("coarse_to_fine belongs to reprojection_depths, without refined_points.")
        if self.coarse_to_fine and self.prediction != "data":
            raise ValueError("coarse_to_fine goes with prediction='data'.")
        if self.outlines and (not self.reprojection_depths or self.reprojection_beyond or self.refined_points):
            raise ValueError("outlines belong to reprojection_depths, without reprojection_beyond and refined_points.")
        if self.outlines and self.prediction != "data":
            raise ValueError("outlines go with prediction='data'.")

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.width // HEAD_DIM

    @property
    def ray_points(self) -> int:
        """Points on a target's ray at which references are looked up first."""
        return self.reprojection_depths + self.reprojection_beyond

    @property
    def feed_forward_width(self) -> int:
        """Hidden channels of the feed-forward layer."""
        if self.hidden_width is not None:
            return self.hidden_width * 3 // 2 if self.feed_forward == "gelu" else self.hidden_width
        return 4 * self.width if self.feed_forward == "gelu" else swiglu_width(self.width)

    @property
    def condition_channels(self) -> int:
        """Channels of the timestep embedding."""
        return self.condition_width or self.width

    @property
    def patch_channels(self) -> int:
        """Numbers in one token."""
        return self.latent_channels * self.patch_size**2

    @property
    def cacheable(self) -> bool:
        """Whether keys and values of references can be kept (method A.13)."""
        return self.reference_attention == "causal"


def kaleido_small() -> KaleidoConfig:
    """Kaleido-Small of Table 1, with DINOv2-B features: 653M parameters with the encoder."""
    return KaleidoConfig(width=1024, depth=24, kv_heads=4, window=4, feature_channels=768)


def kaleido_medium() -> KaleidoConfig:
    """Kaleido-Medium of Table 1, with DINOv2-B features: 1.27B parameters with the encoder."""
    return KaleidoConfig(width=1280, depth=32, kv_heads=5, window=4, feature_channels=768)


def kaleido_large() -> KaleidoConfig:
    """Kaleido (Large) of Table 1, with DINOv2-L features: 3.17B parameters with the encoder."""
    return KaleidoConfig(width=1792, depth=40, kv_heads=7, window=8, feature_channels=1024)
