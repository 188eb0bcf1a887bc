"""Operations and memory of a Kaleido network, counted from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.nn.ray_bias import CHANNELS as RAY_CHANNELS
from kaleidoscene.nn.reprojection import BAND, CELLS, HIDDEN, POINT_CHANNELS, POINT_NUMBERS
from kaleidoscene.nn.reprojection import flops as reprojection_flops
from kaleidoscene.nn.windows import Windows

# Peak of one block's activations, in residual streams of one fp32 token; measured over several sizes
# (benchmarks/render_memory.md) and rounded up.
_LIVE_STREAMS = 14


@dataclass(frozen=True)
class Request:
    """Views in one call of the network.

    Attributes:
        queries: Views whose tokens are computed.
        keys: Views that each of them may see.
        grid: Token grid of a view.
        batch: Scenes in the call.
        composed: Share of the queries' pixels at which reprojection takes part, where the network has it.
    """

    queries: int
    keys: int
    grid: tuple[int, int]
    batch: int = 1
    composed: float = 1.0


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
    if config.reprojection_depths:
        token, pixel = reprojection_flops(width, config.latent_channels, config.reprojection_depths)
        ends += (token + config.patch_size**2 * pixel) * request.composed
    vectors = {"full": 9, "shift": 3, "none": 0}[config.modulation]
    modulation = 2 * request.batch * request.queries * vectors * width * config.condition_channels
    return round(tokens * (config.depth * (per_token + attention) + ends)) + config.depth * modulation


def cache_bytes(config: KaleidoConfig, references: int, grid: tuple[int, int], bytes_per_number: int) -> int:
    """Memory of the keys and values of references."""
    tokens = references * grid[0] * grid[1]
    channels = 2 * HEAD_DIM + (RAY_CHANNELS if config.ray_bias else 0)
    surfaces = 4 * CELLS**2 * tokens if config.reprojection_depths else 0
    return config.depth * tokens * config.kv_heads * channels * bytes_per_number + surfaces


def reprojection_lookups(config: KaleidoConfig, references: int, targets: int, grid: tuple[int, int]) -> int:
    """References that one evaluation looks up at points of rays; what is done once a point counts as two of them."""
    pixels = targets * grid[0] * grid[1] * config.patch_size**2
    return pixels * config.reprojection_depths * (references + 2)


def activation_bytes(config: KaleidoConfig, request: Request) -> int:
    """Peak memory of one forward pass without gradients, beyond weights and cache."""
    tokens = request.batch * request.queries * request.grid[0] * request.grid[1]
    key_tokens = request.batch * request.keys * request.grid[0] * request.grid[1]
    network = _LIVE_STREAMS * tokens * config.width + 6 * key_tokens * config.kv_heads * HEAD_DIM
    pixels = tokens * config.patch_size**2
    band = min(BAND, round(request.composed * pixels) * config.reprojection_depths)
    context = CELLS**2 * tokens * (config.reprojection_depths + HIDDEN) if config.reprojection_depths else 0
    return 4 * (network + context + band * (POINT_NUMBERS + POINT_CHANNELS * config.latent_channels))


# Residual streams of one fp32 token that a block keeps for its backward pass, and those that stay where only its input
# is kept (activation checkpointing); from the peak without it in benchmarks/kaleido_small.md, less weights, their casts
# and gradients.
_KEPT_STREAMS, _RECOMPUTED_STREAMS = 21, 1
# Bytes of a trained parameter: weight, gradient, two moments of AdamW and the running average, all fp32.
_BYTES_PER_PARAMETER = 4 + 4 + 8 + 4


@dataclass(frozen=True)
class TrainingCost:
    """What one step of a run takes; autoencoder and feature encoder are not counted (latents made ahead spare them).

    Attributes:
        parameters: That are trained.
        tokens: Of one step, over all processes (references and targets).
        flops: Operations of one step, over all processes: forward, and twice that backward; one more forward pass where
            activations are recomputed.
        state_bytes: Weights, gradients, optimiser and average of one process.
        activation_bytes: Peak of one process beyond that, an estimate.
    """

    parameters: int
    tokens: int
    flops: int
    state_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class Placement:
    """How a run lies on its processes.

    Attributes:
        processes: One a GPU.
        shards: Processes that share one copy of the weights (1: each has its own).
        parts: Micro-batches of a step.
        checkpointing: Whether activations are recomputed.
        half: Whether products run in half precision over fp32 weights, so that the backward pass keeps casts of them.
    """

    processes: int
    shards: int
    parts: int
    checkpointing: bool
    half: bool = False


def training_cost(
    config: KaleidoConfig, parameters: int, *, views: float, batch: int, grid: tuple[int, int], placement: Placement,
    reprojection_stride: int = 1,
) -> TrainingCost:  # fmt: skip
    """Cost of one training step.

    Args:
        config: The network.
        parameters: Its number.
        views: That the network computes of a scene, on average.
        batch: Scenes of a step.
        grid: Token grid of a view.
        placement: Processes.
        reprojection_stride: Of the lattice at which reprojection takes part, where the network has it.
    """
    tokens = round(batch * views * grid[0] * grid[1])
    whole = max(1, round(views))
    # About half of the views are targets, and pixels of these are composed.
    composed = 0.5 / reprojection_stride**2
    forward = round(forward_flops(config, Request(whole, whole, grid, batch, composed)) * views / whole)
    local_tokens = tokens / (placement.processes * placement.parts)
    stream = 4 * config.width * local_tokens
    kept = _RECOMPUTED_STREAMS if placement.checkpointing else _KEPT_STREAMS
    # One block is always at work, and its gathered weights stand beside the shards.
    gathered = 2 * 4 * parameters / config.depth if placement.shards > 1 else 0
    casts = 2 * parameters / (config.depth if placement.checkpointing else 1) if placement.half else 0
    # Gradients of all but the last micro-batch are added up unreduced, whole.
    summed = 4 * parameters if placement.shards > 1 and placement.parts > 1 else 0
    points = composed * local_tokens * config.patch_size**2 * config.reprojection_depths
    looked_at = 4 * points * (POINT_NUMBERS + POINT_CHANNELS * config.latent_channels)
    return TrainingCost(
        parameters=parameters,
        tokens=tokens,
        flops=(4 if placement.checkpointing else 3) * forward,
        state_bytes=_BYTES_PER_PARAMETER * parameters // placement.shards,
        activation_bytes=int(stream * (config.depth * kept + _KEPT_STREAMS) + gathered + casts + summed + looked_at),
    )
