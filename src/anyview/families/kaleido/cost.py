"""Operations and memory of a Kaleido network, counted from its configuration."""

from __future__ import annotations

from dataclasses import dataclass

from anyview.families.kaleido.config import HEAD_DIM, KaleidoConfig
from anyview.nn.ray_bias import CHANNELS as RAY_CHANNELS
from anyview.nn.windows import Windows

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
    """

    queries: int
    keys: int
    grid: tuple[int, int]
    batch: int = 1


def forward_flops(config: KaleidoConfig, request: Request) -> int:
    """Multiply-adds times two of one forward pass: matrix products only, as is usual."""
    tokens = request.batch * request.queries * request.grid[0] * request.grid[1]
    width, hidden = config.width, config.feed_forward_width
    projections = 2 * (2 * width * width + 2 * width * config.kv_heads * HEAD_DIM)
    per_token = 2 * (projections + 3 * width * hidden)
    windows = Windows(request.grid, config.window)
    window_tokens = windows.window[0] * windows.window[1]
    spatial_keys = request.grid[0] * request.grid[1]
    attention = 4 * config.num_heads * HEAD_DIM * (spatial_keys + request.keys * window_tokens)
    ends = 2 * 2 * width * config.patch_channels
    vectors = {"full": 9, "shift": 3, "none": 0}[config.modulation]
    modulation = 2 * request.batch * request.queries * vectors * width * config.condition_channels
    return tokens * (config.depth * (per_token + attention) + ends) + config.depth * modulation


def cache_bytes(config: KaleidoConfig, references: int, grid: tuple[int, int], bytes_per_number: int) -> int:
    """Memory of the keys and values of references."""
    tokens = references * grid[0] * grid[1]
    channels = 2 * HEAD_DIM + (RAY_CHANNELS if config.ray_bias else 0)
    return config.depth * tokens * config.kv_heads * channels * bytes_per_number


def activation_bytes(config: KaleidoConfig, request: Request) -> int:
    """Peak memory of one forward pass without gradients, beyond weights and cache."""
    tokens = request.batch * request.queries * request.grid[0] * request.grid[1]
    key_tokens = request.batch * request.keys * request.grid[0] * request.grid[1]
    return 4 * (_LIVE_STREAMS * tokens * config.width + 6 * key_tokens * config.kv_heads * HEAD_DIM)
