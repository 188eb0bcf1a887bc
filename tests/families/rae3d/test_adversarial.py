"""The adversarial loss of 3DRAE: whom each part moves, how strongly, and that runs with it go on and spread."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
import transformers
from torch.nn import functional as F

from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rae3d.adversarial import adaptive_weight, hinge, rounded, varied
from kaleidoscene.families.rae3d.config import DiscriminatorConfig
from kaleidoscene.families.rae3d.discriminator import FrozenLayers, Normed, make_heads
from kaleidoscene.families.rae3d.initialisation import initialise
from kaleidoscene.families.rae3d.loss import Rae3dLoss
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.recipes import RECIPES, rae3d_debug
from kaleidoscene.families.rae3d.task import _PLAYED, Rae3dTask, _draws
from tests.conftest import REPOSITORY
from tests.families.rae3d.run_small import small as small_recipe
from tests.families.rae3d.tiny import SIZE, tiny_rae3d_settings
from tests.training.processes import together

PATCHES = DiscriminatorConfig(kind="patches", channels=(6, 8))


@pytest.fixture(scope="module")
def shards(scenes_with_depth):
    return scenes_with_depth


@pytest.fixture
def batch(shards):
    data = rae3d_debug().data
    data = replace(data, image_size=SIZE, batch_size=3, sampling=replace(data.sampling, views=5))
    return ViewBatches(ShardFolder(shards), data)[1]


def task(discriminator=PATCHES, judged=None, **loss) -> Rae3dTask:
    made = Rae3dTask(tiny_rae3d_settings(discriminator=discriminator), Rae3dLoss(**loss), judged=judged)
    torch.manual_seed(0)
    made.model = Rae3d(made.settings.model).train()
    initialise(made.model)
    return made


def gradients(made: Rae3dTask, batch) -> dict[str, torch.Tensor | None]:
    made.model.zero_grad(set_to_none=True)
    made.losses(batch, 3)["loss"].backward()
    return {name: None if p.grad is None else p.grad.clone() for name, p in made.model.named_parameters()}


def test_the_network_is_moved_as_the_whole_loss_written_out_moves_it(batch):
    """The slow twin: the weighted sum of both losses, with the discriminator held still, by autograd alone."""
    made = task(adversarial=0.3)
    found, said = gradients(made, batch), made.losses(batch, 3)
    alone = task(None, None)
    alone.model.load_state_dict(made.model.state_dict(), strict=False)
    caught = {}

    def keep(decoded, *rest):
        caught["decoded"] = decoded
        return Rae3dTask._terms(alone, decoded, *rest)

    alone._terms = keep
    fitting = alone.losses(batch, 3)["loss"]
    images = caught["decoded"].images.flatten(0, 1)
    for p in made.model.discriminator.parameters():
        p.requires_grad_(False)
    count = images.shape[0] // 3
    shown = varied(images, _draws(3, _PLAYED, [n for n in batch.numbers for _ in range(count)]))
    played = -made.model.judge([shown]).mean()
    last = alone.model.images.out.weight
    norms = [torch.autograd.grad(x, last, retain_graph=True)[0].norm() for x in (fitting, played)]
    weight = 0.3 * float(norms[0] / (norms[1] + 1e-6))
    played_by_hand = float(played.detach())
    assert float(said["adversarial_weight"]) == pytest.approx(weight, rel=1e-3)
    assert float(said["adversarial"]) == pytest.approx(played_by_hand, rel=1e-4)
    (fitting + weight * played).backward()
    for name, p in alone.model.named_parameters():
        torch.testing.assert_close(found[name], p.grad, rtol=2e-3, atol=1e-6, msg=name)


def test_each_side_moves_by_its_own_loss_alone(batch):
    """The discriminator by hinge loss of real and made views; the network by nothing of it."""
    plain, learns = task(None), task(adversarial=0.3, adversarial_from=10**9)
    learns.model.load_state_dict(plain.model.state_dict(), strict=False)
    before, after = gradients(plain, batch), gradients(learns, batch)
    for name, gradient in before.items():
        torch.testing.assert_close(after[name], gradient, msg=name)
    heads = {name for name in after if name.startswith("discriminator.")}
    # Where no place is beyond the hinges, real and made views pull the last number by as much, and against each other.
    moved = {name for name in heads if not name.endswith("out.convolution.bias")}
    assert moved and all(after[name].abs().sum() > 0 for name in moved)
    plays = task(adversarial=0.3)
    plays.model.load_state_dict(learns.model.state_dict())
    both = gradients(plays, batch)
    for name in heads:  # what the network plays does not reach it
        torch.testing.assert_close(both[name], after[name], msg=name)
    waits = task(adversarial=0.3, discriminator_from=5, adversarial_from=9)
    said = waits.losses(batch, 3)
    assert batch.step < 5 and not {"adversarial", "discriminator"} & said.keys()
    assert all(gradients(waits, batch)[name] is None for name in heads)
    late = waits.losses(replace(batch, step=6), 3)
    assert "discriminator" in late and "adversarial" not in late
    assert {"discriminator", "adversarial"} <= waits.losses(replace(batch, step=9), 3).keys()


def test_terms_by_hand():
    real, made = torch.tensor([[2.0, 0.5]]), torch.tensor([[-3.0, 0.5]])
    assert float(hinge(real, made)) == pytest.approx(0.5 * (0.25 + 0.75))
    assert torch.equal(rounded(torch.tensor([-0.1, 0.5, 0.7, 1.2])[None, None, None].expand(1, 3, 1, 4))[0, 0, 0] * 255,
                       torch.tensor([0.0, 128, 178, 255]))  # fmt: skip
    one, other = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    hidden = torch.randn(2, 5, 3)
    matrix = torch.zeros(7, 3, requires_grad=True)
    norms = [torch.autograd.grad((F.linear(hidden, matrix) * g).sum(), matrix)[0].norm() for g in (one, other)]
    torch.testing.assert_close(adaptive_weight(one, other, hidden), norms[0] / norms[1], rtol=1e-5, atol=0)
    assert float(adaptive_weight(one, 0 * other, hidden)) == 1e4


def test_views_are_varied_by_their_scene_alone():
    images = torch.rand(3, 3, 16, 24)
    whole = varied(images, _draws(1, _PLAYED, [4, 4, 9]))
    torch.testing.assert_close(varied(images[2:], _draws(1, _PLAYED, [9]))[0], whole[2])
    assert not torch.allclose(whole[0], whole[1], atol=0.05) and not torch.allclose(whole, images, atol=0.05)
    grey = torch.full((200, 3, 16, 24), 0.5)
    seen = varied(grey, _draws(1, _PLAYED, list(range(200))))
    shift = seen[:, 0, 8, 12] - 0.5
    assert shift.min() < -0.2 and shift.max() > 0.2 and shift.abs().max() <= 0.25 and abs(float(shift.mean())) < 0.025
    corners = (seen[:, :, 0, 0] == 0.5).all(1).float().mean()
    assert 0.5 < corners < 0.95, "moved by up to an eighth, with nothing beyond the border"


def test_convolutions_have_a_largest_singular_value_of_one():
    layer = Normed(torch.nn.Conv1d(5, 4, 1, bias=False))
    layer.convolution.weight.data *= 7
    out = layer(torch.eye(5)[None])[0].detach()
    assert float(torch.linalg.matrix_norm(out, 2)) == pytest.approx(1, abs=1e-5)


def tiny_dinov2(folder):
    config = transformers.Dinov2Config(
        hidden_size=24, num_hidden_layers=4, num_attention_heads=3, image_size=28, patch_size=14, mlp_ratio=2
    )
    torch.manual_seed(5)
    transformers.Dinov2Model(config).save_pretrained(folder)
    return DiscriminatorConfig(source=str(folder), width=24, layers=(0, 2, 3))


def test_heads_on_a_frozen_encoder(tmp_path, batch):
    """The real class, with a head for its input and each layer; gradients go through it, and leave it as it is."""
    config = tiny_dinov2(tmp_path / "dino")
    layers = FrozenLayers.read(config)
    images = torch.rand(2, 3, *SIZE, requires_grad=True)
    seen = layers(images)
    assert [tuple(x.shape) for x in seen] == [(2, 2, 24)] * 4  # 16 x 24 px are brought to 14 x 28
    heads = make_heads(config)
    assert len(heads) == 4
    sum(head(x).sum() for head, x in zip(heads, seen, strict=True)).backward()
    assert images.grad.abs().sum() > 0 and all(p.grad is None for p in layers.parameters())
    made = task(config, layers, adversarial=0.75)
    after = gradients(made, batch)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in after.values())
    for wrong, said in ((replace(config, width=32), "width 24"), (replace(config, layers=(0, 9)), "of 4 layers")):
        with pytest.raises(KaleidosceneError, match=said):
            FrozenLayers.read(wrong)


def test_what_does_not_fit_together_is_refused(tmp_path, capsys):
    with pytest.raises(KaleidosceneError, match="adversarial loss and a discriminator come together"):
        task(None, adversarial=0.3)
    with pytest.raises(KaleidosceneError, match="adversarial loss and a discriminator come together"):
        task()
    with pytest.raises(ValueError, match="adversarial_from comes with discriminator_from"):
        Rae3dLoss(adversarial=1.0, discriminator_from=5, adversarial_from=4)
    with pytest.raises(ValueError, match="layers must rise"):
        DiscriminatorConfig(layers=(3, 3))
    train = ["train", "rae3d-nano-adversarial", "--out", str(tmp_path / "run"), "--discriminator-features", "x"]
    assert main(train) == 1 and "discriminator looks at no DINOv2" in capsys.readouterr().err
    paper = RECIPES["rae3d-paper"]()
    without = paper.changed(replace(paper.options, loss=replace(paper.loss, adversarial=0.0)))
    assert without.settings.model.discriminator is None
    assert (paper.loss.adversarial, paper.loss.discriminator_from, paper.loss.adversarial_from) == (0.75, 50000, 60000)
    changed = paper.changed(replace(paper.options, discriminator_features="folder"))
    assert changed.settings.model.discriminator.source == "folder"


@pytest.fixture
def small(monkeypatch):
    """A recipe of seconds with a discriminator."""

    def recipe():
        base = rae3d_debug()
        network = replace(base.settings.model, discriminator=PATCHES)
        loss = replace(base.loss, adversarial=0.2, discriminator_from=1, adversarial_from=2)
        return replace(base, settings=replace(base.settings, model=network), loss=loss)

    monkeypatch.setitem(RECIPES, "rae3d-debug", recipe)


@pytest.mark.slow
def test_a_run_goes_on_as_if_it_had_not_been_broken_off_and_renders(small, shards, tmp_path, capsys):
    train = ["train", "rae3d-debug", "--shards", str(shards), "--train.log-every", "1", "--train.checkpoint-every", "2"]
    assert main([*train, "--out", str(tmp_path / "whole"), "--train.steps", "6"]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "broken")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "broken" / "checkpoints" / f"step-{step:08d}")
    assert main([*train, "--out", str(tmp_path / "broken"), "--train.steps", "6"]) == 0
    names = ("step", "loss", "adversarial", "adversarial_weight", "discriminator", "gradient_norm")
    whole, broken = (
        [
            [row.get(name) for name in names]
            for row in map(json.loads, (tmp_path / run / "metrics.jsonl").read_text().splitlines())
        ]
        for run in ("whole", "broken")
    )
    assert whole == broken and len(whole) == 6 and [row[4] is None for row in whole[:2]] == [True, False]
    assert [row[2] is None for row in whole[:3]] == [True, True, False]
    bus = str(REPOSITORY / "examples" / "captures" / "school_bus")
    render = ["render", bus, "--model", str(tmp_path / "whole"), "--references", "0,5", "--frames", "2"]
    assert main([*render, "--out", str(tmp_path / "views")]) == 0


@pytest.mark.slow
def test_two_processes_train_it_sharded(shards, tmp_path, monkeypatch):
    """The same discriminator's loss in the first step, and finite ones after; its weight is of each process's share."""
    arguments = ["train", "rae3d-debug", "--shards", str(shards), "--train.steps", "3", "--train.log-every", "1"]
    more = ["--out", str(tmp_path / "two"), "--train.sharding", "fsdp"]
    done = together(2, ["-m", "tests.families.rae3d.run_small", *arguments, *more])
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setitem(RECIPES, "rae3d-debug", small_recipe)
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    alone, sharded = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    )
    assert sharded[0]["discriminator"] == pytest.approx(alone[0]["discriminator"], rel=1e-3)
    assert sharded[0]["image"] == pytest.approx(alone[0]["image"], rel=1e-3)
    for a, b in zip(alone, sharded, strict=True):
        assert b["discriminator"] == pytest.approx(a["discriminator"], rel=0.05)
        assert b["gradient_norm"] == pytest.approx(a["gradient_norm"], rel=0.1)
