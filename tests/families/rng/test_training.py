"""Training and rendering of RnG: its task, what it refuses, and a run from the command line to new views."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.loss import RngLoss
from kaleidoscene.families.rng.recipes import RECIPES, rng_debug, rng_objaverse_40k
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.families.rng.task import RngTask
from kaleidoscene.families.rng.world import first_pose
from kaleidoscene.geometry.poses import random_rotation, rigid
from kaleidoscene.geometry.rays import project
from tests.encoders.test_vgg19 import write_mat
from tests.families.rng.test_world import moved, random_cameras
from tests.families.rng.tiny import fresh_network, tiny_network, tiny_settings
from tests.training.processes import together

SIZE = (16, 24)


@pytest.fixture(scope="module")
def shards(scenes_with_depth):
    return scenes_with_depth


@pytest.fixture
def batch(shards) -> Views:
    data = replace(
        rng_debug().data, image_size=SIZE, batch_size=4, sampling=replace(rng_debug().data.sampling, views=5)
    )
    return ViewBatches(ShardFolder(shards), data)[1]


def task(**loss) -> RngTask:
    made = RngTask(tiny_settings(), RngLoss(**loss))
    made.model = fresh_network()
    return made


def test_losses_are_finite_and_reach_every_weight(batch):
    made = task()
    losses = made.losses(batch, 0)
    assert losses.keys() == {"loss", "image", "points", "cameras"}
    total = losses["image"] + 0.2 * losses["points"] + losses["cameras"]
    torch.testing.assert_close(losses["loss"].detach(), total)
    losses["loss"].backward()
    still = [name for name, p in made.model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    assert made.weight(batch) == 4 * (batch.images.shape[1] - batch.num_references)


def test_the_loss_does_not_depend_on_the_given_world(batch):
    """Units and axes of a scene are gone before the network sees anything."""
    made = task()
    cameras = batch.cameras.to(torch.float64)
    turn = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]]).double()
    poses = cameras.world_from_cam.clone()
    poses[..., :3, :3] = turn @ poses[..., :3, :3]
    poses[..., :3, 3] = 5 * poses[..., :3, 3] @ turn.mT
    moved = replace(batch, cameras=replace(cameras, world_from_cam=poses), depth=5 * batch.depth)
    ours, theirs = made.losses(batch, 0), made.losses(moved, 0)
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=1e-4, atol=1e-5)


def test_cutting_a_batch_changes_nothing(batch):
    """Every scene's draw comes from its place in the run."""
    made = task(repeated=0.5)
    parts = [made._truth(_scene(batch, number), 7) for number in range(4)]
    whole = made._truth(batch, 7)
    for name in ("images", "points"):
        torch.testing.assert_close(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_the_loss_does_not_depend_on_how_a_batch_is_cut(batch):
    for start in (0, 99):  # views of the foreground alone, and of all
        made = task(foreground_steps=start)
        whole = made.losses(batch, 7)["loss"]
        parts = [made.losses(_scene(batch, number), 7)["loss"] for number in range(4)]
        torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-5, atol=1e-6)


def _scene(batch: Views, number: int) -> Views:
    own = slice(number, number + 1)
    return replace(
        batch, images=batch.images[own], cameras=batch.cameras[own], is_video=batch.is_video[own], ids=(),
        depth=batch.depth[own], mask=None, numbers=batch.numbers[own],
    )  # fmt: skip


def test_targets_may_be_sources(batch):
    n = batch.num_references
    never, always = (task(repeated=share)._truth(batch, 0) for share in (0.0, 1.0))
    assert torch.equal(never.images, batch.images[:, n:])
    sources = batch.images[:, :n]
    for scene, images in enumerate(always.images):
        assert all(any(torch.equal(image, source) for source in sources[scene]) for image in images)


def test_points_are_where_the_cameras_see_them(batch):
    """Projected into their own view, they fall on their pixels."""
    truth = task(repeated=0.0)._truth(batch, 0)
    flat = truth.points.flatten(2, 3)
    pixels, depth = project(truth.targets.to(flat), flat)
    inside = truth.foreground.flatten(2)
    y, x = torch.meshgrid(torch.arange(16) + 0.5, torch.arange(24) + 0.5, indexing="ij")
    there = torch.stack([x, y], -1).reshape(1, 1, -1, 2).expand_as(pixels)
    torch.testing.assert_close(pixels[inside], there[inside], rtol=0, atol=1e-3)
    assert (depth[inside] > 0).all() and (truth.points[~truth.foreground] == 0).all()


def test_what_it_cannot_learn_from_is_refused(batch):
    made = task()
    for changed, said in (
        (replace(batch, depth=None), "scenes with depth"),
        (replace(batch, num_references=0), "no targets without sources"),
        (replace(batch, present=torch.ones(batch.images.shape[:2], dtype=torch.bool)), "masking must be drop or none"),
    ):
        with pytest.raises(KaleidosceneError, match=said):
            made.losses(changed, 0)


def test_rendering_follows_the_given_world():
    """Turned and enlarged cameras: the same images, points turned and enlarged; chunks change nothing."""
    renderer = RngRenderer(tiny_network().double(), tiny_settings())
    cameras = random_cameras(batch=1, views=5)
    cameras = cameras.resize(*SIZE)
    rotation = random_rotation(generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turn = rigid(rotation, torch.zeros(3).double())
    images = torch.rand(1, 2, 3, *SIZE, dtype=torch.float64)
    found = []
    for given in (cameras, moved(cameras, turn, 3.0)):
        scene = renderer.encode(images, given[:, :2])
        assert scene.estimated is not None and scene.cameras is not None
        found.append((renderer.render(scene, given[:, 2:], seeds=[0, 1, 2]), scene))
    (ours, scene), (theirs, other) = found
    torch.testing.assert_close(theirs.images, ours.images, rtol=0, atol=1e-9)
    torch.testing.assert_close(theirs.depths, 3 * ours.depths, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(theirs.points, 3 * ours.points @ turn[:3, :3].mT, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(other.estimated.centres, 3 * scene.estimated.centres @ turn[:3, :3].mT)
    # The first of the estimated cameras stands where the given one stands.
    torch.testing.assert_close(scene.estimated.world_from_cam[:, 0], cameras.world_from_cam[:, 0])
    one = renderer.render(scene, cameras[:, 3:4], seeds=[0])
    torch.testing.assert_close(one.images[:, 0], ours.images[:, 1])


@pytest.mark.parametrize("name", [name for name in RECIPES if "objaverse" not in name])
def test_recipes_train_what_they_say(name):
    recipe = RECIPES[name]()
    assert recipe.make_task("cpu").settings == recipe.settings and recipe.batches.image_size is not None
    assert recipe.train.steps > 0 and recipe.data.depth
    model = recipe.settings.model
    assert (model.attention == "full") is ("full-attention" in name) and (model.camera is None) is ("no-camera" in name)


def test_the_papers_recipe_has_the_papers_numbers():
    """Method B.3, B.7 and B.8."""
    recipe = rng_objaverse_40k()
    model, optim = recipe.settings.model, recipe.train.optim
    assert (model.width, model.depth, model.heads, model.patch_size, model.registers) == (1024, 24, 16, 8, 4)
    assert (recipe.train.steps, recipe.data.batch_size, optim.learning_rate, optim.warmup) == (40_000, 96, 6e-4, 3000)
    assert (optim.weight_decay, optim.betas, optim.fall, recipe.settings.image_size) == (
        0.05, (0.9, 0.95), "cosine", (256, 256),
    )  # fmt: skip
    sampling = recipe.data.sampling
    assert (sampling.views - (sampling.max_targets or 0), sampling.max_targets, sampling.masking) == (6, 3, "none")
    short = RECIPES["rng-objaverse-15k"]().train
    assert short.optim.factor(short.optim.warmup, short.steps) == 1  # it falls from where the rise ends
    assert short.optim.factor(7500, short.steps) == pytest.approx(0.691, abs=1e-3)
    assert (recipe.loss.points, recipe.loss.cameras, recipe.loss.foreground_steps) == (0.2, 1.0, 10_000)


def test_from_the_command_line_to_new_views_of_photographs(tmp_path, shards, capsys):
    """Trained, and views of images without cameras: no pose step in between."""
    run = str(tmp_path / "run")
    scenes = ["--scenes.image-size", "32", "32", "--scenes.views", "5", "--scenes.scenes", "8"]
    assert main(["synthesize", str(tmp_path / "bare"), *scenes]) == 0
    train = ["train", "rng-debug", "--out", run, "--train.steps", "3"]
    assert main([*train, "--shards", str(tmp_path / "bare")]) == 1
    assert "no depth is stored, which RnG learns from" in capsys.readouterr().err
    assert main([*train, "--features", "x"]) == 1
    assert "trains its own encoder" in capsys.readouterr().err
    assert main(["synthesize", str(tmp_path / "deep"), *scenes, "--scenes.depth"]) == 0
    assert main([*train, "--shards", str(tmp_path / "deep"), "--train.checkpoint-every", "1"]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(records) == 3 and all(record["cameras"] > 0 and record["points"] > 0 for record in records)
    photos = tmp_path / "photos"
    photos.mkdir()
    scene = ShardFolder(tmp_path / "deep").read(0)
    for number in range(3):
        Image.fromarray(scene.rgba[number, ..., :3]).resize((48, 40)).save(photos / f"{number}.png")
    capsys.readouterr()
    out = tmp_path / "out"
    render = ["render", str(photos), "--model", run, "--out", str(out), "--trajectory", "orbit", "--frames", "3"]
    assert main([*render, "--num-references", "2"]) == 0
    assert "rng estimates them" in capsys.readouterr().out
    # Photographs that are no references have no say: the same film without them.
    some, film = tmp_path / "some", ["--trajectory", "orbit", "--frames", "3", "--model", run]
    some.mkdir()
    for number in (1, 2):
        (some / f"{number}.png").write_bytes((photos / f"{number}.png").read_bytes())
    chosen = ["render", str(photos), *film, "--references", "1,2", "--out", str(tmp_path / "chosen")]
    assert main(chosen) == 0 and "3 views, 2 as references (1, 2)" in capsys.readouterr().out
    assert main(["render", str(some), *film, "--references", "0,1", "--out", str(tmp_path / "alone")]) == 0
    names = sorted(path.name for path in (tmp_path / "chosen" / "frames").iterdir())
    assert len(names) == 3
    for name in names:
        both = [(tmp_path / folder / "frames" / name).read_bytes() for folder in ("chosen", "alone")]
        assert both[0] == both[1]
    assert main(["render", str(photos), *film, "--select", "kmeans", "--out", str(tmp_path / "no")]) == 1
    assert "has no cameras to choose by" in capsys.readouterr().err
    posed = load(run).estimate_cameras(read_capture(photos))
    assert posed.origin().equal(torch.zeros(3)) and posed.up().norm() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(posed.cameras.world_from_cam[0].float(), first_pose(torch.zeros(())))
    assert (out / "video.mp4").exists() and json.loads((out / "transforms.json").read_text())["frames"]


@pytest.mark.slow
def test_two_processes_follow_the_losses_of_one(tmp_path, shards):
    """Weights in pieces and activations recomputed: the same losses and norms of gradients, beyond rounding."""
    arguments = [
        "train", "rng-debug", "--shards", str(shards), "--train.steps", "4",
        "--train.log-every", "1",
    ]  # fmt: skip
    assert main([*arguments, "--out", str(tmp_path / "one")]) == 0
    more = ["--out", str(tmp_path / "two"), "--train.sharding", "fsdp", "--train.activation-checkpointing"]
    done = together(2, ["-m", "kaleidoscene", *arguments, *more])
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr
    found = []
    for name in ("one", "two"):
        records = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        found.append([(record["loss"], record["gradient_norm"]) for record in records])
    assert len(found[0]) == 4
    for (loss, norm), (other_loss, other_norm) in zip(*found, strict=True):
        assert other_loss == pytest.approx(loss, rel=1e-4)
        # Sums in another order; the norm is that of the few numbers that convolutions on 4 tokens make large.
        assert other_norm == pytest.approx(norm, rel=1e-3)


def test_the_perceptual_term_is_added_where_its_weights_are(batch, tmp_path):
    write_mat(tmp_path / "vgg.mat")
    plain, distance = task(), PerceptualDistance.read(tmp_path / "vgg.mat")
    for words, given in (({"perceptual": 0.5}, None), ({}, distance)):
        with pytest.raises(KaleidosceneError, match="The perceptual loss and its weights come together"):
            RngTask(plain.settings, RngLoss(**words), None, given)
    recipe = replace(rng_debug(), perceptual_weights=tmp_path / "vgg.mat")
    assert recipe.changed(recipe.options) == recipe
    seen = RngTask(plain.settings, replace(plain.loss, perceptual=0.5), None, distance)
    seen.model = plain.model
    without, with_it = plain.losses(batch, 3), seen.losses(batch, 3)
    assert with_it["perceptual"] > 0
    torch.testing.assert_close(with_it["loss"], without["loss"] + 0.5 * with_it["perceptual"])
    with_it["loss"].backward()
    assert all(p.grad is None for p in distance.parameters())


def test_geometry_stays_exact_under_autocast(batch):
    """Truth is the same, and losses differ by the rounding of the network alone."""
    made = task()
    exact = made._truth(batch, 3)
    plain = made.losses(batch, 3)
    with torch.autocast("cpu", torch.bfloat16):
        low = made.losses(batch, 3)
    for name in ("loss", "points", "cameras"):
        assert low[name].item() == pytest.approx(plain[name].item(), rel=0.03)
    assert exact.points.dtype == torch.float32
