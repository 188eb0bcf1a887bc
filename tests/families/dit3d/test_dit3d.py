"""3DDiT: sizes, what its passes cost, what a drawn scene depends on, training, and the way from the command line."""

import itertools
import json
import runpy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.dit3d.checkpoint import load_autoencoder, weights_of
from kaleidoscene.families.dit3d.config import Dit3dConfig, dit3d_base, dit3d_small, dit3d_xl
from kaleidoscene.families.dit3d.initialisation import initialise
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.plan import Dit3dPlan, flops_of, parameters_of
from kaleidoscene.families.dit3d.recipes import RECIPES, dit3d_debug, dit3d_xl_views
from kaleidoscene.families.dit3d.settings import Dit3dSampling
from kaleidoscene.families.dit3d.system import Dit3dSystem
from kaleidoscene.families.dit3d.task import Dit3dLoss, Dit3dTask, seen_views
from kaleidoscene.families.rae3d.checkpoint import save_model
from kaleidoscene.families.rae3d.statistics import TokenStatistics, read_statistics
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.rendering.renderer import TARGET_SEEDS
from tests.conftest import REPOSITORY, ring
from tests.families.dit3d.tiny import (
    tiny_autoencoder,
    tiny_dit3d,
    tiny_dit3d_config,
    tiny_dit3d_settings,
    tiny_renderer,
    tiny_statistics,
    write_autoencoder,
)
from tests.families.rae3d.tiny import SIZE, tiny_rae3d, tiny_rae3d_settings

BOTH = pytest.mark.parametrize("condition", ["channels", "tokens"])


@pytest.fixture(scope="module")
def shards(scenes_with_depth):
    return scenes_with_depth


@pytest.fixture
def batch(shards) -> Views:
    data = dit3d_debug().data
    data = replace(data, image_size=SIZE, batch_size=4, sampling=replace(data.sampling, views=5))
    return ViewBatches(ShardFolder(shards), data)[1]


def seeds_of(request: int, targets) -> list[int]:
    return [request * TARGET_SEEDS + target for target in targets]


def test_sizes_are_those_of_the_paper():
    for config, millions in ((dit3d_small(), 198), (dit3d_base(), 296), (dit3d_xl(), 840)):
        assert parameters_of(config) / 1e6 == pytest.approx(millions, rel=0.005)
    shifts = [replace(dit3d_xl(), tokens=tokens).shift for tokens in (256, 512, 1024)]
    assert shifts == pytest.approx([6.93, 9.80, 13.86], abs=0.005)


@BOTH
def test_operations_are_counted(condition):
    config = Dit3dConfig(
        depth=3, width=48, heads=4, tokens=40, channels=56, head_depth=2, head_width=64, head_heads=4,
        condition=condition,
    )  # fmt: skip
    with torch.device("meta"):
        network = Dit3d(config)
        tokens, t = torch.empty(1, 40, 56), torch.empty(1)
        with FlopCounterMode(display=False) as counter:
            network(tokens, t, tokens)
    assert counter.get_total_flops() == pytest.approx(flops_of(config), rel=0.01)
    plan = Dit3dPlan(tiny_dit3d_settings(steps=5))
    assert plan.cost(3, 4).flops == 10 * flops_of(tiny_dit3d_config())
    assert plan.with_sampling(steps=2, guidance=1.0).cost(1, 1).flops == 2 * flops_of(tiny_dit3d_config())


@BOTH
def test_a_fresh_network_says_nothing_and_learns_everywhere(condition):
    torch.manual_seed(0)
    network = Dit3d(tiny_dit3d_config(condition=condition, classes=3))
    initialise(network)
    tokens, seen, t = torch.randn(2, 7, 24), torch.randn(2, 7, 24), torch.tensor([0.3, 0.9])
    labels = torch.tensor([1, 3])
    assert not network(tokens, t, seen, labels).any()
    network = tiny_dit3d(condition=condition, classes=3)
    found = network(tokens, t, seen, labels)
    found.square().mean().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    for changed in (
        (tokens, t, -seen, labels), (tokens, 1 - t, seen, labels), (-tokens, t, seen, labels),
        (tokens, t, seen, 3 - labels),
    ):  # fmt: skip
        assert not torch.allclose(network(*changed), found, atol=1e-3)
    with pytest.raises(ValueError, match="Labels go into a network that has classes"):
        network(tokens, t, seen)
    with pytest.raises(ValueError, match="Labels go into a network that has classes"):
        tiny_dit3d()(tokens, t, seen, labels)


def test_scenes_of_a_batch_do_not_see_each_other():
    network = tiny_dit3d().double()
    tokens, seen = torch.randn(2, 3, 7, 24, dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    whole = network(tokens, t, seen)
    for number in range(3):
        alone = network(tokens[number : number + 1], t[number : number + 1], seen[number : number + 1])
        torch.testing.assert_close(alone[0], whole[number], rtol=0, atol=1e-10)


class Oracle(Dit3d):
    """Knows the data: on the straight path its velocity is exact."""

    def __init__(self, data):
        super().__init__(tiny_dit3d_config())
        self.data = data

    def forward(self, x, t, condition, labels=None):
        return (x - self.data) / t[:, None, None]


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.0])
def test_the_true_velocity_leads_to_the_data(guidance):
    """In any number of steps, and what is decoded are views of the data."""
    data = torch.randn(1, 7, 24)
    cameras = ring(5, SIZE, batch=(1,))
    for steps in (1, 4):
        renderer = tiny_renderer(Oracle(data), steps=steps, guidance=guidance)
        scene = renderer.expect(renderer.encode(torch.rand(1, 2, 3, *SIZE), cameras[:, :2]), cameras[:, 2:])
        found = renderer.render(scene, cameras[:, 2:], seeds=seeds_of(3, range(3)))
        own = renderer.autoencoder
        expected = replace(scene.seen, tokens=own.statistics.leave(data))
        known = own.renderer.render(expected, cameras[:, 2:], seeds=[0, 0, 0])
        torch.testing.assert_close(found.images, known.images, rtol=0, atol=2e-2)


def test_one_scene_is_drawn_for_a_request_however_it_is_cut():
    renderer, cameras, images = tiny_renderer(), ring(6, SIZE, batch=(1,)), torch.rand(1, 2, 3, *SIZE)

    def fresh():
        return renderer.expect(renderer.encode(images, cameras[:, :2]), cameras[:, 2:])

    whole = renderer.render(fresh(), cameras[:, 2:], seeds=seeds_of(7, range(4)))
    # The last target alone, as a rendering that goes on asks for it.
    alone = renderer.render(fresh(), cameras[:, 5:], seeds=seeds_of(7, [3]))
    torch.testing.assert_close(alone.images[:, 0], whole.images[:, 3], rtol=0, atol=1e-5)
    scene, said = fresh(), []
    for number in range(4):
        renderer.render(
            scene, cameras[:, 2 + number : 3 + number], seeds=seeds_of(7, [number]), on_step=lambda *x: said.append(x)
        )
    assert said == [(1, 3), (2, 3), (3, 3)]  # drawn once
    other = renderer.render(fresh(), cameras[:, 2:], seeds=seeds_of(8, range(4)))
    assert not torch.allclose(other.images, whole.images, atol=1e-3)


def test_without_guidance_of_what_is_seen_images_have_no_influence():
    cameras = ring(4, SIZE, batch=(1,))
    made = []
    for guidance in (0.0, 1.0, 2.0):
        renderer = tiny_renderer(guidance=guidance)
        pair = [
            renderer.render(
                renderer.encode(torch.full((1, 2, 3, *SIZE), shade), cameras[:, :2]), cameras[:, 2:],
                seeds=seeds_of(1, range(2)),
            ).images
            for shade in (0.1, 0.8)
        ]  # fmt: skip
        made.append(pair)
    assert torch.equal(*made[0])
    assert not torch.allclose(*made[1], atol=1e-3) and not torch.allclose(*made[2], atol=1e-3)


def test_a_scene_of_nothing_is_drawn_for_its_cameras_alone():
    cameras = ring(4, SIZE, batch=(1,))

    def made(seed, guidance=2.0, seen=cameras):
        renderer = tiny_renderer(guidance=guidance)
        scene = renderer.imagine(seen)
        assert scene.num_references == 0 and renderer.expect(scene, seen[:, :2]) is scene
        return renderer.render(scene, seen[:, 1:3], seeds=seeds_of(seed, range(2)))

    first = made(1)
    assert torch.equal(made(1).images, first.images) and torch.equal(made(1, guidance=1.0).images, first.images)
    assert not torch.allclose(made(2).images, first.images, atol=1e-3)
    # Cameras count by where they stand to each other, not by where the world begins.
    world = random_rigid(generator=torch.Generator().manual_seed(3), dtype=cameras.world_from_cam.dtype)
    moved = replace(cameras, world_from_cam=world @ cameras.world_from_cam)
    torch.testing.assert_close(made(1, seen=moved).images, first.images, rtol=0, atol=1e-4)


def test_a_scene_grows_by_what_was_rendered_of_it():
    """The same as if it had been given, in the same world; what was given says which way it is made."""
    cameras, images = ring(6, SIZE, batch=(1,)), torch.rand(1, 3, 3, *SIZE)
    renderer, seeds = tiny_renderer(decode_from=2), seeds_of(5, range(3))
    scene = renderer.expect(renderer.encode(images[:, :1], cameras[:, :1]), cameras[:, 1:])
    first = renderer.render(scene, cameras[:, 3:], seeds=seeds)
    grown = renderer.extend(scene, images[:, 1:], cameras[:, 1:3], keep=[0])
    assert (grown.num_references, grown.generated) == (3, 2) and not grown.drawn
    found = renderer.render(grown, cameras[:, 3:], seeds=seeds).images
    assert not torch.allclose(found, first.images, atol=1e-3), "it was drawn anew"
    drawing = tiny_renderer(decode_from=None)
    given = drawing.encode(images, cameras[:, :3])
    given = replace(given, seen=replace(given.seen, world=scene.seen.world), poses=scene.poses)
    torch.testing.assert_close(found, drawing.render(given, cameras[:, 3:], seeds=seeds).images, rtol=0, atol=1e-5)
    torch.testing.assert_close(renderer.render(scene, cameras[:, 3:], seeds=seeds).images, first.images)  # as it was
    # The older of the two rendered views gives way to a newer one.
    again = renderer.extend(grown, images[:, :1], cameras[:, 4:5], keep=[0, 2])
    assert (again.num_references, again.generated) == (3, 2)
    assert again.seen.images is not None and again.seen.images.equal(images[:, [0, 2, 0]])
    assert again.cameras.world_from_cam.equal(cameras.world_from_cam[:, [0, 2, 4]])
    assert renderer.settings.route(again.num_references - again.generated) == "diffusion"
    with pytest.raises(KaleidosceneError, match="the model renders"):
        renderer.extend(scene, torch.rand(1, 1, 3, 8, 8), ring(1, (8, 8), batch=(1,)), keep=[0])


def test_what_is_seen_enough_is_decoded():
    cameras, images = ring(5, SIZE, batch=(1,)), torch.rand(1, 2, 3, *SIZE)
    renderer, said = tiny_renderer(decode_from=2), []

    def made(count, seed, renderer):
        scene = renderer.expect(renderer.encode(images[:, :count], cameras[:, :count]), cameras[:, 2:])
        return renderer.render(
            scene, cameras[:, 2:], seeds=seeds_of(seed, range(3)), on_step=lambda *step: said.append(step)
        ).images

    own = renderer.autoencoder.renderer
    known = own.render(own.expect(own.encode(images, cameras[:, :2]), cameras[:, 2:]), cameras[:, 2:], seeds=[0] * 3)
    assert torch.equal(made(2, 1, renderer), known.images) and not said
    assert not torch.allclose(made(1, 1, renderer), made(1, 2, renderer), atol=1e-3) and said
    assert not torch.allclose(made(2, 1, tiny_renderer(decode_from=3)), known.images, atol=1e-3)
    system = Dit3dSystem(renderer)
    assert [system.route(count) for count in (0, 1, 2, 3)] == ["diffusion"] * 2 + ["decode"] * 2
    assert system.with_sampling(steps=2, guidance=None).route(3) == "diffusion"  # who asks for steps gets them
    plan = Dit3dPlan(tiny_dit3d_settings(decode_from=2))
    assert [plan.cost(count, 1).flops // flops_of(tiny_dit3d_config()) for count in (0, 1, 2)] == [3, 6, 0]


def test_statistics_of_tokens(tmp_path):
    tokens = 3 + 2 * torch.randn(50, 7, 24, generator=torch.Generator().manual_seed(1))
    found = TokenStatistics.of(tokens.split([20, 1, 29]))
    torch.testing.assert_close(found.mean, tokens.mean(0))
    torch.testing.assert_close(found.deviation, (tokens.var(0, unbiased=False) + 1e-5).sqrt())
    inside = found.enter(tokens)
    torch.testing.assert_close(inside.mean(0), torch.zeros(7, 24), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.leave(inside), tokens, rtol=1e-5, atol=1e-5)
    with pytest.raises(KaleidosceneError, match="at least 2 scenes, got 1"):
        TokenStatistics.of([tokens[:1]])
    with pytest.raises(KaleidosceneError, match=r"no statistics of its tokens.*09_token_statistics.py"):
        read_statistics(tmp_path, (7, 24))
    (tmp_path / "model.safetensors").write_bytes(b"some weights")
    found.save(tmp_path)
    assert torch.equal(read_statistics(tmp_path, (7, 24)).mean, found.mean)
    with pytest.raises(KaleidosceneError, match=r"of \(7, 24\) tokens and channels, the model has \(8, 24\)"):
        read_statistics(tmp_path, (8, 24))
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(KaleidosceneError, match=r"not of the tokens of the weights beside it.*09_token_statistics.py"):
        read_statistics(tmp_path, (7, 24))
    (tmp_path / "statistics.safetensors").write_bytes(b"x")
    with pytest.raises(KaleidosceneError, match="not readable as statistics"):
        read_statistics(tmp_path, (7, 24))


def test_an_autoencoder_that_does_not_fit_is_refused(tmp_path):
    folder = write_autoencoder(tmp_path / "autoencoder")
    settings = replace(tiny_dit3d_settings(folder), autoencoder_weights=weights_of(str(folder)))
    assert load_autoencoder(settings, "cpu").statistics.mean.equal(tiny_statistics().mean)
    with pytest.raises(KaleidosceneError, match=r"an autoencoder of \(7, 24\) tokens and channels.*\(9, 24\)"):
        load_autoencoder(tiny_dit3d_settings(folder, tokens=9), "cpu")
    with pytest.raises(KaleidosceneError, match="The autoencoder of a dit3d: .*no such model"):
        load_autoencoder(tiny_dit3d_settings(tmp_path / "none"), "cpu")
    with pytest.raises(KaleidosceneError, match=r"an autoencoder of views of .*, the network is of \(24, 8\)"):
        load_autoencoder(replace(settings, image_size=(24, 8)), "cpu")
    weights = {name: 1.01 * p.detach() for name, p in tiny_rae3d().named_parameters()}
    save_model(folder, tiny_rae3d_settings(), weights)
    tiny_statistics().save(folder)
    with pytest.raises(KaleidosceneError, match="not the weights of the autoencoder whose tokens the network learned"):
        load_autoencoder(settings, "cpu")
    assert load_autoencoder(replace(settings, autoencoder_weights=None), "cpu")


def test_poses_of_the_condition_are_from_the_first_to_the_last():
    renderer = tiny_renderer()
    renderer.settings = replace(renderer.settings, sampling=Dit3dSampling(poses=12))
    for count in range(1, 30):
        cameras = ring(count).reshape(1, count)
        poses = renderer.imagine(cameras).poses
        assert poses is not None and poses.batch_shape == (1, min(count, 12))
        places = [int((cameras.centres[0] - one).norm(dim=-1).argmin()) for one in poses.centres[0]]
        steps = [after - before for before, after in itertools.pairwise(places)]
        assert places[0] == 0 and places[-1] == count - 1 and (not steps or 0 < max(steps) <= min(steps) + 1)


def test_hidden_views_are_refused(batch):
    task = Dit3dTask(tiny_dit3d_settings(), Dit3dLoss(), tiny_autoencoder())
    with pytest.raises(KaleidosceneError, match=r"no views by masks: data\.sampling\.masking must be drop or none"):
        task.losses(replace(batch, present=torch.ones(batch.images.shape[:2], dtype=torch.bool)), 0)


def test_wrong_settings_are_refused():
    for changes, said in (({"width": 19}, "multiples of their heads"), ({"depth": 0}, "must be at least 1")):
        with pytest.raises(ValueError, match=said):
            tiny_dit3d_config(**changes)
    for changes, said in (
        ({"steps": 0}, "at least 1 step"), ({"guidance": -1.0}, "guidance must be at least 0"),
        ({"decode_from": 0}, "decode_from must be at least 1"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            Dit3dSampling(**changes)
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        Dit3dLoss(hidden_share=(0.9, 0.6))


def made_task(**loss) -> Dit3dTask:
    made = Dit3dTask(tiny_dit3d_settings(), Dit3dLoss(**loss), tiny_autoencoder())
    made.model = tiny_dit3d()
    return made


def test_the_loss_reaches_every_weight_and_no_autoencoder(batch):
    task = made_task()
    losses = task.losses(batch, 3)
    assert losses["loss"].isfinite()
    losses["loss"].backward()
    still = [name for name, p in task.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    assert all(p.grad is None for p in task.autoencoder.renderer.model.parameters())
    assert torch.equal(task.losses(batch, 3)["loss"], losses["loss"])
    assert not torch.equal(task.losses(batch, 4)["loss"], losses["loss"])


def test_a_network_that_says_nothing_has_the_loss_of_noise_and_data(batch):
    """The velocity is noise less data, of variance 1 and that of the tokens."""
    task = made_task()
    for p in task.model.last.parameters():
        nn.init.zeros_(p)
    data = task.tokens_of(batch, torch.ones(4, 5, dtype=torch.bool))[0]
    expected = 1 + float(data.square().mean())
    found = sum(task.losses(batch, seed)["loss"].item() for seed in range(30)) / 30
    assert found == pytest.approx(expected, rel=0.05)


class Watched(Oracle):
    """Keeps the times that it is asked at."""

    def forward(self, x, t, condition, labels=None):
        self.asked.append(t)
        return super().forward(x, t, condition, labels)


def test_the_true_velocity_has_no_loss_and_times_are_shifted(batch):
    """The path leads from data to noise; the middle of uniform times comes to lie where the shift says."""
    task = made_task()
    task.model = Watched(task.tokens_of(batch, torch.ones(4, 5, dtype=torch.bool))[0])
    task.model.asked = []
    losses = [float(task.losses(batch, seed)["loss"]) for seed in range(150)]
    assert max(losses) < 1e-3
    shift = tiny_dit3d_config().shift
    assert float(torch.cat(task.model.asked).median()) == pytest.approx(shift / (1 + shift), abs=0.03)


def test_the_wide_head_is_told_by_every_token_for_itself():
    """Without attention a token depends on itself alone."""
    network = tiny_dit3d()
    for block in (*network.blocks, *network.head):
        nn.init.zeros_(block.attention.out.weight)
        nn.init.zeros_(block.attention.out.bias)
    tokens, seen, t = torch.randn(1, 7, 24), torch.randn(1, 7, 24), torch.tensor([0.4])
    found = network(tokens, t, seen)
    other = tokens.clone()
    other[:, 3] = torch.randn(24)
    changed = (network(other, t, seen) - found).abs().amax(-1)[0] > 1e-5
    assert changed.tolist() == [number == 3 for number in range(7)]


def test_as_many_views_are_hidden_as_the_method_says():
    seen = made_task().visible(tuple(range(3000)), 20, 0).float().mean(1)
    nothing = seen == 0
    assert float(nothing.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert seen[~nothing].min() >= 0.1 and seen[~nothing].max() <= 0.4
    assert float(seen[~nothing].mean()) == pytest.approx(0.25, abs=0.02)


def test_the_papers_recipe_has_the_papers_numbers():
    recipe = dit3d_xl_views()
    optim = recipe.train.optim
    assert (recipe.train.steps, recipe.train.ema_decay) == (80_000, 0.9995)
    assert (optim.learning_rate, optim.warmup, optim.betas) == (2e-4, 8000, (0.9, 0.95))
    assert (recipe.settings.sampling.steps, recipe.settings.sampling.guidance) == (50, 2.0)
    views = {shape.views for shape in recipe.batches.shapes}
    assert min(views) == 6 and max(views) == 18 and recipe.batches.image_size == recipe.settings.image_size
    seen = seen_views(tuple(range(200)), min(views), 0, recipe.loss).sum(1)
    assert 0.3 < float((seen == 1).float().mean()), "one image is what diffusion is used for"
    ahead = replace(recipe, tokens_ahead=True).batches
    assert not ahead.buckets and ahead.sampling.views == 1 and ahead.batch_size == 96
    assert RECIPES["dit3d-xl-images"]().batches.batch_size == 384


def test_from_an_autoencoder_to_different_views_of_one_image(tmp_path, shards, capsys, monkeypatch):
    """Autoencoder, statistics, diffusion, and two samples from the command line."""
    first, second = str(tmp_path / "rae"), str(tmp_path / "dit")
    data = ["--shards", str(shards), "--train.steps", "2", "--train.checkpoint-every", "1"]
    assert main(["train", "rae3d-debug", "--out", first, *data]) == 0
    train = ["train", "dit3d-debug", "--out", second, *data]
    assert main([*train, "--autoencoder", first]) == 1
    assert "no statistics of its tokens" in capsys.readouterr().err
    example = str(REPOSITORY / "examples" / "09_token_statistics.py")
    monkeypatch.setattr("sys.argv", [example, first, str(shards), "--batches", "2"])
    runpy.run_path(example, run_name="__main__")
    assert main([*train, "--autoencoder", first]) == 0
    records = [json.loads(line) for line in (tmp_path / "dit" / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 2 and all(record["loss"] > 0 for record in records)
    bus = read_capture(REPOSITORY / "examples" / "captures" / "school_bus")
    model = load(second)
    views = [model.render(bus.select([0]), cameras=bus.cameras[[4, 9]], seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(views[0].images, views[1].images) and not torch.equal(views[0].images, views[2].images)
    out = tmp_path / "out"
    render = ["render", str(REPOSITORY / "examples" / "captures" / "school_bus"), "--model", second, "--out", str(out)]
    assert main([*render, "--references", "0", "--frames", "3", "--steps", "2", "--guidance", "1.5", "--depth"]) == 0
    assert (out / "depth" / "0002.png").exists()
    assert main([*render, "--overwrite", "--steps", "0"]) == 1
    assert "at least 1 step" in capsys.readouterr().err
