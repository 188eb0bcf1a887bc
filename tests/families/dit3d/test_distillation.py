"""Scenes of 3DDiT in fewer steps: what a student is to say is where its teacher goes."""

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from kaleidoscene.api import load
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.dit3d.distillation import Dit3dDistillation, student_settings
from kaleidoscene.families.dit3d.recipes import dit3d_debug
from kaleidoscene.families.dit3d.task import Dit3dLoss
from kaleidoscene.families.rae3d.statistics import read_statistics
from kaleidoscene.flow.distillation import Distillation
from kaleidoscene.flow.path import interpolate
from kaleidoscene.flow.timesteps import shift
from kaleidoscene.randomness import seeded
from tests.conftest import randomised
from tests.families.dit3d.tiny import tiny_autoencoder, tiny_dit3d, tiny_dit3d_config, tiny_dit3d_settings
from tests.families.rae3d.tiny import SIZE

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[3] / "examples" / "09_token_statistics.py"


@pytest.fixture(scope="module")
def shards(scenes_with_depth):
    return scenes_with_depth


@pytest.fixture
def batch(shards):
    data = dit3d_debug().data
    data = replace(data, image_size=SIZE, batch_size=4, sampling=replace(data.sampling, views=4))
    return ViewBatches(ShardFolder(shards), data)[1]


class Field(nn.Module):
    """A velocity that is a given function of state, time and condition."""

    def __init__(self, velocity):
        super().__init__()
        self.velocity, self.asked = velocity, []
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, tokens, t, condition, labels=None):
        self.asked.append((t, condition, labels))
        return self.velocity(tokens, t[:, None, None], condition)


def made(teacher=None, classes=0, **options) -> Dit3dDistillation:
    options = Distillation(**{"teacher": "x", "steps": 3, **options})
    settings = student_settings(tiny_dit3d_settings(classes=classes), options)
    task = Dit3dDistillation(
        settings, Dit3dLoss(), tiny_autoencoder(), teacher or tiny_dit3d(classes=classes), options
    )  # fmt: skip
    task.model = tiny_dit3d(classes=classes)
    return task


def test_a_student_of_a_straight_field_has_nothing_to_learn(batch):
    slope = torch.randn(4, 7, 24)
    task = made(Field(lambda z, t, c: slope))
    task.model = Field(lambda z, t, c: slope)
    assert task.losses(batch, 0)["loss"] < 1e-9
    task.model = Field(lambda z, t, c: slope + 1)
    assert task.losses(batch, 0)["loss"].item() == pytest.approx(1, rel=1e-4)


def test_the_target_is_the_teachers_mean_velocity_over_the_students_step(batch):
    """Written out: two Euler steps at the shifted times of the teacher's finer schedule."""
    said = []
    task = made(Field(lambda z, t, c: t * z + t**2), teacher_steps=2)
    task.model = Field(lambda z, t, c: said.append((z, t)) or torch.zeros_like(z))
    loss = task.losses(batch, 11)["loss"]
    knots = shift(torch.linspace(1, 0, 7), tiny_dit3d_config().shift)
    data = task.tokens_of(batch, torch.ones(4, 4, dtype=torch.bool))[0]
    noise, expected = task.noise(data, batch.numbers, 11), []
    for scene, number in enumerate(batch.numbers):
        k = 2 * int(torch.randint(3, (), generator=seeded(11, 7, number)))
        z = said[0][0][scene]
        assert float(said[0][1][scene]) == pytest.approx(float(knots[k]))
        torch.testing.assert_close(z, interpolate(data[scene], noise[scene], knots[k]))
        middle = z + (knots[k + 1] - knots[k]) * (knots[k] * z + knots[k] ** 2)
        end = middle + (knots[k + 2] - knots[k + 1]) * (knots[k + 1] * middle + knots[k + 1] ** 2)
        expected.append(((end - z) / (knots[k + 2] - knots[k])).square().mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-4, atol=1e-6)


def test_guidance_is_distilled_and_leaves_out_images_and_label(batch):
    teacher = Field(lambda z, t, c: c)
    task = made(teacher, classes=3, guidance=1.5)
    task.model = Field(lambda z, t, c: torch.zeros_like(z))
    labels = torch.tensor([0, 1, 2, 0])
    task.losses(replace(batch, labels=labels), 3)
    (_, seen, named), (_, alone, nameless) = teacher.asked[:2]
    assert nameless.tolist() == [3] * 4 and set(named.tolist()) <= {0, 1, 2, 3}
    hidden = task.tokens_of(batch, torch.zeros(4, 4, dtype=torch.bool))[1]
    torch.testing.assert_close(alone, hidden)
    assert not torch.allclose(seen, alone, atol=1e-3)
    # The student takes over v_u + w (v_c - v_u).
    task.model = Field(lambda z, t, c: hidden + 1.5 * (c - hidden))
    assert task.losses(replace(batch, labels=labels), 3)["loss"] < 1e-9


def test_only_the_student_learns(batch):
    task = made()
    randomised(task.model, seed=5)
    task.losses(batch, 0)["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())
    assert all(p.grad is None for p in task.teacher.parameters())
    assert task.settings.sampling.steps == 3 and task.settings.sampling.guidance == 1.0


def test_from_the_command_line_to_a_scene_in_two_steps(shards, tmp_path, monkeypatch, capsys):
    first, teacher, student = (str(tmp_path / name) for name in ("rae", "teacher", "student"))
    data = ["--shards", str(shards), "--train.steps", "2", "--train.checkpoint-every", "1"]
    assert main(["train", "rae3d-debug", "--out", first, *data]) == 0
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), first, str(shards), "--batches", "2"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    train = ["train", "dit3d-debug", "--autoencoder", first, *data]
    assert main([*train, "--out", teacher]) == 0
    follow = [*train, "--out", student, "--distil.steps", "2"]
    assert main(follow) == 1 and "give --distil.teacher" in capsys.readouterr().err
    follow += ["--distil.teacher", teacher]
    assert main(follow) == 1 and "give --init as well" in capsys.readouterr().err
    assert main([*follow, "--init", teacher, "--classes", "3"]) == 1
    assert "another network than the recipe's" in capsys.readouterr().err
    other = str(tmp_path / "other")
    assert main(["train", "rae3d-debug", "--out", other, *data, "--train.seed", "9"]) == 0
    read_statistics(resolve(first), (12, 24)).save(resolve(other))
    assert main([*follow, "--init", teacher, "--autoencoder", other]) == 1
    assert "draws tokens of" in capsys.readouterr().err
    assert main([*follow, "--init", teacher]) == 0
    sampling = load(student).system.method_note
    assert (sampling["steps"], sampling["guidance"]) == (2, 1.0)
