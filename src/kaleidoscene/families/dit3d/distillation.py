"""Scenes of 3DDiT in fewer steps (:mod:`kaleidoscene.flow.distillation`); not the paper's."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from kaleidoscene.datasets.views import Views
from kaleidoscene.families.dit3d.checkpoint import Autoencoder
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.dit3d.task import Dit3dLoss, Dit3dTask
from kaleidoscene.flow.distillation import Distillation, drawn_steps, followed
from kaleidoscene.flow.path import interpolate
from kaleidoscene.nn.precision import no_autocast


def student_settings(theirs: Dit3dSettings, options: Distillation) -> Dit3dSettings:
    """The teacher's settings with the student's way of sampling."""
    return replace(theirs, sampling=replace(theirs.sampling, steps=options.steps, guidance=1.0))


class Dit3dDistillation(Dit3dTask):
    """Trains a student to follow its teacher in fewer steps.

    Args:
        settings: Of the student, from :func:`student_settings`.
        loss: What is hidden of scenes.
        autoencoder: Of both.
        teacher: Frozen network of the same architecture.
        options: Steps of both.
    """

    def __init__(
        self, settings: Dit3dSettings, loss: Dit3dLoss, autoencoder: Autoencoder, teacher: nn.Module,
        options: Distillation,
    ) -> None:  # fmt: skip
        super().__init__(settings, loss, autoencoder)
        self.teacher, self.options = teacher.eval().requires_grad_(False), options
        with torch.device("cpu"):  # the network may be under construction on the meta device
            self.knots = settings.times(options.steps * options.teacher_steps).float()

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """Squared error of the student against the teacher's mean velocity over one step of the student."""
        numbers = views.numbers or tuple(range(len(views.images)))
        device, options = views.images.device, self.options
        if next(self.teacher.parameters()).device != device:
            self.teacher.to(device)
        data, seen = self.data_and_condition(views, numbers, seed)
        alone = seen if options.guidance == 1.0 else self.poses_alone(views)
        labels, knots = self.labels(views, numbers, seed), self.knots.to(device)
        nameless = None if labels is None else torch.full_like(labels, self.settings.model.classes)

        def guided(state: Tensor, t: Tensor) -> Tensor:
            conditional = self.teacher(state, t, seen, labels)
            if options.guidance == 1.0:
                return conditional
            return torch.lerp(self.teacher(state, t, alone, nameless), conditional, options.guidance)

        first = drawn_steps(numbers, seed, options, device)
        with no_autocast(views.images):
            begin = interpolate(data, self.noise(data, numbers, seed), knots[first])
        mean = followed(guided, begin, knots, first, options.teacher_steps)
        found = self.model(begin, knots[first], seen, labels)
        with no_autocast(views.images):
            return {"loss": (found - mean).square().mean()}
