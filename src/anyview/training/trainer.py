"""The training loop: one process, exact resume, nothing that fails silently."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from anyview.data.batches import seeded
from anyview.data.views import Views
from anyview.errors import AnyViewError
from anyview.serialisation import to_plain
from anyview.training.checkpoint import (
    TrainingState,
    list_checkpoints,
    load_training_state,
    load_weights,
    save_checkpoint,
)
from anyview.training.ema import Ema
from anyview.training.health import first_not_finite, not_finite_parameters, top_activations
from anyview.training.log import RunLog
from anyview.training.optim import OptimConfig, Optimisers
from anyview.training.task import Task


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, precision and habits of a run."""

    steps: int = 100_000
    optim: OptimConfig = OptimConfig()
    ema_decay: float = 0.9999
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    accumulate: int = 1
    """Micro-batches a step; each is a batch of the data's size."""
    compile: bool = False
    """torch.compile on every block."""
    activation_checkpointing: bool = False
    device: str = "cpu"
    workers: int = 1
    """Processes that make batches ahead."""
    seed: int = 0
    log_every: int = 10
    validate_every: int = 1000
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.precision == "fp16" and not self.device.startswith("cuda"):
            raise ValueError("precision 'fp16' needs a GPU (device 'cuda'); use 'bf16' or 'fp32' here.")
        for name in ("steps", "accumulate", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")


@runtime_checkable
class Batches(Protocol):
    """Training data: the batch of any step."""

    def loader(self, steps: range, *, workers: int) -> Any:
        """Iterate over the batches of ``steps``."""
        ...


# What may change when a run goes on: its length, and what does not touch the numbers.
_FREE = (
    "steps", "compile", "activation_checkpointing", "device", "workers", "log_every",
    "validate_every", "checkpoint_every", "keep_checkpoints", "tensorboard",
)  # fmt: skip


def _identity(config: TrainConfig) -> dict[str, Any]:
    """What a resumed run must have in common with its beginning."""
    return {name: value for name, value in to_plain(config).items() if name not in _FREE}


Validate = Callable[[nn.Module], dict[str, float]]


class Trainer:
    """Trains a task to ``config.steps``; started again on the same folder, it goes on where it was.

    Every random number of a step comes from a generator seeded by (seed, step), and the batch of a step is a function
    of the step: a run that was killed and resumed gives the same losses as one that was not.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        config: TrainConfig,
        run: Path,
        *,
        validate: Validate | None = None,
        identity: dict[str, Any] | None = None,
    ) -> None:
        self.task, self.batches, self.config, self.run_folder = task, batches, config, run
        self.validate = validate
        self.identity = {"settings": task.describe(), **_identity(config), **(identity or {})}
        self.model = task.model.to(config.device)
        self.optimisers = Optimisers(self.model, config.optim)
        self.ema = Ema(self.model, config.ema_decay)
        self.scaler = torch.amp.GradScaler(config.device) if config.precision == "fp16" else None
        self.step = 0
        self._resume()
        self.log = RunLog(run, config, self.step)
        if config.activation_checkpointing:
            setattr(self.model, "activation_checkpointing", True)  # noqa: B010  a plain flag, not a module
        if config.compile:
            for block in self.model.blocks:  # pyright: ignore[reportGeneralTypeIssues]
                block.compile(dynamic=None)

    def _resume(self) -> None:
        checkpoints = list_checkpoints(self.run_folder)
        if not checkpoints:
            return
        state = load_training_state(checkpoints[-1])
        self._check_same(state.extra.get("identity", {}))
        load_weights(self.model, state.weights, str(checkpoints[-1]))
        self.ema.load(state.average)
        self.optimisers.load_tensors(state.optimiser)
        if self.scaler is not None and state.extra.get("scaler"):
            self.scaler.load_state_dict(state.extra["scaler"])
        self.step = state.step

    def _check_same(self, before: dict[str, Any]) -> None:
        """Refuse to go on with another recipe: its losses would not be those of an unbroken run."""
        now = json.loads(json.dumps(self.identity))
        if different := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
            key = different[0]
            raise AnyViewError(
                f"{self.run_folder}: this run was started with another {key} ({str(before.get(key))[:60]}, not "
                f"{str(now.get(key))[:60]}); give another folder or the same recipe."
            )

    def train(self) -> Path:
        """Run to the end; returns the last checkpoint."""
        config = self.config
        micro = range(self.step * config.accumulate, config.steps * config.accumulate)
        data = iter(self.batches.loader(micro, workers=config.workers))
        with self.log:
            while self.step < config.steps:
                started = time.perf_counter()
                watch = self.step % config.log_every == 0
                with top_activations(self.model) if watch and not config.compile else nullcontext({}) as top:
                    losses, norm = self._step(data)
                self.step += 1
                record = {**losses, "gradient_norm": norm, "seconds": time.perf_counter() - started}
                self._after_step(record, top if watch else None)
        return list_checkpoints(self.run_folder)[-1]

    def _step(self, data: Any) -> tuple[dict[str, float], float]:
        config = self.config
        rate = self.optimisers.set_rate(config.optim.factor(self.step, config.steps))
        totals: dict[str, float] = {}
        for part in range(config.accumulate):
            views = next(data).to(config.device)
            losses = self._losses(views, part)
            loss = losses["loss"] / config.accumulate
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.item() / config.accumulate
        if self.scaler is not None:
            for optimiser in self.optimisers.all:
                self.scaler.unscale_(optimiser)
        norm = self._clip()
        self.optimisers.step(self.scaler)
        if self.scaler is not None:
            self.scaler.update()
        self.optimisers.zero_grad()
        self.ema.update(self.model, self.step)
        return {**totals, "learning_rate": rate}, norm

    def _clip(self) -> float:
        """Clip the gradient; returns its norm before. What is not finite is found before clipping spreads it."""
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.scaler is None and not bool(torch.isfinite(norm)):
            # Gradients arise from the last module to the first.
            self._stop_not_finite(f"the gradient norm is {norm.item()}", not_finite_parameters(self.model)[::-1])
        torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.config.optim.clip, norm)
        return norm.item()

    def _losses(self, views: Views, part: int) -> dict[str, Tensor]:
        losses = self._forward(views, part)
        if not bool(torch.isfinite(losses["loss"])):
            with first_not_finite(self.model) as found:
                self._forward(views, part)
            self._stop_not_finite(f"the loss is {losses['loss'].item()}", found + not_finite_parameters(self.model))
        return losses

    def _forward(self, views: Views, part: int) -> dict[str, Tensor]:
        config = self.config
        generator = seeded(config.seed, 3, self.step * config.accumulate + part)
        device = torch.device(config.device).type
        dtype = torch.float16 if config.precision == "fp16" else torch.bfloat16
        with torch.autocast(device, dtype) if config.precision != "fp32" else nullcontext():
            return self.task.losses(views, generator)

    def _stop_not_finite(self, what: str, places: list[str]) -> None:
        dump = self.run_folder / "not_finite.json"
        dump.write_text(json.dumps({"step": self.step, "what": what, "places": places}, indent=1))
        first = places[0] if places else "the loss itself"
        raise AnyViewError(f"Training stopped at step {self.step}: {what}; it arose first in {first} (see {dump}).")

    def _after_step(self, record: dict[str, float], top: dict[str, float] | None) -> None:
        config, last = self.config, self.step == self.config.steps
        if top is not None:
            record |= {f"top_activation/{name}": value for name, value in top.items()}
        if self.validate is not None and (self.step % config.validate_every == 0 or last):
            record |= {f"held_out/{name}": value for name, value in self._validate_average().items()}
        self.log.write(self.step, record)
        if self.step % config.checkpoint_every == 0 or last:
            self._save()

    def _validate_average(self) -> dict[str, float]:
        """Held-out numbers of the averaged weights; the weights themselves are put back."""
        assert self.validate is not None
        own = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.model.load_state_dict(self.ema.state_dict())
        try:
            with torch.no_grad():
                return self.validate(self.model)
        finally:
            self.model.load_state_dict(own)

    def _save(self) -> None:
        self.log.flush()
        extra = {"identity": self.identity, "scaler": None if self.scaler is None else self.scaler.state_dict()}
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        state = TrainingState(self.step, weights, self.ema.state_dict(), self.optimisers.tensors(), extra)
        save_checkpoint(self.run_folder, self.task.describe(), state, keep=self.config.keep_checkpoints)
