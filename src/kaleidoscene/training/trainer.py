"""The training loop: one process or many, exact resume, nothing that fails silently."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kaleidoscene.datasets.batch_config import Share
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.nn.precision import chosen, multiplies_bf16
from kaleidoscene.training.checkpoint import CheckpointWriter
from kaleidoscene.training.checkpoint_folders import SAMPLES, list_checkpoints, remove_leftovers, step_name
from kaleidoscene.training.checkpoint_state import TrainingState, load_training_state, read_state
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.distributed import assign, gathered, place
from kaleidoscene.training.ema import Ema
from kaleidoscene.training.faults import STOPPED, Faults
from kaleidoscene.training.health import (
    Divergence,
    Spikes,
    drifted_parameters,
    not_finite_parameters,
    top_activations,
)
from kaleidoscene.training.heartbeat import Heartbeat
from kaleidoscene.training.identity import RunIdentity
from kaleidoscene.training.log import RunLog, past_records
from kaleidoscene.training.loss_scale import LossScale
from kaleidoscene.training.optim import Optimisers, clip_gradients
from kaleidoscene.training.passes import Passes
from kaleidoscene.training.profiling import profiled_steps
from kaleidoscene.training.resuming import (
    ROLLBACK,
    ResumeFrom,
    go_back,
    last_checkpoint,
    rate_scale_of,
    sound_checkpoint,
)
from kaleidoscene.training.signals import StopSignals
from kaleidoscene.training.task import Batches, SpreadsViews, Task
from kaleidoscene.training.throughput import Throughput
from kaleidoscene.training.weights import check_weights, freeze_all_but
from kaleidoscene.training.world import World

__all__ = ["ROLLBACK", "STOPPED", "Batches", "TrainConfig", "Trainer", "Validate"]


@runtime_checkable
class Validate(Protocol):
    """Scores a network on what is held out."""

    def __call__(self, model: nn.Module, pictures: Path | None) -> dict[str, float]:
        """Held-out numbers.

        Args:
            model: As it stands.
            pictures: Folder for some of what was rendered; None: nothing is written.
        """
        ...


class Trainer:
    """Trains a task to ``config.steps``; started again on the same folder, it goes on where it was.

    Everything random comes from the seed and the places of scenes in the run, and the batch of a step is a function of
    the step: a run that was killed and resumed, or is cut among other processes, sees the same numbers.

    Args:
        task: What is trained.
        batches: On what.
        config: How.
        run: Folder of the run.
        validate: Held-out numbers of the averaged weights.
        identity: What else a resumed run must have in common with its beginning, dataclasses or plain values.
        world: The processes; each makes a trainer of its own.
        initial: Weights to begin with, for a run without checkpoints.
        fresh: Children of the network that ``initial`` does not have and that keep their first values.
        force: Go on although the recipe has changed.
        rollback: Go back to the last good checkpoint and multiply the learning rates by this.
        resume_from: Which checkpoint to go on from; see :func:`kaleidoscene.training.resuming.sound_checkpoint`.
        step_flops: Operations of a step over all processes, for the share of the peak that is logged; 0: not known.
    """

    def __init__(
        self,
        task: Task,
        batches: Batches,
        config: TrainConfig,
        run: Path,
        *,
        validate: Validate | None = None,
        identity: Mapping[str, Any] | None = None,
        world: World | None = None,
        initial: dict[str, Tensor] | None = None,
        fresh: Sequence[str] = (),
        force: bool = False,
        rollback: float | None = None,
        resume_from: ResumeFrom = "last",
        step_flops: float = 0.0,
    ) -> None:
        self.world = world or World(device=config.device)
        config = replace(config, precision=self.world.agree(chosen(config.precision, self.world.device)))
        self.identity = RunIdentity(task.describe(), task.settings, config, identity or {})
        self.task, self.batches, self.config, self.run_folder = task, batches, config, run
        self.validate = validate
        self.model = task.model
        self._spread_views()
        if config.activation_checkpointing:
            setattr(self.model, "activation_checkpointing", True)  # noqa: B010  a plain flag, not a module
        freeze_all_but(self.model, config.only)
        place(self.model, self.world, config, task.initialise)
        last = last_checkpoint(run, self.world)  # whether there are initial weights or not: all processes ask
        if initial is not None and last is None:
            check_weights(self.model, initial, "initial weights", fresh=fresh)
            assign(self.model, initial)
        half = self.world.agree(multiplies_bf16(self.world.device))  # processors may be unlike each other
        self.optimisers = Optimisers(self.model, config.optim, half=half)
        self.ema = Ema(self.model, config.ema_decay)
        self.scaler = LossScale() if config.precision == "fp16" else None
        self.divergence, self.spikes = Divergence(config.divergence_factor), Spikes()
        self.checkpoints = CheckpointWriter(
            run, self.world, keep=config.keep_checkpoints, background=config.async_checkpoints, timeout=config.timeout
        )
        self.faults = Faults(run, self.world)
        self.throughput = Throughput(self.world, step_flops, config.peak_flops)
        self.heartbeat = Heartbeat(self.world, self.model)
        self.passes = Passes(task, config, self.world, self.scaler, self.heartbeat)
        self.signals = StopSignals()
        self.step = 0
        self.interrupted = False
        """Whether a signal ended :meth:`train` before its last step."""
        self._started, self._is_over = time.monotonic(), False
        if self.world.is_main:
            remove_leftovers(run)
        if rollback is not None:
            go_back(run, self.world, rollback, lambda before: self.identity.check(before, run, force=force))
        self._resume(force, resume_from)
        for step, watched, norm in self.world.agree(self._past() if self.world.is_main else []):
            self.divergence.observe(step, watched)
            if norm is not None:
                self.spikes.observe(norm)
        self.world.barrier()  # before the log is cut to what the checkpoint knows
        self.log = RunLog(run, config, self.step) if self.world.is_main else None

    def _past(self) -> list[tuple[int, float, float | None]]:
        """Steps that were taken, with the loss that is watched and the size of the gradient."""
        watched = self.task.watched
        return [
            (past["step"], past.get(watched, past["loss"]), past.get("gradient_norm"))
            for past in past_records(self.run_folder, self.step)
        ]

    @property
    def damaged(self) -> int:
        """Damaged scenes that were met so far, by all processes."""
        return self.faults.damaged

    @property
    def rate_scale(self) -> float:
        """What the learning rates are multiplied by since the last rollback."""
        return self.faults.rate_scale

    def _spread_views(self) -> None:
        if self.world.view_ranks == 1:
            return
        if not isinstance(self.task, SpreadsViews):
            raise KaleidosceneError("--train.view-parallel: the views of this family's scenes cannot be spread.")
        self.task.spread(self.world.view_rank, self.world.view_ranks, self.world.view_group)

    def _resume(self, force: bool, resume_from: ResumeFrom) -> None:
        last = sound_checkpoint(self.run_folder, self.world, resume_from)
        if last is None:
            return
        before = read_state(last)
        self.identity.check(before.get("identity", {}), self.run_folder, force=force)
        weights: dict[str, Tensor] = dict(self.model.named_parameters())
        state = load_training_state(last, self.world, weights)
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(state.weights[name])
                self.ema.weights[name].copy_(state.average[name])
        self.optimisers.load_tensors(state.optimiser)
        if self.scaler is not None and state.extra.get("scaler"):
            self.scaler.load_state_dict(state.extra["scaler"])
        self.step, self.faults.damaged = state.step, state.extra["damaged"]
        self.faults.rate_scale = self.world.agree(rate_scale_of(self.run_folder, before))

    def train(self) -> Path:
        """Run to the end, until the time is up, or until a signal asks to stop; returns the last checkpoint."""
        config, world = self.config, self.world
        parts = config.accumulate or self.batches.parts(world.scene_ranks)
        share = Share(world.scene_rank, world.scene_ranks, parts)
        data = self.batches.loader(range(self.step, config.steps), workers=config.workers, share=share)
        with self.signals, self.log or nullcontext(), profiled_steps(config.profile, self.run_folder, world) as profile:
            try:
                while self.step < config.steps and not self._is_over:
                    started = time.perf_counter()
                    self.heartbeat.begin(self.step)
                    watch = self.step % config.log_every == 0
                    with top_activations(self.model) if watch else nullcontext({}) as top:
                        record = self._step([next(data) for _ in range(parts)], top)
                    self.step += 1
                    record["seconds"] = time.perf_counter() - started
                    profile()
                    self._after_step(record)
                self.checkpoints.finish()
            except RuntimeError as error:
                self.heartbeat.explain(error, self.step)
                raise
        self.heartbeat.stop()
        self.interrupted &= self.step < config.steps
        return list_checkpoints(self.run_folder)[-1]

    def _step(self, parts: list[Views], top: Mapping[str, Tensor] | None = None) -> dict[str, float]:
        """One step; the device is asked once for all numbers that decide and are logged."""
        config, world = self.config, self.world
        rate = self.optimisers.set_rate(config.optim.factor(self.step, config.steps) * self.rate_scale)
        weights = [self.task.weight(views) for views in parts]
        damaged = [name for views in parts for name in views.damaged if world.view_rank == 0]
        tokens = sum(self.task.tokens(views) for views in parts)
        shared = self._shared(sum(weights), len(damaged), tokens)
        total = shared[0]
        means, of_parts = self.passes(parts, weights, total)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if self.scaler is not None:
            self.scaler.unscale(gradients)
        norm = gathered(torch.nn.utils.get_total_norm(gradients))
        tops = list((top or {}).values())
        largest = world.largest(torch.stack(tops).double()) if tops else shared[:0]
        summed = world.sums(torch.stack(list(means.values())))
        numbers = _read(shared, summed, norm.double()[None], largest, torch.stack(of_parts))
        read = iter(numbers)
        _, new_damage, waiting, over, stop, all_tokens = (next(read) for _ in range(6))
        self._is_over, self.interrupted = over + stop > 0, stop > 0
        self.faults.count_damage(self.step, int(new_damage), damaged, self.batches.allowed_damage(self.step))
        if waiting == world.size:
            self.checkpoints.advance()
        record = {name: next(read) for name in means}
        size = next(read)
        record_top = {f"top_activation/{name}": next(read) for name in top or {}}
        spoilt = [views.ids for views, value in zip(parts, read, strict=True) if not math.isfinite(value)]
        if not all(math.isfinite(mean) for mean in record.values()):
            self.optimisers.zero_grad()  # exchanged already: they are spoilt on every process, whichever it came from
            scenes = [scene for ids in spoilt for scene in ids]
            places = self.passes.places_not_finite(parts, bool(scenes))
            self.faults.stop_not_finite(self.step, f"the loss is {record['loss']}", places, scenes)
        skipped = self._update(size)
        self.ema.update(self.model, self.step)
        record |= {"learning_rate": rate} | ({} if skipped else {"gradient_norm": size})
        if self.scaler is not None:
            record |= {"loss_scale": self.scaler.scale, "skipped": float(skipped)}
        return record | record_top | {"tokens": all_tokens}

    def _shared(self, weight: float, damaged: int, tokens: int) -> Tensor:
        """What all processes must know of each other in a step, summed: weight of the losses, damage, checkpoints that
        wait, whether time is up or a signal came, tokens.
        """
        late = self.config.time_limit > 0 and time.monotonic() - self._started > self.config.time_limit
        asked = self.signals.asked is not None
        numbers = (weight, damaged, self.checkpoints.is_waiting, late, asked, tokens)
        mine = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
        return self.world.sums(mine.to(self.world.device, non_blocking=True))

    def _update(self, norm: float) -> bool:
        """Clip and apply the gradient; returns whether it was left out (fp16 overflow)."""
        finite = math.isfinite(norm)
        if not finite and (self.scaler is None or self.scaler.scale < self.scaler.least):
            # Gradients arise from the last module to the first.
            places = not_finite_parameters(self.model)[::-1]
            self.faults.stop_not_finite(self.step, f"the gradient norm is {norm}", places, [])
        if finite:
            clip_gradients(self.model, norm, self.config.optim.clip)
            self.optimisers.step()
        if self.scaler is not None:
            # The norm is of the gradients of all processes, so that all of them leave the same steps out.
            self.scaler.update(finite=finite)
        self.optimisers.zero_grad()
        return not finite

    def _after_step(self, record: dict[str, float]) -> None:
        config, last = self.config, self.step == self.config.steps
        record |= self.throughput.of(record.pop("tokens"), record["seconds"])
        if self.validate is not None and (self.step % config.validate_every == 0 or last):
            pictures = self.run_folder / SAMPLES / step_name(self.step) if self.world.is_main else None
            with self.ema.in_place_of(self.model), torch.no_grad():
                scores = self.validate(self.model, pictures)
            record |= {f"held_out/{name}": value for name, value in scores.items()}
        norm = record.get("gradient_norm")
        spike = norm is not None and self.spikes.observe(norm)
        record |= {"gradient_spike": float(spike), "damaged": float(self.damaged)}
        if self.log is not None:
            self.log.write(self.step, record)
        if self.divergence.observe(self.step, record[self.task.watched]):
            places = drifted_parameters(self.model, self.ema.weights)
            self.faults.stop_diverged(self.step, self.divergence.good_step, self.divergence.best, places)
        if self.step % config.checkpoint_every == 0 or last or self._is_over:
            self._save()

    def _save(self) -> None:
        if self.log is not None:
            self.log.flush()
        extra = {
            "identity": self.identity.plain, "damaged": self.damaged, "rate_scale": self.rate_scale,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }  # fmt: skip
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        state = TrainingState(self.step, weights, self.ema.state_dict(), self.optimisers.tensors(), extra)
        self.checkpoints.save(self.task.describe(), state)
        self.faults.forget()


def _read(*numbers: Tensor) -> list[float]:
    """Numbers from the device, all at once: the one place of a step where the host waits for it."""
    return torch.cat([part.to(numbers[0].device) for part in numbers]).tolist()
