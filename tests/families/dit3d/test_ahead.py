"""Tokens that were made ahead train as those that are made in the loop."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.sampling import SINGLE
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.dit3d.ahead import NOTE, TokensAhead, write_tokens
from kaleidoscene.families.dit3d.task import Dit3dLoss, Dit3dTask
from kaleidoscene.families.rae3d.statistics import read_statistics
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.geometry.rays import plucker_rays
from tests.families.dit3d.tiny import tiny_autoencoder, tiny_dit3d, tiny_dit3d_settings, write_autoencoder
from tests.families.rae3d.tiny import SIZE

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[3] / "examples"
PLAIN = TokensAhead(draws=3, views=3, augmentation=Augmentation.none(), scenes_per_shard=5)


@pytest.fixture(scope="module")
def shards(scenes_with_depth):
    return scenes_with_depth


@pytest.fixture(scope="module")
def ahead(shards, tmp_path_factory):
    """The folder, and the autoencoder that made it."""
    folder = tmp_path_factory.mktemp("ahead")
    source = str(write_autoencoder(folder / "autoencoder"))
    list(write_tokens(source, tiny_autoencoder().renderer, shards, folder / "tokens", PLAIN))
    return folder / "tokens", source


def batch_of(folder, size=6, step=0):
    data = BatchConfig(
        batch_size=size, sampling=SINGLE, reference_dropout=0.0, augmentation=Augmentation.none(), image_size=SIZE
    )
    return ViewBatches(ShardFolder(folder), data)[step]


def made_task(**loss) -> Dit3dTask:
    task = Dit3dTask(tiny_dit3d_settings(), Dit3dLoss(**loss), tiny_autoencoder())
    task.model = tiny_dit3d()
    return task


def test_tokens_are_those_of_the_views(ahead, shards):
    """Of all views in the world of their first; which was first is found by its camera. Half precision is stored."""
    scenes, network = ShardFolder(shards), tiny_autoencoder().renderer.model
    for number in (0, 7):
        stored, whole = ShardFolder(ahead[0]).read(number), scenes.read(number)
        assert stored.key == whole.key and stored.rgba.shape == (3, 0, 0, 4)
        for draw in range(3):
            first = stored.cameras[draw].world_from_cam
            place = (whole.cameras.world_from_cam - first).abs().amax((1, 2)).argmin()
            assert torch.equal(whole.cameras.world_from_cam[place], first)
    # With as many views as there are, a draw is a permutation: only the first one matters to the tokens.
    config = replace(PLAIN, draws=1, views=scenes.fewest_views)
    out = ahead[0].parent / "whole"
    list(write_tokens(ahead[1], tiny_autoencoder().renderer, shards, out, config))
    stored = ShardFolder(out).read(2)
    views = ViewBatches(scenes, _whole(scenes.fewest_views))[0]
    place = views.ids.index(stored.key)
    order = _order(views.cameras[place], stored.cameras[0])
    images, cameras = views.images[place][order][None], views.cameras[place][order].reshape(1, len(order))
    rays = plucker_rays(RelativeWorld.of(cameras).enter(cameras).to(torch.float32))
    with torch.no_grad():
        for shown, tokens in ((True, stored.latents.data), (False, stored.latents.alone)):
            expected = network.encode(images, rays, torch.full((1, len(order)), shown))
            torch.testing.assert_close(torch.from_numpy(tokens), expected, rtol=0, atol=5e-3)


def _whole(views: int) -> BatchConfig:
    sampling = replace(SINGLE, views=views)
    return BatchConfig(
        batch_size=8, sampling=sampling, reference_dropout=0.0, augmentation=Augmentation.none(), image_size=SIZE
    )


def _order(cameras, first) -> list[int]:
    """Views with the one that stands where ``first`` does in front."""
    place = int((cameras.centres - first.centres).norm(dim=-1).argmin())
    return [place, *(number for number in range(len(cameras)) if number != place)]


def test_some_scenes_are_drawn_of_nothing(ahead):
    views, task = batch_of(ahead[0]), made_task(all_hidden=0.5)
    data, condition = task.data_and_condition(views, tuple(range(6)), 3)
    enter = task.autoencoder.statistics.enter
    whole, seen, alone = map(enter, views.tokens)
    assert torch.equal(data, whole) and torch.equal(task.poses_alone(views), alone)
    # The same scenes as in the loop, where what is hidden depends on the number of the scene alone.
    hidden = ~task.visible(tuple(range(6)), 10, 3).any(1)
    assert 0 < hidden.sum() < 6 and not torch.equal(seen, alone)
    assert torch.equal(condition, torch.where(hidden[:, None, None], alone, seen))
    losses = task.losses(views, 3)["loss"]
    losses.backward()
    assert losses.isfinite() and all(p.grad is not None for p in task.model.parameters())


def test_draws_differ_and_a_run_meets_all_of_them(ahead):
    stored = ShardFolder(ahead[0]).read(1).latents
    assert len({x.tobytes() for x in stored.data}) == len({x.tobytes() for x in stored.seen}) == 3
    key, met = ShardFolder(ahead[0]).key(1), set()
    for step in range(40):
        views = batch_of(ahead[0], 8, step)
        if key in views.ids:
            met.add(views.tokens[0][views.ids.index(key)].numpy().tobytes())
    assert met == {x.tobytes() for x in stored.data}


def test_an_interrupted_conversion_goes_on_and_refuses_other_options(ahead, shards, tmp_path):
    renderer, out = tiny_autoencoder().renderer, tmp_path / "tokens"
    next(write_tokens(ahead[1], renderer, shards, out, PLAIN))
    kept = (out / "shard-000000.tar").stat().st_mtime_ns
    assert list(write_tokens(ahead[1], renderer, shards, out, PLAIN))[-1] == (8, 8)
    assert (out / "shard-000000.tar").stat().st_mtime_ns == kept
    for number in range(8):
        ours, theirs = (ShardFolder(folder).read(number) for folder in (out, ahead[0]))
        assert ours.key == theirs.key
        torch.testing.assert_close(*map(torch.from_numpy, (ours.latents.seen, theirs.latents.seen)), rtol=0, atol=4e-3)
    with pytest.raises(KaleidosceneError, match="begun with other shards or options"):
        next(write_tokens(ahead[1], renderer, shards, out, replace(PLAIN, seed=1)))
    with pytest.raises(KaleidosceneError, match="a draw takes 99"):
        next(write_tokens(ahead[1], renderer, shards, tmp_path / "no", replace(PLAIN, views=99)))
    with pytest.raises(KaleidosceneError, match="has no images with cameras"):
        next(write_tokens(ahead[1], renderer, ahead[0], tmp_path / "no", replace(PLAIN, views=1)))


def test_from_the_command_line(shards, tmp_path, monkeypatch, capsys):
    first, tokens, run = (str(tmp_path / name) for name in ("rae", "tokens", "run"))
    few = ["--train.steps", "2", "--train.checkpoint-every", "1"]
    assert main(["train", "rae3d-debug", "--out", first, "--shards", str(shards), *few]) == 0
    for name, more in (
        ("09_token_statistics", [first, str(shards), "--batches", "2"]),
        ("10_tokens_ahead", [first, str(shards), tokens, "--draws", "2", "--views", "3"]),
    ):
        monkeypatch.setattr("sys.argv", [name, *more])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert json.loads((tmp_path / "tokens" / NOTE).read_text())["draws"] == 2
    train = ["train", "dit3d-debug", "--autoencoder", first, "--out", run, *few, "--shards", tokens]
    capsys.readouterr()
    assert main(train) == 1 and "give --tokens-ahead" in capsys.readouterr().err
    refused = {
        "views were drawn, augmented and hidden": ["--tokens-ahead", "--data.sampling.views", "2"],
        "leave out --data.sampling": ["--tokens-ahead", "--loss.hidden-share", "0.1", "0.2"],
        "views, and no tokens": ["--tokens-ahead", "--shards", str(shards)],
    }
    for said, more in refused.items():
        assert main([*train, *more]) == 1 and said in capsys.readouterr().err, said
    blind = ["train", "dit3d-debug", "--autoencoder", first, "--out", run, "--tokens-ahead", *few]
    assert main(blind) == 1 and "give --shards with tokens" in capsys.readouterr().err
    assert main([*train, "--tokens-ahead"]) == 0
    other = str(tmp_path / "other")
    assert main(["train", "rae3d-debug", "--out", other, "--shards", str(shards), *few, "--train.seed", "9"]) == 0
    read_statistics(resolve(first), (12, 24)).save(resolve(other))
    assert main([*train, "--tokens-ahead", "--autoencoder", other, "--out", str(tmp_path / "no")]) == 1
    assert "tokens of another autoencoder" in capsys.readouterr().err
    for recipe, said in (("rae3d-debug", "this recipe takes views"), ("kaleido-debug", "recipes of dit3d alone")):
        assert (
            main(
                ["train", recipe, "--shards", tokens, "--out", str(tmp_path / "no"), "--data.sampling.views", "2", *few]
            )
            == 1
        )
        assert said in capsys.readouterr().err
