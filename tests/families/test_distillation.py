"""Progressive distillation: what a student is to say is where its teacher goes."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.families.kaleido.distillation import KaleidoDistillation, student_settings
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.families.kaleido.task import KaleidoLoss
from kaleidoscene.flow.distillation import Distillation
from kaleidoscene.flow.path import interpolate
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.randomness import seeded
from tests.conftest import randomised, tiny_config
from tests.families.test_kaleido_task import views


def make(teacher=None, weighting="velocity", depths=0, **options):
    base = KaleidoSettings(
        model=tiny_config(reprojection_depths=depths), codec=CodecConfig(factor=4), image_size=(8, 12),
        scale_from="references", sampling=SamplingConfig(schedule=Schedule(steps=50)),
    )  # fmt: skip
    options = Distillation(**{"teacher": "x", "steps": 4, **options})
    settings = student_settings(base, options)
    teacher = teacher or randomised(Kaleido(base.model))
    return KaleidoDistillation(settings, KaleidoLoss(weighting=weighting), teacher, options, codec=PixelCodec(4))


class Field(torch.nn.Module):
    """A teacher or student whose velocity is a given function of (state, time)."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity, self.asked = velocity, []
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, latents, t, positions, n, **_):
        self.asked.append((n, t))
        return self.velocity(latents[:, n:], t[:, None, None, None, None])


def test_a_student_of_a_straight_field_has_nothing_to_learn():
    """Where the teacher's velocity is constant along the path, two steps are one."""
    slope = torch.randn(2, 3, 48, 2, 3)
    task = make(Field(lambda z, t: slope))
    task.model = Field(lambda z, t: slope)
    assert task.losses(views(), 0)["loss"] < 1e-10
    task.model = Field(lambda z, t: slope + 1)
    assert task.losses(views(), 0)["loss"].item() == pytest.approx(1, rel=1e-5)


def test_the_target_is_the_teachers_mean_velocity_over_the_students_step():
    """Written out: the teacher takes two Euler steps at the times of its own, finer schedule."""
    teacher = Field(lambda z, t: t * z + t**2)
    task, batch = make(teacher, teacher_steps=2), views()
    said = []
    task.model = Field(lambda z, t: said.append(z) or torch.zeros_like(z))
    loss = task.losses(batch, 11)["loss"]
    knots = Schedule(steps=8).times().clamp_max(0.999).float()
    assert torch.allclose(knots[::2][1:], task.settings.sampling.schedule.times().float()[1:])
    expected = []
    for scene in range(2):
        k = 2 * int(torch.randint(4, (), generator=seeded(11, 7, scene)))
        z = said[0][scene]
        middle = z + (knots[k + 1] - knots[k]) * (knots[k] * z + knots[k] ** 2)
        end = middle + (knots[k + 2] - knots[k + 1]) * (knots[k + 1] * middle + knots[k + 1] ** 2)
        expected.append(((end - z) / (knots[k + 2] - knots[k])).square().mean())
        prepared = task.prepare(batch, 11)
        torch.testing.assert_close(z, interpolate(prepared.data[scene], prepared.noise[scene], knots[k]))
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-6)


def test_guidance_is_distilled():
    """The student takes over v_u + w (v_c - v_u) of its teacher."""
    teacher = Field(lambda z, t: torch.full_like(z, 1.0))
    inner = teacher.forward
    teacher.forward = lambda latents, t, positions, n, **k: inner(latents, t, positions, n, **k) * (3.0 if n else 1.0)
    task = make(teacher, guidance=1.5)
    task.model = Field(lambda z, t: torch.full_like(z, 1 + 1.5 * 2))
    assert task.losses(views(), 0)["loss"] < 1e-9
    assert {n for n, _ in teacher.asked} == {0, 2}


def test_a_student_composes_on_the_lattice_alone():
    task, asked = make(depths=9), []
    task.model.register_forward_pre_hook(lambda m, a, k: asked.append(k["lattice"]), with_kwargs=True)
    randomised(task.model, seed=5)
    task.losses(views(), 0)["loss"].backward()
    assert asked == [task._lattice(0, 0, (2, 3))] and asked[0].stride == 2
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in task.model.reprojection.parameters())


def test_only_the_student_learns_and_samples_in_its_own_steps():
    task = make()
    before = {name: p.clone() for name, p in task.teacher.named_parameters()}
    randomised(task.model, seed=5)
    task.losses(views(), 0)["loss"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())
    assert all(p.grad is None and p.equal(before[name]) for name, p in task.teacher.named_parameters())
    assert task.settings.sampling.schedule.steps == 4 and task.settings.sampling.guidance == 1.0
    batch = views()
    first, again, other = (task.losses(batch, seed)["loss"].item() for seed in (3, 3, 4))
    assert first == again != other
    with pytest.raises(ValueError, match="no part of one of 6"):
        make(steps=3)
    with pytest.raises(ValueError, match="teacher_steps 2"):
        replace(Distillation(), teacher_steps=1)
