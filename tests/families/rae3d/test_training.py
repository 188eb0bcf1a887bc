"""Training and rendering of 3DRAE: its losses, its task, what it refuses, and a run from the command line."""

import json
from dataclasses import replace

import pytest
import torch

from kaleidoscene.api import Model, load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rae3d.initialisation import initialise
from kaleidoscene.families.rae3d.loss import Rae3dLoss, gradient_loss, point_loss
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.recipes import rae3d_debug, rae3d_paper, token_budget_buckets
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.system import Rae3dSystem
from kaleidoscene.families.rae3d.task import Rae3dTask
from kaleidoscene.geometry.poses import rigid, rotation_about
from tests.cli.test_reconstruct import write_photographs
from tests.conftest import ring
from tests.families.rae3d.tiny import SIZE, tiny_rae3d, tiny_rae3d_config, tiny_rae3d_settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(scenes_with_depth):
    return scenes_with_depth


@pytest.fixture
def batch(shards) -> Views:
    data = rae3d_debug().data
    data = replace(data, image_size=SIZE, batch_size=4, sampling=replace(data.sampling, views=5))
    return ViewBatches(ShardFolder(shards), data)[1]


def task(**loss) -> Rae3dTask:
    made = Rae3dTask(tiny_rae3d_settings(), Rae3dLoss(**loss))
    torch.manual_seed(0)
    made.model = Rae3d(tiny_rae3d_config())
    initialise(made.model)
    return made


def test_gradients_of_images_by_hand():
    """A step of height 1 in the middle of one row of four columns: half of its width is left at half the size."""
    truth, images = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
    images[..., 2:] = 1.0
    # At full size one of three differences along rows is 1; at half size the only one is; nothing is below.
    assert float(gradient_loss(images[..., :1, :], truth[..., :1, :])) == 0  # a single row has no size to be halved
    found = float(gradient_loss(images.repeat(1, 1, 2, 1), truth.repeat(1, 1, 2, 1)))
    assert found == pytest.approx((1 / 3 + 1.0) / 2)
    assert float(gradient_loss(images + 0.3, images)) == pytest.approx(0, abs=1e-6)


def test_points_by_hand():
    truth = torch.zeros(1, 2, 2, 3)
    points = truth.clone()
    points[0, 0, 0, 0] = 3.0
    known = torch.ones(1, 2, 2, dtype=torch.bool)
    confidence = torch.full((1, 2, 2), 2.0)
    log = float(torch.tensor(2.0).log())
    # Errors 3 0 0 0; differences along either axis 3 0.
    expected = 2 * 3 / 4 - 0.2 * log + 0.5 * (2 * 3 / 2) * 2
    assert float(point_loss(points, confidence, truth, known, alpha=0.2)) == pytest.approx(expected)
    known[0, 0, 0] = False
    assert float(point_loss(points, confidence, truth, known, alpha=0.2)) == pytest.approx(-0.2 * log)
    assert float(point_loss(points * torch.nan, confidence, truth, known & False, alpha=0.2)) == 0


def test_losses_are_finite_and_reach_every_weight(batch):
    made = task()
    losses = made.losses(batch, 3)
    assert set(losses) == {"loss", "image", "gradients", "points"} and all(x.isfinite() for x in losses.values())
    losses["loss"].backward()
    still = [name for name, p in made.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    torch.testing.assert_close(made.losses(batch, 3)["loss"], losses["loss"])
    assert not torch.equal(made.losses(batch, 4)["image"], losses["image"])  # other noise


def test_without_depth_points_are_not_learned(batch):
    losses = task().losses(replace(batch, depth=None), 3)
    assert "points" not in losses and losses["loss"].isfinite()


def test_scenes_without_depth_say_nothing_of_points_or_background(batch):
    """In a mixture with such that have it: their depth is 0 throughout, which is not known."""
    made = task(background=1.0)
    depth = batch.depth.clone()
    depth[1] = 0
    some = made.losses(replace(batch, depth=depth), 3)
    assert some["loss"].isfinite() and some["background"] > 0
    none = made.losses(replace(batch, depth=torch.zeros_like(depth)), 3)
    assert none["background"] == 0 and none["points"] == 0
    assert none["loss"].isfinite()


def test_the_stream_of_residuals_is_exact_whatever_the_autocast_type(batch):
    made, seen = task(), []
    for unit in made.model.units().values():
        unit.register_forward_hook(lambda _, args, out: seen.extend((args[0].dtype, out[0].dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        made.losses(batch, 3)
    assert seen and set(seen) == {torch.float32}


def test_what_is_watched_is_of_one_kind(batch):
    """A confident network has a loss below 0, and a discriminator adds its own later on: neither is divergence."""
    made = task()
    assert made.watched == "image" and made.losses(batch, 3)["image"] > 0


def test_a_scene_has_the_same_noise_and_hidden_views_in_any_batch(batch):
    made = task(masked=0.8)
    visible = made._visible((3, 9, 4), 4, 7)
    assert torch.equal(made._visible((9,), 4, 7)[0], visible[1])
    noise = made._noise((3, 9, 4), 7, torch.device("cpu"))
    torch.testing.assert_close(made._noise((9,), 7, torch.device("cpu"))[0], noise[1])
    sizes = torch.stack([made._noise((n,), 7, torch.device("cpu")).std() for n in range(200)])
    assert sizes.max() < 0.95 and sizes.min() < 0.05 and 0.33 < sizes.mean() < 0.47  # uniform below 0.8
    assert task(noise=0.0)._noise((1,), 7, torch.device("cpu")) is None


def test_references_may_be_scored_in_place_of_others(batch):
    """With a share of 1 what the other views show has no influence, with 0 it has; likewise depth and direction."""
    n, poses = batch.num_references, batch.cameras.world_from_cam
    turned = poses[:, n:] @ rigid(rotation_about("y", torch.tensor(0.3).to(poses)), torch.zeros(3).to(poses))
    other = replace(
        batch, images=torch.cat([batch.images[:, :n], 1 - batch.images[:, n:]], dim=1),
        depth=torch.cat([batch.depth[:, :n], 2 * batch.depth[:, n:]], dim=1),
        cameras=replace(batch.cameras, world_from_cam=torch.cat([poses[:, :n], turned], dim=1)),
    )  # fmt: skip
    never, always = (task(repeated=share, masked=0.0, background=1.0) for share in (0.0, 1.0))
    names = ("loss", "image", "points", "background")
    for name in names:
        assert torch.equal(always.losses(batch, 3)[name], always.losses(other, 3)[name])
    for name in names[:3]:
        assert not torch.allclose(never.losses(batch, 3)[name], never.losses(other, 3)[name])
    # What is scored is what the cameras see: the tokens' own views have points where they were taken.
    assert not torch.equal(always.losses(batch, 3)["image"], always.losses(batch, 4)["image"])
    with pytest.raises(ValueError, match="repeated is a share"):
        Rae3dLoss(repeated=1.5)


def test_as_many_references_are_hidden_as_the_method_says():
    made = task()
    hidden = torch.cat([~made._visible((number,), 10, 0) for number in range(4000)]).float().mean(1)
    touched = hidden > 0
    assert float(touched.float().mean()) == pytest.approx(0.1, abs=0.015)
    assert float((hidden[touched] == 1).float().mean()) == pytest.approx(0.1, abs=0.05)
    rest = hidden[touched & (hidden < 1)]
    assert rest.min() >= 0.1 and rest.max() <= 0.9 and float(rest.mean()) == pytest.approx(0.5, abs=0.05)
    assert not (~task(masked=0.0)._visible((1, 2, 3), 5, 0)).any()


def test_what_it_cannot_learn_from_is_refused(batch):
    made = task()
    for views, said in (
        (replace(batch, cameras=None, times=torch.zeros(batch.images.shape[:2])), "views with cameras"),
        (replace(batch, num_references=0), "no tokens without references"),
        (replace(batch, present=torch.ones(batch.images.shape[:2], dtype=torch.bool)), "hides no views by masks"),
    ):
        with pytest.raises(KaleidosceneError, match=said):
            made.losses(views, 0)
    with pytest.raises(KaleidosceneError, match="perceptual loss and its weights come together"):
        Rae3dTask(tiny_rae3d_settings(), Rae3dLoss(perceptual=1.0))
    with pytest.raises(ValueError, match="shares from 0 to 1"):
        Rae3dLoss(masked_share=(0.9, 0.1))
    for name in ("perceptual", "gradients", "points", "background", "confidence", "noise"):
        with pytest.raises(ValueError, match=f"{name} must be at least 0"):
            Rae3dLoss(**{name: -0.1})


def test_what_stands_in_for_the_perceptual_loss_is_asked_for():
    recipe = rae3d_paper()
    options = replace(recipe.options, loss=replace(recipe.loss, perceptual=0.0))
    with pytest.raises(KaleidosceneError, match=r"pixels alone.*--loss.gradients 1"):
        recipe.changed(options)
    assert recipe.changed(replace(options, loss=replace(options.loss, gradients=1.0))).loss.gradients == 1


def test_rendering_does_not_depend_on_the_given_world_or_on_chunks():
    """Targets are expected once, so that all of them are in one unit however they are cut."""
    renderer = Rae3dRenderer(tiny_rae3d(), tiny_rae3d_settings())
    cameras, images = ring(7, SIZE, seed=2, batch=(1,)), torch.rand(1, 2, 3, *SIZE)
    scene = renderer.expect(renderer.encode(images, cameras[:, :2]), cameras[:, 2:])
    whole = renderer.render(scene, cameras[:, 2:], seeds=[0] * 5)
    parts = [renderer.render(scene, cameras[:, n : n + 1], seeds=[0]) for n in range(2, 7)]
    torch.testing.assert_close(torch.cat([part.images for part in parts], 1), whole.images, rtol=0, atol=1e-5)
    poses = cameras.world_from_cam.clone()
    poses[..., :3, 3] *= 4.0
    larger = replace(cameras, world_from_cam=poses)
    scene = renderer.expect(renderer.encode(images, larger[:, :2]), larger[:, 2:])
    other = renderer.render(scene, larger[:, 2:], seeds=[0] * 5)
    torch.testing.assert_close(other.images, whole.images, rtol=0, atol=1e-4)
    torch.testing.assert_close(other.depths, 4 * whole.depths, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(other.points, 4 * whole.points, rtol=1e-3, atol=1e-3)


def test_a_reconstruction_has_one_unit_for_all_that_is_asked_of_it():
    system = Rae3dSystem(Rae3dRenderer(tiny_rae3d(), tiny_rae3d_settings()))
    bus = read_capture("examples/captures/school_bus").select([0, 3])
    scene = Model(system).reconstruct(bus)
    cameras = scene.around(6)
    whole = scene.render(cameras)
    torch.testing.assert_close(scene.render(cameras[4:5]).images[0], whole.images[4], rtol=0, atol=1e-5)
    torch.testing.assert_close(scene.render(cameras[:2]).points, whole.points[:2], rtol=1e-4, atol=1e-4)


def test_images_and_cameras_are_encoded_as_a_capture_is(tmp_path):
    """The line of code that the documents have: tokens are made, saved, and rendered from any camera."""
    model = Model(Rae3dSystem(Rae3dRenderer(tiny_rae3d(), tiny_rae3d_settings())))
    bus = read_capture("examples/captures/school_bus").select([0, 3])
    images, cameras = model.prepare(bus)
    tokens = model.encode(images, cameras, origin=bus.origin(), up=bus.up())
    targets = tokens.around(3)
    views = model.render(tokens, targets)
    assert torch.equal(views.images, model.reconstruct(bus).render(targets).images)
    tokens.save(tmp_path / "scene.safetensors")
    again = model.render(model.open_scene(tmp_path / "scene.safetensors"), targets)
    for name in ("images", "depths", "points", "confidence"):
        assert torch.equal(getattr(again, name), getattr(views, name))
    told = model.encode(images, cameras)  # where the cameras look, and which way is up
    assert float((told.origin - bus.origin()).norm()) < 0.1 and float(told.up @ bus.up()) > 0.9
    with pytest.raises(KaleidosceneError, match=r"shape \(2, 3, .*\) with 1 cameras: expected \(1, 3, h, w\)"):
        model.encode(images, cameras[:1])
    with pytest.raises(KaleidosceneError, match="the model renders"):
        model.encode(images[..., :-1], cameras)
    other = Model(Rae3dSystem(Rae3dRenderer(tiny_rae3d(), tiny_rae3d_settings())))
    with pytest.raises(KaleidosceneError, match="made by another model"):
        other.render(tokens, targets)
    with pytest.raises(KaleidosceneError, match="have no seed and no plan"):
        model.render(tokens, targets, seed=3)  # pyright: ignore[reportCallIssue, reportArgumentType]


def test_points_near_the_first_camera_are_background():
    network = tiny_rae3d()
    torch.nn.init.zeros_(network.points.head.out.weight)
    torch.nn.init.zeros_(network.points.head.out.bias)
    renderer = Rae3dRenderer(network, tiny_rae3d_settings())
    cameras = ring(3, SIZE, batch=(1,))
    scene = renderer.encode(torch.rand(1, 2, 3, *SIZE), cameras[:, :2])
    assert not renderer.render(scene, cameras[:, 2:], seeds=[0]).depths.any()
    network.points.head.out.bias.data[2] = 0.5
    assert renderer.render(scene, cameras[:, :1], seeds=[0]).depths.all()  # before the first camera


def test_the_background_is_pulled_to_the_first_camera(batch):
    losses, more = task().losses(batch, 3), task(background=0.5).losses(batch, 3)
    torch.testing.assert_close(more["loss"], losses["loss"] + 0.5 * more["background"])
    assert more["background"] > 0
    covered = replace(batch, depth=torch.ones_like(batch.depth))
    assert task(background=0.5).losses(covered, 3)["background"] == 0


def test_scenes_of_other_networks_do_not_fit():
    system = Rae3dSystem(Rae3dRenderer(tiny_rae3d(), tiny_rae3d_settings()))
    cameras = ring(3, SIZE, batch=(1,))
    scene = system.renderer.encode(torch.rand(1, 2, 3, *SIZE), cameras[:, :2])
    with pytest.raises(KaleidosceneError, match="no tokens yet"):
        system.pack(scene)
    packed = system.pack(system.renderer.expect(scene, cameras[:, 2:]))
    with pytest.raises(KaleidosceneError, match=r"tokens of \(6, 24\), the model has \(7, 24\)"):
        system.unpack(packed | {"tokens": packed["tokens"][:, 1:]})
    with pytest.raises(KaleidosceneError, match="has no 'scale'"):
        system.unpack({name: x for name, x in packed.items() if name != "scale"})


def test_the_papers_recipe_has_the_papers_numbers():
    recipe = rae3d_paper()
    optim, model = recipe.train.optim, recipe.settings.model
    assert (recipe.train.steps, optim.learning_rate, optim.warmup, optim.betas) == (120_000, 2e-4, 8000, (0.9, 0.95))
    assert (model.width, model.heads, model.tokens, model.neck_depth, model.decoder_depth) == (768, 16, 1024, 12, 16)
    assert (recipe.loss.noise, recipe.loss.points, recipe.loss.perceptual, model.decoder) == (0.8, 1.0, 1.0, "full")


def test_from_the_command_line_to_views_with_depth(tmp_path, shards, capsys):
    run, out = str(tmp_path / "run"), tmp_path / "out"
    train = ["train", "rae3d-debug", "--out", run, "--shards", str(shards), "--train.steps", "3"]
    assert main([*train, "--features", "x"]) == 1
    assert "trains its own encoder of images" in capsys.readouterr().err
    bare = ["--scenes.image-size", "32", "32", "--scenes.views", "4", "--scenes.scenes", "4"]
    assert main(["synthesize", str(tmp_path / "bare"), *bare]) == 0
    assert main([*train[:5], str(tmp_path / "bare")]) == 1
    assert "no depth is stored, from which the decoder of points learns" in capsys.readouterr().err
    assert main([*train, "--train.checkpoint-every", "1"]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 3 and all(record["points"] == record["points"] for record in records)
    bus = read_capture("examples/captures/school_bus")
    views = load(run).render(bus.select([0, 1]), cameras=bus.cameras[[5, 6]])
    assert views.images.shape == (2, 3, 32, 32) and views.depths is not None
    render = ["render", "examples/captures/school_bus", "--model", run, "--out", str(out), "--frames", "3", "--depth"]
    assert main(render) == 0
    assert (out / "depth" / "0002.png").exists() and (out / "video.mp4").exists()
    photos = write_photographs(tmp_path / "photos", 2)
    assert main(["render", str(photos), "--model", run, "--out", str(tmp_path / "no"), "--frames", "2"]) == 1
    assert "estimates cameras" in (said := capsys.readouterr().err) and "rng" in said


def test_the_papers_batches_have_about_as_many_tokens(capsys):
    """Every shape is in the paper's ranges, and each process has between half of the largest number and all of it."""
    buckets = token_budget_buckets()
    tokens, images = [], []
    for bucket in buckets:
        h, w = bucket.image_size
        assert h % 14 == w % 14 == 0 and 37_000 <= h * w <= 75_500 and 0.7 <= w / h <= 1.8
        scenes, rest = divmod(bucket.batch_size, 32)
        images.append(scenes * bucket.views)
        tokens.append(scenes * bucket.views * (h // 14) * (w // 14))
        assert not rest and 6 <= images[-1] <= 18
    assert {6, 18} <= set(images) and len({bucket.image_size for bucket in buckets}) > 8
    smallest = min(h * w // 14**2 for h, w in (bucket.image_size for bucket in buckets))
    assert max(tokens) == 18 * smallest and min(tokens) > 0.5 * max(tokens)
    assert main(["info", "rae3d-paper", "--training.processes", "32"]) == 0
    capsys.readouterr()
    assert main(["info", "rae3d-paper", "--training.processes", "7"]) == 1
    assert "must be a multiple of 7" in capsys.readouterr().err
