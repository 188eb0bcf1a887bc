"""What training takes, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass


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
        view_ranks: Processes that share the views of a scene.
    """

    processes: int
    shards: int
    parts: int
    checkpointing: bool
    half: bool = False
    view_ranks: int = 1
