"""Fewer steps from a trained model: progressive distillation (Salimans and Ho 2022) along the rectified flow.

A student learns to do in one step what its teacher does in two (or more): from a state on the path at a knot of the
student's schedule, the teacher is followed down to the next knot, and the mean velocity between both is what the
student is to say. Of the known methods this one needs no other network, loss or time input: a student is a checkpoint
like any other, and can be a teacher in turn. Guidance is distilled too, which halves the cost of a step again (Meng et
al. 2023).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from kaleidoscene.codecs.codec import Codec
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask, Prepared
from kaleidoscene.flow.path import TIME_RANGE, interpolate
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.randomness import seeded

_SAME_TIME = 1e-6


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Which schedule a student learns.

    Attributes:
        teacher: Checkpoint, run folder or 'default'; None is ordinary training.
        steps: Steps of the student.
        teacher_steps: Steps of the teacher for each of the student's; its schedule has ``steps * teacher_steps``.
        guidance: Guidance scale of the teacher that the student takes over.
    """

    teacher: str | None = None
    steps: int = 4
    teacher_steps: int = 2
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.teacher_steps < 2:
            raise ValueError(f"steps must be at least 1 and teacher_steps 2, got {self.steps}, {self.teacher_steps}.")


def student_settings(settings: KaleidoSettings, options: Distillation) -> KaleidoSettings:
    """The teacher's settings with the student's way of sampling."""
    schedule = replace(settings.sampling.schedule, steps=options.steps)
    return replace(settings, sampling=replace(settings.sampling, schedule=schedule, solver="euler", guidance=1.0))


class KaleidoDistillation(KaleidoTask):
    """Trains a student to follow its teacher in fewer steps.

    Args:
        settings: Of the student, from :func:`student_settings`.
        loss: Weighting of the student's error.
        teacher: Frozen network of the same architecture.
        options: Steps of both.
        codec: Image codec.
        features: Encoder of auxiliary features.
    """

    def __init__(
        self, settings: KaleidoSettings, loss: KaleidoLoss, teacher: nn.Module, options: Distillation, *, codec: Codec,
        features: FeatureEncoder | None = None,
    ) -> None:  # fmt: skip
        super().__init__(settings, loss, codec=codec, features=features)
        self.teacher, self.options = teacher.eval().requires_grad_(False), options
        with torch.device("cpu"):  # the network may be under construction on the meta device
            self.knots = _knots(settings.sampling.schedule, options).clamp_max(TIME_RANGE[1]).float()

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """Error of the student against the teacher's mean velocity over one step of the student."""
        prepared = self.prepare(views, seed)
        device = prepared.data.device
        if next(self.teacher.parameters()).device != device:
            self.teacher.to(device)
        numbers = views.numbers or range(len(views.images))
        options, knots = self.options, self.knots.to(device)
        drawn = [int(torch.randint(options.steps, (), generator=seeded(seed, 7, n))) for n in numbers]
        start = options.teacher_steps * torch.tensor(drawn, device=device)
        first, last = knots[start], knots[start + options.teacher_steps]
        state = begin = interpolate(prepared.data, prepared.noise, first)
        with torch.no_grad():
            for part in range(options.teacher_steps):
                now, then = knots[start + part], knots[start + part + 1]
                state = state + _wide(then - now) * self._guided(prepared, state, now)
        mean = (state - begin) / _wide(last - first)
        lattice = self._lattice(seed, views.step, begin.shape[-2:])
        out = self.velocity(self.model, prepared, begin, first, lattice)
        return {"loss": self._error(out, mean, first, prepared.counts, lattice)}

    def _guided(self, prepared: Prepared, state: Tensor, t: Tensor) -> Tensor:
        conditional = self.velocity(self.teacher, prepared, state, t)
        if self.options.guidance == 1.0 or not prepared.references.shape[1]:
            return conditional
        alone = self.velocity(self.teacher, prepared.targets_alone(), state, t)
        return torch.lerp(alone, conditional, self.options.guidance)


def _knots(schedule: Schedule, options: Distillation) -> Tensor:
    """Times of the teacher's schedule, every ``teacher_steps``-th of which is the student's.

    Raises:
        ValueError: The student's times are not among its teacher's.
    """
    fine = replace(schedule, steps=options.steps * options.teacher_steps).times()
    if (fine[:: options.teacher_steps] - schedule.times()).abs().max() > _SAME_TIME:
        raise ValueError(
            f"A {schedule.kind} schedule of {options.steps} steps is no part of one of {len(fine) - 1}: the student's "
            "times must be among its teacher's. Take 1 or an even number of steps."
        )
    return fine


def _wide(x: Tensor) -> Tensor:
    return x[:, None, None, None, None]
