"""What a step of training Kaleido takes, counted from its configuration."""

from __future__ import annotations

from kaleidoscene.families.kaleido.cells import CELLS
from kaleidoscene.families.kaleido.config import KaleidoConfig
from kaleidoscene.families.kaleido.cost import Request, forward_flops
from kaleidoscene.families.kaleido.reprojection import POINT_CHANNELS, POINT_NUMBERS
from kaleidoscene.training.cost import Placement, TrainingCost

# Residual streams of one fp32 token that a block keeps for its backward pass, and those that stay where only its input
# is kept (activation checkpointing); from the peak without it in benchmarks/kaleido_small.md, less weights, their casts
# and gradients.
_KEPT_STREAMS, _RECOMPUTED_STREAMS = 21, 1
# Bytes of a trained parameter: weight, gradient, two moments of AdamW and the running average, all fp32.
_BYTES_PER_PARAMETER = 4 + 4 + 8 + 4


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
    points = composed * local_tokens * config.patch_size**2 * (config.refined_points or config.ray_points)
    if config.refined_points:
        points += 0.5 * local_tokens * CELLS**2 * config.ray_points
    looked_at = 4 * points * (POINT_NUMBERS + POINT_CHANNELS * config.latent_channels)
    return TrainingCost(
        parameters=parameters,
        tokens=tokens,
        flops=(4 if placement.checkpointing else 3) * forward,
        state_bytes=_BYTES_PER_PARAMETER * parameters // placement.shards,
        activation_bytes=int(stream * (config.depth * kept + _KEPT_STREAMS) + gathered + casts + summed + looked_at),
    )
