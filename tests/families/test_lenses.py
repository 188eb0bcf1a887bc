"""A Kaleido of many lenses: nothing is padded, paths may zoom, and what it was not trained with is said."""

import json
from dataclasses import replace

import pytest
import torch

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.checkpoint import save_model
from kaleidoscene.families.kaleido.config import EncodingConfig
from kaleidoscene.families.kaleido.recipes import RECIPES
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.training.run import RunOptions
from kaleidoscene.workflows.doubts import angles_of_longer_side, lens_doubts
from kaleidoscene.workflows.training import train
from tests import own_captures
from tests.conftest import CAUSAL, ring, tiny_renderer
from tests.families.test_recipes import scenes, tiny

pytestmark = pytest.mark.slow

LENSES = (30.0, 80.0)


def many_lenses() -> KaleidoRenderer:
    renderer = tiny_renderer(**CAUSAL, encoding=EncodingConfig(lens="projective"), camera_ray_bands=2)
    settings = replace(renderer.settings, lenses=LENSES)
    return KaleidoRenderer(renderer.model, settings, renderer.parts.codec)


@pytest.fixture
def weights(tmp_path):
    renderer = many_lenses()
    save_model(tmp_path / "weights", renderer.settings, dict(renderer.model.named_parameters()))
    return str(tmp_path / "weights")


def zoomed(cameras: Cameras, factor: float) -> Cameras:
    intrinsics = cameras.intrinsics.clone()
    intrinsics[..., :2, :2] *= factor
    return replace(cameras, intrinsics=intrinsics)


def test_views_keep_their_lens_and_nothing_is_padded(weights, tmp_path):
    truth = own_captures.nerfstudio(tmp_path / "capture")
    model, capture = load(weights), read_capture(tmp_path / "capture")
    images, cameras = model.prepare(capture)
    whole = angles_of_longer_side(capture.cameras)
    torch.testing.assert_close(angles_of_longer_side(cameras), whole, rtol=2e-2, atol=0)  # cut to the aspect ratio
    assert model.describe_fit(capture) == [] and len(images) == len(truth)
    fixed = tiny_renderer(**CAUSAL)
    save_model(tmp_path / "fixed", fixed.settings, dict(fixed.model.named_parameters()))
    assert load(str(tmp_path / "fixed")).describe_fit(capture), "one lens: something is cut off or left white"


def test_the_lens_of_references_and_of_targets_matters():
    renderer, cameras = many_lenses(), ring(4, batch=(1,))
    images = torch.rand(1, 2, 3, 16, 24, generator=torch.Generator().manual_seed(2))
    target, sharp = cameras[:, 2:], zoomed(cameras[:, 2:], 1.6)

    def rendered(references: Cameras, targets: Cameras) -> torch.Tensor:
        return renderer.render(renderer.encode(images, references), targets, seeds=[1, 2]).images

    before = rendered(cameras[:, :2], target)
    assert (rendered(cameras[:, :2], sharp) - before).abs().max() > 1e-3
    assert (rendered(zoomed(cameras[:, :2], 1.6), target) - before).abs().max() > 1e-3


def test_a_dolly_zoom_is_rendered_and_written_with_its_lenses(weights, tmp_path, capsys):
    own_captures.nerfstudio(tmp_path / "capture")
    command = [
        "render",
        str(tmp_path / "capture"),
        "--references",
        "0,1",
        "--trajectory",
        "dolly-zoom",
        "--frames",
        "4",
    ]
    assert main([*command, "--model", weights, "--out", str(tmp_path / "out")]) == 0
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    focal = [frame["fl_x"] for frame in frames]
    assert focal == sorted(focal, reverse=focal[0] > focal[-1]) and max(focal) > 1.5 * min(focal)
    assert main([*command, "--out", str(tmp_path / "refused")]) == 1
    assert "The focal length changes along the camera path" in capsys.readouterr().err
    assert not (tmp_path / "refused").exists()


def test_lenses_that_it_was_not_trained_with_are_named(weights):
    model, cameras = load(weights), ring(3)
    angle = float(angles_of_longer_side(cameras)[0])
    assert lens_doubts(model, cameras) == [] and LENSES[0] < angle < LENSES[1]
    (doubt,) = lens_doubts(model, cameras, zoomed(cameras, 4.0))
    assert f"{float(angles_of_longer_side(zoomed(cameras, 4.0))[0]):.0f} to {angle:.0f} degrees" in doubt
    assert "trained with lenses of 30 to 80" in doubt
    assert "trained with lenses of 49" in lens_doubts(load("rng"), zoomed(cameras, 0.3))[0]
    assert lens_doubts(load("default"), zoomed(cameras, 4.0)) == [], "it has one lens: its views are cropped to it"


def test_a_recipe_of_many_lenses_takes_shards_of_those_alone(tmp_path):
    write_shard(tmp_path / "scenes" / "shard-000000.tar", [scenes(n, size=(8, 8)) for n in range(6)])
    recipe = tiny(RECIPES["kaleido-nano-3d"](), image_size=(8, 8))
    options = RunOptions(out=tmp_path / "within", shards=(str(tmp_path / "scenes"),))
    angle = recipe.settings.field_of_view
    known = replace(recipe, settings=replace(recipe.settings, lenses=(angle - 9, angle + 9)))
    trained = load(str(train(known, options).checkpoint))
    assert trained.system.lenses == (angle - 9, angle + 9) and trained.capabilities.any_lens
    wide = replace(recipe.settings, lenses=(angle + 20, angle + 30), field_of_view=angle + 25)
    with pytest.raises(KaleidosceneError, match="the recipe has lenses of"):
        train(replace(recipe, settings=wide), replace(options, out=tmp_path / "beside"))


def test_one_angle_is_not_asked_of_a_recipe_of_many(tmp_path, capsys):
    shards = ["--shards", str(tmp_path), "--field-of-view", "60"]
    assert main(["train", "kaleido-nano-places", "--out", str(tmp_path / "run"), *shards]) == 1
    assert "--field-of-view: this recipe has lenses of many angles" in capsys.readouterr().err


@pytest.mark.parametrize("lenses", [(60.0, 40.0), (0.0, 60.0), (50.0, 60.0), (20.0, 180.0)])
def test_impossible_lenses_are_refused(lenses):
    with pytest.raises(ValueError, match="lenses must be two angles with field_of_view between them"):
        replace(many_lenses().settings, lenses=lenses)
