"""Forward and backward of the micro-batches of a step."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor

from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.distributed import set_gradient_reduction
from kaleidoscene.training.health import first_not_finite, not_finite_parameters
from kaleidoscene.training.heartbeat import Heartbeat
from kaleidoscene.training.loss_scale import LossScale
from kaleidoscene.training.task import Task
from kaleidoscene.training.world import World


class Passes:
    """Computes losses and leaves gradients in the parameters of a task's network.

    Args:
        task: Its losses.
        config: Precision and seed.
        world: All processes, which average their gradients.
        scaler: Of the loss, in half precision.
        heartbeat: Told what this process is about to do.
    """

    def __init__(
        self, task: Task, config: TrainConfig, world: World, scaler: LossScale | None, heartbeat: Heartbeat
    ) -> None:
        self.task, self.config, self.world = task, config, world
        self.scaler, self.heartbeat = scaler, heartbeat

    def __call__(
        self, parts: list[Views], weights: list[float], total: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Gradients of a step.

        Args:
            parts: Micro-batches of this process.
            weights: What their losses are means over.
            total: The same over all micro-batches of all processes.

        Returns:
            This process's part of the mean losses by name, and the sum of the losses of each micro-batch.
        """
        means: dict[str, Tensor] = {}
        of_parts: list[Tensor] = []
        for number, (views, weight) in enumerate(zip(parts, weights, strict=True)):
            set_gradient_reduction(self.task.model, number == len(parts) - 1)
            self.heartbeat.enter(1)
            losses = self.forward(views)
            share = weight / total
            # Processes average their gradients, so that each gives its part of the whole mean times their number.
            loss = losses["loss"] * (share * self.world.size).to(losses["loss"].dtype)
            self._backward(loss if self.scaler is None else loss * self.scaler.scale)
            for name, value in losses.items():
                means[name] = means.get(name, torch.zeros_like(total)) + value.detach().double() * share
            of_parts.append(torch.stack([value.detach().double() for value in losses.values()]).sum())
        return means, of_parts

    def _backward(self, loss: Tensor) -> None:
        """Nothing to do where no part that learns has a say in the loss, as those that look at references alone."""
        if loss.requires_grad:
            loss.backward()
        elif self.world.size > 1:
            raise KaleidosceneError(
                f"--train.only {' '.join(self.config.only)}: a batch says nothing to these parts, and other processes "
                "wait for their gradients; with --data.reference-dropout 0 all batches have references."
            )

    def forward(self, views: Views) -> dict[str, Tensor]:
        """Losses of a micro-batch, in the precision of the run."""
        device = torch.device(self.world.device).type
        dtype = torch.float16 if self.config.precision == "fp16" else torch.bfloat16
        # Weights are used once in a pass: a cache of their casts gains nothing, and where blocks are recomputed it
        # would hold a copy of the whole of sharded weights.
        low = torch.autocast(device, dtype, cache_enabled=False) if self.config.precision != "fp32" else nullcontext()
        with low:
            return self.task.losses(views.to(self.world.device), self.config.seed)

    def places_not_finite(self, parts: list[Views], spoilt: bool) -> list[str]:
        """Where numbers stop being finite, found by computing once more; the loss itself if it is nowhere else."""
        model = self.task.model
        with first_not_finite(model) as found, torch.no_grad():
            for views in parts:
                self.forward(views)
        return found + not_finite_parameters(model) or ["the loss itself"] * spoilt
