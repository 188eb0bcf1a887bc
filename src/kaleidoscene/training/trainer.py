"""The training loop: one process or many, exact resume, nothing that fails silently."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from kaleidoscene.datasets.batches import Share
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import write_json
from kaleidoscene.training.checkpoint import (
    CheckpointWriter,
    TrainingState,
    discard,
    list_checkpoints,
    load_training_state,
    read_state,
    remove_leftovers,
    step_of,
)
from kaleidoscene.training.config import TrainConfig, recipe_identity
from kaleidoscene.training.distributed import World, assign, gathered, place, set_gradient_reduction, settle
from kaleidoscene.training.ema import Ema
from kaleidoscene.training.health import (
    Divergence,
    Spikes,
    drifted_parameters,
    first_not_finite,
    not_finite_parameters,
    top_activations,
)
from kaleidoscene.training.integrity import verify
from kaleidoscene.training.log import RunLog, past_records
from kaleidoscene.training.optim import Optimisers
from kaleidoscene.training.task import Task
from kaleidoscene.training.weights import check_weights

__all__ = ["Batches", "TrainConfig", "Trainer", "Validate"]

STOPPED, ROLLBACK = "stopped.json", "rollback.json"
# Below this loss scale it is not half precision that overflows.
_LEAST_SCALE = 1.0


@runtime_checkable
class Batches(Protocol):
    """Training data: the batch of any step, cut among processes and micro-batches."""

    def loader(self, steps: range, *, workers: int, share: Share | None = None) -> Iterator[Views]:
        """Iterate over one process's micro-batches of ``steps``."""
        ...

    def parts(self, ranks: int) -> int:
        """Micro-batches a process needs, among so many processes."""
        ...

    def allowed_damage(self, step: int) -> float:
        """How many scenes may have been damaged by the end of a step."""
        ...


Validate = Callable[[nn.Module], dict[str, float]]


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
        identity: What else a resumed run must have in common with its beginning.
        world: The processes; each makes a trainer of its own.
        initial: Weights to begin with, for a run without checkpoints.
        fresh: Children of the network that ``initial`` does not have and that keep their first values.
        force: Go on although the recipe has changed.
        rollback: Go back to the last good checkpoint and multiply the learning rates by this.
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
        world: World | None = None,
        initial: dict[str, Tensor] | None = None,
        fresh: Sequence[str] = (),
        force: bool = False,
        rollback: float | None = None,
    ) -> None:
        self.task, self.batches, self.config, self.run_folder = task, batches, config, run
        self.world = world or World(device=config.device)
        self.validate = validate
        self.identity = {"settings": task.describe(), **recipe_identity(config), **(identity or {})}
        self.model = task.model
        if config.activation_checkpointing:
            setattr(self.model, "activation_checkpointing", True)  # noqa: B010  a plain flag, not a module
        place(self.model, self.world, config, task.initialise)
        if initial is not None and self._last_checkpoint() is None:
            check_weights(self.model, initial, "initial weights", fresh=fresh)
            assign(self.model, initial)
        self.optimisers = Optimisers(self.model, config.optim)
        self.ema = Ema(self.model, config.ema_decay)
        self.scaler = torch.amp.GradScaler(torch.device(self.world.device).type) if config.precision == "fp16" else None
        self.divergence, self.spikes = Divergence(config.divergence_factor), Spikes()
        self.checkpoints = CheckpointWriter(
            run, self.world, keep=config.keep_checkpoints, background=config.async_checkpoints, timeout=config.timeout
        )
        self.step, self.damaged, self.rate_scale = 0, 0, 1.0
        self._started, self._is_over = time.monotonic(), False
        if self.world.is_main:
            remove_leftovers(run)
        if rollback is not None:
            self._go_back(rollback, force)
        self._resume(force)
        for past in past_records(run, self.step):
            self.divergence.observe(past["step"], past["loss"])
            if "gradient_norm" in past:
                self.spikes.observe(past["gradient_norm"])
        self.world.barrier()  # before the log is cut to what the checkpoint knows
        self.log = RunLog(run, config, self.step) if self.world.is_main else None

    def _last_checkpoint(self) -> Path | None:
        """The checkpoint to go on from, the same for all processes whatever their file systems show them."""
        return self.world.agree(next(reversed(list_checkpoints(self.run_folder)), None))

    def _go_back(self, rate: float, force: bool) -> None:
        """Drop the checkpoints that a run wrote after it began to go wrong, and note the lower rate.

        The note is written first and everything is checked before anything is dropped: killed in between, the same
        command ends what was begun.
        """
        stopped, note = self.run_folder / STOPPED, self.run_folder / ROLLBACK
        checkpoints = self.world.agree(list_checkpoints(self.run_folder))
        why = self.world.agree(_read_json(stopped))
        if not checkpoints or why is None:
            said = self.world.agree(_read_json(note))
            if checkpoints and said is not None and said["step"] == step_of(checkpoints[-1]):
                return  # gone back already, and not a checkpoint further since
            raise KaleidosceneError(
                f"{self.run_folder}: nothing to go back from (no {STOPPED}, or no checkpoint); leave --rollback out."
            )
        good = why["good_step"]
        earlier = [checkpoint for checkpoint in checkpoints if step_of(checkpoint) <= good]
        if not earlier:
            raise KaleidosceneError(
                f"{self.run_folder}: the run was good until step {good}, its oldest checkpoint is "
                f"{checkpoints[0].name}; keep more with --train.keep-checkpoints."
            )
        verify(earlier[-1], self.world)
        self._check_same(read_state(earlier[-1]).get("identity", {}), force)
        self.world.barrier()
        if self.world.is_main:
            # From the rate at which it stopped: said twice, it is the same.
            write_json(note, {"step": step_of(earlier[-1]), "rate_scale": rate * why["rate_scale"]})
            for checkpoint in checkpoints[len(earlier) :]:
                discard(checkpoint)
            stopped.unlink()
        self.world.barrier()

    def _rate_scale(self, state: dict[str, Any]) -> float:
        """Of a checkpoint; where a rollback went back to it, what that made of it."""
        said = _read_json(self.run_folder / ROLLBACK)
        return said["rate_scale"] if said is not None and said["step"] == state["step"] else state["rate_scale"]

    def _resume(self, force: bool) -> None:
        last = self._last_checkpoint()
        if last is None:
            return
        verify(last, self.world)
        before = read_state(last)
        self._check_same(before.get("identity", {}), force)
        weights: dict[str, Tensor] = dict(self.model.named_parameters())
        state = load_training_state(last, self.world, weights)
        with torch.no_grad():
            for name, p in weights.items():
                p.copy_(state.weights[name])
                self.ema.weights[name].copy_(state.average[name])
        self.optimisers.load_tensors(state.optimiser)
        if self.scaler is not None and state.extra.get("scaler"):
            self.scaler.load_state_dict(state.extra["scaler"])
        self.step, self.damaged = state.step, state.extra["damaged"]
        self.rate_scale = self.world.agree(self._rate_scale(before))

    def _check_same(self, before: dict[str, Any], force: bool) -> None:
        """Refuse to go on with another recipe or other data: the losses would not be those of an unbroken run."""
        different = differences(before, json.loads(json.dumps(self.identity)))
        if different and not force:
            raise KaleidosceneError(
                f"{self.run_folder}: this run was started with another recipe: {'; '.join(different[:5])}. "
                "Give another folder or the same recipe, or --force-recipe to go on all the same."
            )

    def train(self) -> Path:
        """Run to the end, or until the time is up; returns the last checkpoint."""
        config = self.config
        parts = config.accumulate or self.batches.parts(self.world.size)
        share = Share(self.world.rank, self.world.size, parts)
        data = self.batches.loader(range(self.step, config.steps), workers=config.workers, share=share)
        with self.log or nullcontext():
            while self.step < config.steps and not self._is_over:
                started = time.perf_counter()
                watch = self.step % config.log_every == 0
                with top_activations(self.model) if watch else nullcontext({}) as top:
                    record = self._step([next(data) for _ in range(parts)])
                self.step += 1
                record["seconds"] = time.perf_counter() - started
                self._after_step(record, top if watch else {})
            self.checkpoints.finish()
        return list_checkpoints(self.run_folder)[-1]

    def _step(self, parts: list[Views]) -> dict[str, float]:
        config, world = self.config, self.world
        rate = self.optimisers.set_rate(config.optim.factor(self.step, config.steps) * self.rate_scale)
        weights = [self.task.weight(views) for views in parts]
        damaged = [name for views in parts for name in views.damaged]
        late = config.time_limit > 0 and time.monotonic() - self._started > config.time_limit
        total, new_damage, waiting, over = world.totals(
            sum(weights), float(len(damaged)), float(self.checkpoints.is_waiting), float(late)
        )
        self._is_over = over > 0
        self._count_damage(int(new_damage), damaged)
        if waiting == world.size:
            self.checkpoints.finish()
        means: dict[str, float] = {}
        spoilt: list[str] = []
        for number, (views, weight) in enumerate(zip(parts, weights, strict=True)):
            set_gradient_reduction(self.model, number == len(parts) - 1)
            losses = self._forward(views)
            # Processes average their gradients, so that each gives its part of the whole mean times their number.
            loss = losses["loss"] * (weight / total * world.size)
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
            values = {name: value.item() for name, value in losses.items()}
            spoilt += () if all(math.isfinite(value) for value in values.values()) else views.ids
            means = {name: means.get(name, 0.0) + value * weight / total for name, value in values.items()}
        means = dict(zip(means, world.totals(*means.values()), strict=True))
        if not all(math.isfinite(mean) for mean in means.values()):
            self.optimisers.zero_grad()  # exchanged already: they are spoilt on every process, whichever it came from
            self._stop_not_finite(f"the loss is {means['loss']}", self._places_of_forward(parts, spoilt), spoilt)
        norm, skipped = self._update()
        self.ema.update(self.model, self.step)
        record = {**means, "learning_rate": rate} | ({} if skipped else {"gradient_norm": norm})
        if self.scaler is not None:
            record |= {"loss_scale": self.scaler.get_scale(), "skipped": float(skipped)}
        return record

    def _update(self) -> tuple[float, bool]:
        """Clip and apply the gradient; returns its norm before, and whether it was left out (fp16 overflow)."""
        if self.scaler is not None:
            for optimiser in self.optimisers.all:
                self.scaler.unscale_(optimiser)
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        whole = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = gathered(whole).item()
        finite = math.isfinite(norm)
        if not finite and (self.scaler is None or self.scaler.get_scale() < _LEAST_SCALE):
            # Gradients arise from the last module to the first.
            self._stop_not_finite(f"the gradient norm is {norm}", not_finite_parameters(self.model)[::-1], [])
        if finite:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optim.clip, whole)
            self.optimisers.step(self.scaler)
        if self.scaler is not None:
            # The norm is of the gradients of all processes, so that all of them leave the same steps out.
            scale = self.scaler.get_scale()
            self.scaler.update(None if finite else scale)
            if not finite:
                lower = scale * self.scaler.get_backoff_factor()
                self.scaler.load_state_dict({**self.scaler.state_dict(), "scale": lower, "_growth_tracker": 0})
        self.optimisers.zero_grad()
        return norm, not finite

    def _forward(self, views: Views) -> dict[str, Tensor]:
        device = torch.device(self.world.device).type
        dtype = torch.float16 if self.config.precision == "fp16" else torch.bfloat16
        # Weights are used once in a pass: a cache of their casts gains nothing, and where blocks are recomputed it
        # would hold a copy of the whole of sharded weights.
        low = torch.autocast(device, dtype, cache_enabled=False) if self.config.precision != "fp32" else nullcontext()
        with low:
            return self.task.losses(views.to(self.world.device), self.config.seed)

    def _places_of_forward(self, parts: list[Views], spoilt: list[str]) -> list[str]:
        with first_not_finite(self.model) as found, torch.no_grad():
            for views in parts:
                self._forward(views)
        return found + not_finite_parameters(self.model) or ["the loss itself"] * bool(spoilt)

    def _count_damage(self, new: int, names: list[str]) -> None:
        self.damaged += new
        if names:
            with (self.run_folder / f"damaged-{self.world.rank:05d}.txt").open("a") as file:
                file.writelines(f"step {self.step}: {name}\n" for name in names)
        allowed = self.batches.allowed_damage(self.step)
        if self.damaged > allowed:
            last = f", the last one is {names[-1]}" if names else ""
            raise KaleidosceneError(
                f"Training stopped at step {self.step}: {self.damaged} damaged scenes, {allowed:g} are allowed "
                f"(--data.damaged-share){last}."
            )

    def _stop_not_finite(self, what: str, places: list[str], scenes: list[str]) -> None:
        """All processes come here together; what the first of them found that has found anything is noted."""
        by_rank = self.world.gather((places, scenes))
        rank = next((rank for rank, (found, _) in enumerate(by_rank) if found), 0)
        found, scenes = by_rank[rank]
        first = found[0] if found else "the loss itself"
        of_rank = f" of process {rank}" if self.world.size > 1 else ""
        among = f", in a micro-batch with scene {scenes[0]}" if scenes else ""
        path = self._note_stop(self.step, what, found, scenes)
        raise KaleidosceneError(
            f"Training stopped at step {self.step}: {what}; it arose first in {first}{of_rank}{among} (see {path})."
        )

    def _note_stop(self, good_step: int, what: str, places: list[str], scenes: Sequence[str] = ()) -> Path:
        path = self.run_folder / STOPPED
        if self.world.is_main:
            write_json(
                path,
                {"step": self.step, "what": what, "places": places, "scenes": list(scenes), "good_step": good_step,
                 "rate_scale": self.rate_scale},
            )  # fmt: skip
        self.world.barrier()
        return path

    def _after_step(self, record: dict[str, float], top: dict[str, float]) -> None:
        config, last = self.config, self.step == self.config.steps
        if top:
            largest = self.world.largest(*top.values())
            record |= {f"top_activation/{name}": value for name, value in zip(top, largest, strict=True)}
        if self.validate is not None and (self.step % config.validate_every == 0 or last):
            record |= {f"held_out/{name}": value for name, value in self._validate_average().items()}
        norm = record.get("gradient_norm")
        spike = norm is not None and self.spikes.observe(norm)
        record |= {"gradient_spike": float(spike), "damaged": float(self.damaged)}
        if self.log is not None:
            self.log.write(self.step, record)
        if self.divergence.observe(self.step, record["loss"]):
            good, best = self.divergence.good_step, self.divergence.best
            what = f"the loss has diverged: its mean over 50 steps was near {best:.4g} until step {good}"
            places = drifted_parameters(self.model, self.ema.weights)
            path = self._note_stop(good, what, places)
            raise KaleidosceneError(
                f"Training stopped at step {self.step}: {what}; farthest from its average is {places[0]} (see {path}). "
                "--rollback 0.5 goes back to the last good checkpoint with half the learning rate."
            )
        if self.step % config.checkpoint_every == 0 or last or self._is_over:
            self._save()

    def _validate_average(self) -> dict[str, float]:
        """Held-out numbers of the averaged weights; the weights themselves are put back."""
        assert self.validate is not None
        self.ema.swap(self.model)
        try:
            with torch.no_grad():
                return self.validate(self.model)
        finally:
            settle(self.model)
            self.ema.swap(self.model)

    def _save(self) -> None:
        if self.log is not None:
            self.log.flush()
        extra = {
            "identity": self.identity, "damaged": self.damaged, "rate_scale": self.rate_scale,
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }  # fmt: skip
        weights = {name: p.detach() for name, p in self.model.named_parameters()}
        state = TrainingState(self.step, weights, self.ema.state_dict(), self.optimisers.tensors(), extra)
        self.checkpoints.save(self.task.describe(), state)
        if self.world.is_main:  # the run has gone on beyond what once stopped it
            (self.run_folder / STOPPED).unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any] | None:
    """A note in the folder of a run, or None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two JSON values, as ``place: before, now``."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted(before.keys() | now.keys())
        inner = [(f"{where}.{key}" if where else key, before.get(key), now.get(key)) for key in keys]
        return [text for place, a, b in inner for text in differences(a, b, place)]
    return [] if before == now else [f"{where} was {str(before)[:60]}, is {str(now)[:60]}"]
