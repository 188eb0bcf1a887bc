"""Views of Kaleido in fewer steps: a student follows its teacher (:mod:`kaleidoscene.flow.distillation`)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from kaleidoscene.codecs.codec import Codec
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask, Prepared
from kaleidoscene.flow.distillation import Distillation, drawn_steps, followed
from kaleidoscene.flow.path import TIME_RANGE, interpolate
from kaleidoscene.flow.schedules import Schedule

_SAME_TIME = 1e-6


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
        start = drawn_steps(numbers, seed, options, device)
        first = knots[start]
        begin = interpolate(prepared.data, prepared.noise, first)
        mean = followed(lambda state, t: self._guided(prepared, state, t), begin, knots, start, options.teacher_steps)
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
