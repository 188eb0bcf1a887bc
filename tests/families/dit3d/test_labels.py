"""The first stage of 3DDiT: single pictures with the labels of their classes, from folders to the run after it."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from kaleidoscene.api import load
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import Source, ViewBatches
from kaleidoscene.datasets.sampling import SINGLE
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.dit3d.plan import Dit3dPlan
from kaleidoscene.families.dit3d.recipes import dit3d_s_images, dit3d_s_views
from kaleidoscene.families.dit3d.task import Dit3dLoss, Dit3dTask
from tests.conftest import ring
from tests.families.dit3d.tiny import tiny_autoencoder, tiny_dit3d, tiny_dit3d_settings, tiny_renderer
from tests.families.rae3d.tiny import SIZE

pytestmark = pytest.mark.slow
EXAMPLE = Path(__file__).parents[3] / "examples" / "09_token_statistics.py"
COUNTS = {"n02", "n10", "n33"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Three classes of two, three and four pictures of different sizes, as JPEG and PNG."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    for place, name in enumerate(sorted(COUNTS)):
        (folder / name).mkdir()
        for number in range(2 + place):
            pixels = draw.integers(0, 255, (40 + 7 * number, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{number}.{'png' if number else 'JPEG'}")
    return folder


@pytest.fixture(scope="module")
def labelled(pictures, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("labelled") / "shards"
    convert = ["convert", str(pictures), str(out), "--to", "shards", "--format", "classes"]
    assert main([*convert, "--shards.image-size", "32", "48"]) == 0
    return out


def batch_of(folder: Path, size: int = 9):
    data = BatchConfig(
        batch_size=size, sampling=SINGLE, reference_dropout=0.0, augmentation=Augmentation.none(), image_size=SIZE
    )
    return ViewBatches(ShardFolder(folder), data)[0]


def task(**loss) -> Dit3dTask:
    made = Dit3dTask(tiny_dit3d_settings(classes=3), Dit3dLoss(**loss), tiny_autoencoder())
    made.model = tiny_dit3d(classes=3)
    return made


def test_labels_are_the_places_of_the_folders(labelled):
    assert json.loads((labelled / "classes.json").read_text()) == sorted(COUNTS)
    views = batch_of(labelled)
    assert views.images.shape == (9, 1, 3, *SIZE) and views.num_references == 0
    expected = [sorted(COUNTS).index(key.split("-")[0]) for key in views.ids]
    assert views.labels.tolist() == expected and sorted(expected) == [0] * 2 + [1] * 3 + [2] * 4
    assert torch.equal(views.cameras.world_from_cam, torch.eye(4).expand(9, 1, 4, 4))


def test_lenses_are_guessed_or_told(pictures, tmp_path):
    """A picture of 60 x 40 cut to 3:2 keeps its width; nothing tells its lens, or a table does."""
    source = tmp_path / "pictures"
    (source / "a").mkdir(parents=True)
    Image.new("RGB", (60, 40)).save(source / "a" / "x.png")
    Image.new("RGB", (60, 40)).save(source / "a" / "y.png")
    (source / "a" / "lenses.json").write_text(json.dumps({"y.png": 90}))
    convert = ["convert", str(source), str(tmp_path / "out"), "--to", "shards", "--format", "classes"]
    options = ["--shards.image-size", "32", "48"]
    assert main([*convert, *options]) == 0
    folder = ShardFolder(tmp_path / "out")
    focals = {folder.key(n): float(folder.read(n).cameras.intrinsics[0, 0, 0]) for n in range(2)}
    assert focals["a-x_png"] == pytest.approx(1.2 * 48) and focals["a-y_png"] == pytest.approx(24)


def test_what_is_no_folder_of_classes_is_refused(pictures, tmp_path, capsys):
    def said(source) -> str:
        convert = ["convert", str(source), str(tmp_path / "none"), "--to", "shards", "--format", "classes"]
        assert main(convert) == 1 and not (tmp_path / "none").exists()
        return capsys.readouterr().err

    assert "a folder with a folder for each class" in said(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "no folders of classes here" in said(tmp_path / "empty")
    (tmp_path / "empty" / "a").mkdir()
    assert "no pictures of this class" in said(tmp_path / "empty")
    assert "lies beside the folders of classes" in said(_with(tmp_path / "beside", "x.png"))
    torn = _with(tmp_path / "torn", "a/x.png")
    (torn / "a" / "x.heic").write_bytes(b"")
    assert "x.heic: is no picture of a kind that is read here" in said(torn)


def test_damaged_shares_and_fields_of_view_are_for_captures(pictures, tmp_path, capsys):
    convert = ["convert", str(pictures), str(tmp_path / "no"), "--to", "shards", "--format", "classes"]
    for option, said in (
        (["--shards.damaged-share", "0.1"], "a picture that does not read stops the work"),
        (["--shards.field-of-view", "60"], "pictures keep their lens"),
        (["--shards.least-views", "2"], "pictures are scenes of one view"),
    ):
        assert main([*convert, *option]) == 1 and not (tmp_path / "no").exists()
        assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ('{"x.png": 190}', "190 degrees across, expected 1 to 175"),
        ('{"z.png": 50}', "names z.png, which is not there"),
        ("[50]", "not a table of degrees"),
    ],
)
def test_a_wrong_table_of_lenses_is_refused(tmp_path, capsys, table, said):
    source = _with(tmp_path / "torn", "a/x.png")
    (source / "a" / "lenses.json").write_text(table)
    assert main(["convert", str(source), str(tmp_path / "out"), "--to", "shards", "--format", "classes"]) == 1
    assert said in capsys.readouterr().err and not list((tmp_path / "out").glob("*.tar*"))


def test_another_table_of_lenses_is_not_gone_on_with(tmp_path, capsys):
    source = _with(tmp_path / "pictures", "a/x.png")
    convert = ["convert", str(source), str(tmp_path / "out"), "--to", "shards", "--format", "classes"]
    assert main(convert) == 0
    (source / "a" / "lenses.json").write_text('{"x.png": 90}')
    assert main(convert) == 1 and "begun with another sources" in capsys.readouterr().err


def _with(folder: Path, name: str) -> Path:
    (folder / name).parent.mkdir(parents=True)
    (folder / "a").mkdir(exist_ok=True)
    Image.new("RGB", (9, 8)).save(folder / name)
    return folder


def test_a_torn_picture_is_named(pictures, tmp_path, capsys):
    source = _with(tmp_path / "torn", "a/x.png")
    (source / "a" / "x.png").write_bytes(b"no picture")
    convert = ["convert", str(source), str(tmp_path / "out"), "--to", "shards", "--format", "classes"]
    assert main(convert) == 1
    assert "x.png: cannot be read as a picture" in capsys.readouterr().err


def test_labels_reach_the_network_and_some_are_left_out(labelled):
    views = batch_of(labelled)
    losses = task().losses(views, 3)["loss"]
    other = replace(views, labels=(views.labels + 1) % 3)
    assert not torch.equal(task().losses(other, 3)["loss"], losses)
    nameless = task(label_dropout=1.0)
    assert torch.equal(nameless.losses(other, 3)["loss"], nameless.losses(views, 3)["loss"])
    many = replace(views, labels=torch.zeros(9, dtype=torch.long))
    drawn = torch.stack([task().labels(many, tuple(range(9 * n, 9 * n + 9)), 0) for n in range(300)])
    assert float((drawn == 3).float().mean()) == pytest.approx(0.1, abs=0.02) and set(drawn.flatten().tolist()) == {
        0,
        3,
    }
    # A scene is treated alike in any batch.
    assert torch.equal(task().labels(many, tuple(range(5, 14)), 0)[:4], task().labels(many, tuple(range(9)), 0)[5:])


def test_labels_that_do_not_fit_are_refused(labelled, scenes_with_depth):
    views = batch_of(labelled)
    with pytest.raises(KaleidosceneError, match="Labels run from 0 to 3, the network has 3 classes"):
        task().losses(replace(views, labels=views.labels + 1 * (views.labels == 2)), 3)
    with pytest.raises(KaleidosceneError, match="learns from scenes with labels"):
        task().losses(replace(views, labels=None), 3)
    sources = [Source(ShardFolder(folder)) for folder in (labelled, scenes_with_depth)]
    data = BatchConfig(
        batch_size=12, sampling=SINGLE, reference_dropout=0.0, augmentation=Augmentation.none(), image_size=SIZE
    )
    with pytest.raises(KaleidosceneError, match="labels and without cannot be mixed"):
        ViewBatches(sources, data)[0]
    with pytest.raises(ValueError, match="label_dropout is a share"):
        Dit3dLoss(label_dropout=1.5)


def test_an_object_of_a_class_is_drawn_with_guidance():
    """Guidance 0 is the field without a label, 1 that of the label; both lie on the line that 2 prolongs."""
    network, cameras = tiny_dit3d(classes=3), ring(2, SIZE, batch=(1,))

    def tokens(label, guidance):
        renderer = tiny_renderer(network, classes=3, steps=1, guidance=guidance)
        scene = renderer.imagine(cameras, label)
        renderer.render(scene, cameras, seeds=[0, 1])
        return next(iter(scene.drawn.values())).tokens

    alone, named, more = tokens(1, 0.0), tokens(1, 1.0), tokens(1, 2.0)
    torch.testing.assert_close(tokens(None, 2.0), alone)
    assert not torch.allclose(named, alone, atol=1e-3) and not torch.allclose(tokens(2, 1.0), named, atol=1e-3)
    torch.testing.assert_close(more, 2 * named - alone, rtol=1e-3, atol=1e-3)
    renderer = tiny_renderer(network, classes=3)
    with pytest.raises(KaleidosceneError, match="Class labels run from 0 to 2, got 3"):
        renderer.imagine(cameras, 3)
    with pytest.raises(KaleidosceneError, match="not trained with class labels"):
        tiny_renderer().imagine(cameras, 0)


def test_a_scene_of_a_class_grows_by_what_was_rendered_of_it():
    cameras = ring(3, SIZE, batch=(1,))
    renderer = tiny_renderer(classes=3, steps=2, guidance=2.0)
    scene, found = renderer.imagine(cameras, 1), []
    for images in (torch.zeros(1, 1, 3, *SIZE), torch.rand(1, 1, 3, *SIZE)):
        grown = renderer.extend(scene, images, cameras[:, :1], keep=[])
        renderer.render(grown, cameras, seeds=[0, 1, 2])
        found.append(next(iter(grown.drawn.values())).tokens)
    assert not torch.allclose(*found, atol=1e-3)
    once, twice = (Dit3dPlan(tiny_dit3d_settings(classes=n)).cost(0, 4).flops for n in (0, 3))
    assert twice == 2 * once


def test_the_papers_first_stage():
    recipe, views = dit3d_s_images(), dit3d_s_views()
    assert recipe.settings.model.classes == 1000 and views.settings.model.classes == 0
    assert (recipe.train, recipe.loss.label_dropout, recipe.loss.all_hidden) == (views.train, 0.1, 1.0)
    assert replace(recipe.settings.model, classes=0) == views.settings.model


def test_the_second_stage_goes_on_from_the_first_without_its_labels(labelled, scenes_with_depth, tmp_path, monkeypatch):
    first, second, last = (str(tmp_path / name) for name in ("rae", "pictures", "views"))
    few = ["--train.steps", "2", "--train.checkpoint-every", "1"]
    scenes = ["--shards", str(scenes_with_depth), *few]
    assert main(["train", "rae3d-debug", "--out", first, *scenes]) == 0
    monkeypatch.setattr("sys.argv", [str(EXAMPLE), first, str(scenes_with_depth), "--batches", "2"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    train = ["train", "dit3d-debug", "--autoencoder", first]
    stage = ["--classes", "3", "--data.sampling.views", "1", "--data.sampling.kind", "fixed", "--loss.all-hidden", "1"]
    assert (
        main([*train, "--out", second, "--shards", str(labelled), *few, *stage, "--data.image-size", "32", "32"]) == 0
    )
    model = load(second)
    assert model.system.renderer.model.labels.weight.shape == (4, 24)
    out = tmp_path / "drawn"
    generate = ["generate", "--model", second, "--samples", "1", "--frames", "3", "--steps", "2", "--out", str(out)]
    assert main([*generate, "--label", "2"]) == 0 and (out / "sample-01" / "video.mp4").exists()
    assert main([*generate, "--label", "3", "--overwrite"]) == 1
    assert main([*train, "--out", last, *scenes, "--init", second]) == 0
    assert load(last).system.renderer.model.labels is None
    assert isinstance(load(last).system.renderer.model.embed, nn.Linear)
