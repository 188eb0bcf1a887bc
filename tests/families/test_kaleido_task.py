"""The loss: what is noised, what counts, what gets a gradient (method F.10)."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.datasets.views import Views
from kaleidoscene.families.kaleido.batch_positions import positions_of
from kaleidoscene.families.kaleido.recipes import RECIPES, kaleido_nano
from kaleidoscene.families.kaleido.recipes.ablations import ablation_recipes, choice_recipes, nano_scale
from kaleidoscene.families.kaleido.recipes.nano import kaleido_nano_32
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from kaleidoscene.flow.path import velocity
from tests.conftest import CAUSAL, randomised, ring, tiny_config


def make(prediction="velocity", weighting="velocity", scale_from="references", **changes) -> KaleidoTask:
    settings = KaleidoSettings(
        model=tiny_config(prediction=prediction, **changes),
        codec=CodecConfig(factor=4),
        image_size=(8, 12),
        scale_from=scale_from,
    )
    return KaleidoTask(settings, KaleidoLoss(weighting=weighting), codec=PixelCodec(4))


def views(references=2, present=None) -> Views:
    return Views(
        images=torch.rand(2, 5, 3, 8, 12), cameras=ring(5, (8, 12), batch=(2,)), times=None,
        is_video=torch.zeros(2, dtype=torch.bool), num_references=references, present=present,
    )  # fmt: skip


class Spy(torch.nn.Module):
    """Stands where the network stands and keeps what it was asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer, self.asked = answer, None

    def forward(self, latents, t, positions, num_references, **kwargs):
        self.asked = (latents, t, positions, num_references)
        return self.answer(latents[:, num_references:])


def test_references_stay_clean_and_targets_lie_on_the_path():
    task, batch = make(), views()
    spy = task.model = Spy(torch.zeros_like)
    loss = task.losses(batch, 0)["loss"]
    latents, t, _, n = spy.asked
    clean = task.codec.encode(batch.images)
    assert n == 2 and latents[:, :2].equal(clean[:, :2])
    time = t[:, None, None, None, None]
    noise = (latents[:, 2:] - (1 - time) * clean[:, 2:]) / time
    assert noise.std().item() == pytest.approx(1, abs=0.05)
    torch.testing.assert_close(loss, velocity(clean[:, 2:], noise).square().mean(), rtol=1e-3, atol=0)


@pytest.mark.parametrize("weighting", ["velocity", "data"])
def test_a_perfect_data_prediction_has_no_loss(weighting):
    task, batch = make(prediction="data", weighting=weighting), views()
    task.model = Spy(lambda x: task.codec.encode(batch.images)[:, 2:])
    assert task.losses(batch, 0)["loss"] < 1e-6


def test_hidden_targets_and_references_get_no_gradient():
    present = torch.tensor([[True, True, True, False, True], [True, False, False, True, False]])
    task, batch = make(), views(present=present)
    outputs = []

    def answer(x):
        outputs.append(torch.zeros_like(x, requires_grad=True))
        return outputs[0]

    task.model = Spy(answer)
    task.losses(batch, 0)["loss"].backward()
    nonzero = outputs[0].grad.abs().amax((-1, -2, -3)) > 0
    assert nonzero.equal(present[:, 2:])


def test_the_same_generator_gives_the_same_loss():
    task, batch = make(**CAUSAL), views()
    values = [task.losses(batch, s)["loss"].item() for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]


def test_reprojection_is_trained_on_a_lattice_that_moves():
    """Its pixels differ from step to step, are the same for the same seed, and the loss reaches what weighs them."""
    task = make(prediction="data", reprojection_depths=9)
    randomised(task.model)
    lattices = [task._lattice(0, step, (8, 12)) for step in range(40)]
    corners = {(lattice.row, lattice.col) for lattice in lattices}
    assert len(corners) > 8 and all(0 <= place < 4 for corner in corners for place in corner)
    assert task._lattice(0, 3, (8, 12)) == lattices[3]
    task.losses(views(), 0)["loss"].backward()
    for name, p in task.model.reprojection.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_pixels_of_the_lattice_count_as_much_as_all():
    task, batch = make(reprojection_depths=9), views()
    prepared, lattice = task.prepare(batch, 0), task._lattice(0, batch.step, (2, 3))
    wrong = torch.zeros_like(prepared.data)
    lattice.of(wrong).fill_(1.0)
    task.model = Spy(lambda noised: velocity(prepared.data, prepared.noise) + wrong)
    torch.testing.assert_close(task.losses(batch, 0)["loss"], 1 + wrong.mean(), rtol=1e-4, atol=0)


def test_batches_without_references_train_the_unconditional_branch():
    loss = make(**CAUSAL).losses(views(references=0), 0)["loss"]
    assert torch.isfinite(loss)


def test_scale_from_references_or_from_all():
    batch = views()
    from_references = positions_of(batch, "references").cam_from_world[..., :3, 3].norm(dim=-1)
    torch.testing.assert_close(from_references[:, :2].amax(1), torch.ones(2))
    from_all = positions_of(batch, "all").cam_from_world[..., :3, 3].norm(dim=-1)
    torch.testing.assert_close(from_all.amax(1), torch.ones(2))


def test_videos_train_by_their_times():
    batch = replace(
        views(), cameras=None, times=torch.arange(5)[None].expand(2, 5) / 5, is_video=torch.ones(2, dtype=torch.bool)
    )
    assert torch.isfinite(make().losses(batch, 0)["loss"])
    mixed = replace(batch, cameras=ring(5, (8, 12), batch=(2,)), is_video=torch.tensor([True, False]))
    positions = positions_of(mixed, "all")
    assert positions.cam_from_world[0].equal(torch.eye(4).expand(5, 4, 4))
    assert positions.times[1].equal(torch.zeros(5))
    assert torch.isfinite(make().losses(mixed, 0)["loss"])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_every_recipe_is_sound(name):
    recipe = RECIPES[name]()
    assert recipe.settings.model.num_heads * 64 == recipe.settings.model.width
    assert (RECIPES[name].__doc__ or "").strip()


def test_the_ablation_ends_where_the_paper_ends():
    last, first = RECIPES["kaleido-ablation-x-video-200k"](), RECIPES["kaleido-ablation-i-swiglu-gqa"]()
    final = RECIPES["kaleido-small-256"]()
    assert last.settings == final.settings
    assert last.settings.model == final.settings.model
    assert last.loss == final.loss and last.data == final.data
    assert first.settings.model.encoding.representation == "dual"
    assert not first.settings.model.encoding.transform_values
    assert first.settings.model.window == 1 and first.settings.model.registers == 0


def test_a_causal_recipe_takes_its_scale_from_references():
    with pytest.raises(ValueError, match="scale_from"):
        replace(kaleido_nano().settings, scale_from="all")
    with pytest.raises(ValueError, match="768 channels"):
        replace(kaleido_nano().settings, model=replace(kaleido_nano().settings.model, latent_channels=16))


def test_rows_of_the_ablation_learn_in_mixed_precision():
    """One step of loss and gradient in bf16, near that in fp32, for every row and choice that the command runs."""
    recipes = {**ablation_recipes(nano_scale(), features=False), **choice_recipes(kaleido_nano_32())}
    for name, recipe in recipes.items():
        model = replace(recipe.settings.model, depth=2)
        task = KaleidoTask(replace(recipe.settings, model=model), recipe.loss, codec=make_codec(recipe.settings.codec))
        randomised(task.model)
        h, w = recipe.settings.image_size
        batch = replace(views(), images=torch.rand(2, 5, 3, h, w), cameras=ring(5, (h, w), batch=(2,)))
        expected = task.losses(batch, 0)["loss"]
        with torch.autocast("cpu", torch.bfloat16):
            loss = task.losses(batch, 0)["loss"]
        assert loss.item() == pytest.approx(expected.item(), rel=0.05), name
        loss.backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in task.model.parameters()), name


def test_rays_are_exact_whatever_the_autocast_type():
    positions = positions_of(views(), "all")
    with torch.autocast("cpu", torch.bfloat16):
        inside = positions.plucker((4, 6))
        made = positions_of(views(), "all")
    assert inside.equal(positions.plucker((4, 6)))
    assert made.cam_from_world.equal(positions.cam_from_world) and made.lens.equal(positions.lens)
