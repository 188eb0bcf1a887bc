"""Length, precision, sharding and habits of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from kaleidoscene.choices import check_choices, check_range
from kaleidoscene.nn.precision import AnyPrecision
from kaleidoscene.serialisation import to_plain
from kaleidoscene.training.optim import OptimConfig

Sharding = Literal["none", "ddp", "fsdp", "hybrid"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, precision, sharding and habits of a run."""

    steps: int = 100_000
    optim: OptimConfig = OptimConfig()
    ema_decay: float = 0.9999
    precision: AnyPrecision = "auto"
    """Of matrix products (auto: bf16 where the device multiplies in it, fp32 elsewhere); weights, residual,
    normalisation, softmax statistics and geometry stay fp32."""
    accumulate: int | None = 1
    """Micro-batches that each process cuts its share of a step's batch into; gradients are reduced once a step. None:
    so many that none is larger than the groups of scenes that share view counts (data.share_counts)."""
    sharding: Sharding = "none"
    """How processes share the work (docs/training.md): whole weights everywhere (ddp), everything in pieces (fsdp), or
    pieces within groups of ``shard_size`` and copies among them (hybrid)."""
    shard_size: int | None = None
    """Processes that share one copy of the weights (hybrid)."""
    view_parallel: int = 1
    """Processes that share the views of a scene, for scenes that are too large for one, or batches that are smaller
    than the number of processes (docs/training.md); they are neighbours and exchange windows of cross-view
    attention."""
    gather_precision: Literal["fp32", "compute"] = "fp32"
    """Type in which sharded weights travel; ``compute`` halves the traffic and rounds norms and embeddings too."""
    timeout: float = 600.0
    """Seconds after which a process that waits for the others gives up, so that nothing hangs."""
    time_limit: float = 0.0
    """Seconds after which the run writes a checkpoint and ends, so that the same command can go on; 0 is never."""
    only: tuple[str, ...] = ()
    """Children of the network that are trained, by name; the others keep their weights. Empty: all are."""
    compile: bool = False
    """torch.compile on every block."""
    activation_checkpointing: bool = False
    device: str = "cpu"
    workers: int = 1
    """Processes that make batches ahead."""
    seed: int = 0
    divergence_factor: float = 3.0
    """The run stops when the mean loss of 50 steps is so many times the lowest such mean before; 0 is never."""
    log_every: int = 10
    validate_every: int = 1000
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    async_checkpoints: bool = False
    """Write checkpoints in the background; a second one waits for the first."""
    tensorboard: bool = False
    wandb: bool = False
    """Log to Weights & Biases as well (needs the wandb extra; the run's name is that of its folder)."""
    peak_flops: float = 0.0
    """Peak of one process in TFLOP/s; the share of it that is reached is logged (MFU). 0: not known."""
    profile: int = 0
    """Steps, from the third of this start on, of which a trace is written to RUN/profile (torch.profiler); 0: none."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, 0, 1, "ema_decay")
        check_range(self, 0, math.inf, "workers", "divergence_factor")
        if self.accumulate is not None and self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}.")
        for name in ("steps", "view_parallel", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if (self.sharding == "hybrid") != (self.shard_size is not None):
            raise ValueError("shard_size belongs to sharding 'hybrid': give both or neither.")
        if self.shard_size is not None and self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, got {self.shard_size}.")
        if self.peak_flops < 0 or self.profile < 0:
            raise ValueError(f"peak_flops and profile must be at least 0, got {self.peak_flops}, {self.profile}.")
        if self.timeout <= 0 or self.time_limit < 0:
            raise ValueError(
                f"timeout must be above 0 and time_limit at least 0, got {self.timeout}, {self.time_limit}."
            )


# What may change when a run goes on: its length, and what does not touch the numbers beyond rounding.
_FREE = (
    "steps", "accumulate", "sharding", "shard_size", "gather_precision", "timeout", "time_limit", "compile",
    "activation_checkpointing", "device", "workers", "divergence_factor", "log_every", "validate_every",
    "checkpoint_every", "keep_checkpoints", "async_checkpoints", "tensorboard", "wandb", "peak_flops", "profile",
    "view_parallel",
)  # fmt: skip


def recipe_identity(config: TrainConfig) -> dict[str, Any]:
    """What a resumed run must have in common with its beginning."""
    return {name: value for name, value in to_plain(config).items() if name not in _FREE}
