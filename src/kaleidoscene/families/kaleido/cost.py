"""Operations and memory of a Kaleido network, counted from its configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kaleidoscene.families.kaleido.cells import CELLS
from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.families.kaleido.lookups import seconds_of_lookups
from kaleidoscene.families.kaleido.matching import NUMBERS
from kaleidoscene.families.kaleido.matching import STRIDE as WINDOW_STRIDE
from kaleidoscene.families.kaleido.outlines import SEVERAL
from kaleidoscene.families.kaleido.ray_bias import CHANNELS as RAY_CHANNELS
from kaleidoscene.families.kaleido.refinement import MATCH
from kaleidoscene.families.kaleido.refinement import cell_flops as refinement_cell_flops
from kaleidoscene.families.kaleido.reprojection import BAND, FEWER, POINT_CHANNELS, POINT_NUMBERS
from kaleidoscene.families.kaleido.weighing import HIDDEN
from kaleidoscene.families.kaleido.weighing import flops as reprojection_flops
from kaleidoscene.nn.windows import Windows
from kaleidoscene.rendering.cost import Cost

# Numbers of a point of a cell beyond those of any point, while its volume is convolved.
_CELL_NUMBERS = 60
# What it takes to look at some points alone, as a share of looking at all; measured on scans (benchmarks/outlines.md):
# those inside of outlines, those near to what a coarse pass found, and those that are both. A coarse pass alone takes a
# quarter of what it takes to look at one point a depth; of places nearly all points are looked at after it.
_INSIDE, _NEAR, _BOTH, _COARSE, _EVERYWHERE = 0.33, 0.28, 0.22, 0.25, 0.9
# fp32 numbers of a point while it is asked whether to look at it.
_ASKED = 20
# The same of a point of a view's windows, beside what they say.
_WINDOW_NUMBERS = 8
# Copies of the latents of views that are held at once, with what the allocator keeps (benchmarks/magnification.md).
_PICTURES = 12
# Peak of one block's activations, in residual streams of one fp32 token; measured over several sizes
# (benchmarks/render_memory.md) and rounded up.
_LIVE_STREAMS = 14


@dataclass(frozen=True)
class KaleidoCost(Cost):
    """With reprojection, which takes time that no count of matrix products tells.

    Attributes:
        lookups: References that are looked up at points of rays.
    """

    lookups: int = 0

    def followed_by(self, other: Cost, *, same_scene: bool = False) -> KaleidoCost:
        """Of this and another call one after the other."""
        both = super().followed_by(other, same_scene=same_scene)
        assert isinstance(both, KaleidoCost)
        return replace(both, lookups=self.lookups + getattr(other, "lookups", 0))

    def seconds(self, speed: float, device: str) -> float:
        """Time here: that of products and that of lookups, which are tried."""
        return super().seconds(speed, device) + seconds_of_lookups(self.lookups, device)

    @property
    def remark(self) -> str:
        """How many lookups there are."""
        return f"{self.lookups / 1e6:,.0f} million lookups" if self.lookups else ""


@dataclass(frozen=True)
class Request:
    """Views in one call of the network.

    Attributes:
        queries: Views whose tokens are computed.
        keys: Views that each of them may see.
        grid: Token grid of a view.
        batch: Scenes in the call.
        composed: Share of the queries' pixels at which reprojection takes part, where the network has it.
        magnification: How many times larger views are than the network sees them.
    """

    queries: int
    keys: int
    grid: tuple[int, int]
    batch: int = 1
    composed: float = 1.0
    magnification: int = 1


def forward_flops(config: KaleidoConfig, request: Request) -> int:
    """Multiply-adds times two of one forward pass: matrix products only, as is usual."""
    tokens = request.batch * request.queries * request.grid[0] * request.grid[1]
    width, hidden = config.width, config.feed_forward_width
    projections = 2 * (2 * width * width + 2 * width * config.kv_heads * HEAD_DIM)
    matrices = 3 if config.feed_forward == "swiglu" else 2
    per_token = 2 * (projections + matrices * width * hidden)
    windows = Windows(request.grid, config.window)
    window_tokens = windows.window[0] * windows.window[1]
    spatial_keys = request.grid[0] * request.grid[1]
    attention = 4 * config.num_heads * HEAD_DIM * (spatial_keys + request.keys * window_tokens)
    ends = 2 * 2 * width * config.patch_channels
    if config.ray_points:
        token, pixel = reprojection_flops(width, config.latent_channels, config.ray_points)
        pixel += 2 * NUMBERS * len(config.matched_windows) * HIDDEN * config.ray_points
        pixel *= config.points_per_depth * request.magnification
        if config.refined_points:
            cell = refinement_cell_flops(config.ray_points)
            near = reprojection_flops(width, config.latent_channels, config.refined_points)[1]
            ends += (token + CELLS**2 * (pixel + cell) + config.patch_size**2 * near) * request.composed
        else:
            ends += (token + (config.patch_size * request.magnification) ** 2 * pixel) * request.composed
    vectors = {"full": 9, "shift": 3, "none": 0}[config.modulation]
    modulation = 2 * request.batch * request.queries * vectors * width * config.condition_channels
    return round(tokens * (config.depth * (per_token + attention) + ends)) + config.depth * modulation


def cache_bytes(
    config: KaleidoConfig, references: int, grid: tuple[int, int], bytes_per_number: int, magnification: int = 1
) -> int:
    """Memory of the keys and values of references."""
    tokens = references * grid[0] * grid[1]
    channels = 2 * HEAD_DIM + (RAY_CHANNELS if config.ray_bias else 0)
    surfaces = 4 * CELLS**2 * tokens if config.ray_points else 0
    if config.refined_points:
        surfaces += 4 * MATCH * config.patch_size**2 // 16 * tokens
    if config.outlines:
        surfaces += 4 * (config.patch_size * magnification) ** 2 * tokens
    return config.depth * tokens * config.kv_heads * channels * bytes_per_number + surfaces


def reprojection_lookups(
    config: KaleidoConfig, references: int, targets: int, grid: tuple[int, int], magnification: int = 1
) -> int:
    """References that one evaluation looks up at points of rays; what is done once a point counts as two of them."""
    seen = min(references, config.looked_at_references or references)
    lookups = targets * grid[0] * grid[1] * _points(config, magnification) * (seen + 2)
    inside = config.outlines and references >= SEVERAL
    share = _INSIDE if inside else 1.0
    if config.coarse_to_fine:
        near = _EVERYWHERE if config.reprojection_beyond else _NEAR
        share = _BOTH if inside else near + _COARSE / (config.points_per_depth * magnification)
    # Windows are asked at some pixels of the size of training.
    windows = targets * grid[0] * grid[1] * config.patch_size**2 // WINDOW_STRIDE**2 * config.ray_points * (seen + 2)
    return round(share * lookups) + (windows if config.matched_windows else 0)


def _points(config: KaleidoConfig, magnification: int) -> int:
    """That are looked at for a token."""
    pixels = (config.patch_size * magnification) ** 2
    if config.refined_points:
        return CELLS**2 * config.ray_points + pixels * config.refined_points
    return pixels * config.points_per_depth * magnification * config.ray_points


def activation_bytes(config: KaleidoConfig, request: Request) -> int:
    """Peak memory of one forward pass without gradients, beyond weights and cache."""
    tokens = request.batch * request.queries * request.grid[0] * request.grid[1]
    key_tokens = request.batch * request.keys * request.grid[0] * request.grid[1]
    network = _LIVE_STREAMS * tokens * config.width + 6 * key_tokens * config.kv_heads * HEAD_DIM
    view_pixels = request.grid[0] * request.grid[1] * (config.patch_size * request.magnification) ** 2
    pixels = request.batch * request.queries * view_pixels
    per_depth = config.points_per_depth * request.magnification
    looked_at = config.refined_points or per_depth * config.ray_points
    points = round(request.composed * pixels) * looked_at
    band = min(BAND, points)
    if config.refined_points:  # a view's cells are looked at together
        cells = request.grid[0] * request.grid[1] * CELLS**2 * config.ray_points
        band = max(band, cells + cells * _CELL_NUMBERS // POINT_NUMBERS)
    asked = _ASKED * min(FEWER * BAND, points) if config.outlines or config.coarse_to_fine else 0
    if config.coarse_to_fine:  # of one view its shares, which of them are large, and what is near to those
        asked += 5 * view_pixels // 4 * config.ray_points * (per_depth if config.outlines else 1)
    if config.matched_windows:  # of one view, at its size in training
        view = request.grid[0] * request.grid[1] * config.patch_size**2 // WINDOW_STRIDE**2
        asked += (2 * NUMBERS * len(config.matched_windows) + _WINDOW_NUMBERS) * view * config.ray_points
    pictures = _PICTURES * (request.batch * request.queries + request.keys) * view_pixels * config.latent_channels
    context = CELLS**2 * tokens * (config.ray_points + HIDDEN) if config.ray_points else 0
    return 4 * (network + context + asked + pictures + band * (POINT_NUMBERS + POINT_CHANNELS * config.latent_channels))
