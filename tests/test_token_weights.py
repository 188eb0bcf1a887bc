"""The weights of 3DRAE and 3DDiT in the package: small, described, and what little they can."""

import json

import pytest
import torch

import kaleidoscene
from kaleidoscene.cli.main import main
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.protocols import nearest_reference
from kaleidoscene.images.files import read_image
from tests.conftest import REPOSITORY, check_shipped

pytestmark = pytest.mark.slow

BUS = REPOSITORY / "examples" / "captures" / "school_bus"


@pytest.mark.parametrize("name", ["rae3d", "dit3d"])
def test_they_are_small_and_described(name):
    check_shipped(name, "beginning of a training", family=name)


def test_views_decoded_of_tokens_are_better_than_the_nearest_reference():
    model, capture = kaleidoscene.load("rae3d"), kaleidoscene.read_capture(BUS).recentred()
    given, targets = [0, 8, 16], [4, 12, 20, 24]
    made = model.render(capture.select(given), cameras=capture.cameras[targets])
    (images, cameras), (true, wanted) = (model.prepare(capture.select(numbers)) for numbers in (given, targets))
    copies = images[nearest_reference(cameras, wanted)]
    assert float((psnr(made.images, true) - psnr(copies, true)).mean()) > 1
    assert made.depths is not None and (made.depths > 0).float().mean() > 0.05


def test_a_picture_has_completions_and_nothing_has_objects(tmp_path, capsys):
    """The commands of a user, in few steps."""
    out = tmp_path / "completions"
    render = ["render", str(BUS), "--references", "0", "--model", "dit3d", "--frames", "3", "--steps", "8"]
    assert main([*render, "--samples", "2", "--out", str(out)]) == 0
    assert "dit3d: diffusion." in capsys.readouterr().out
    first = read_image(out / "sample-01" / "frames" / "0000.png")[0]
    model = kaleidoscene.load("dit3d")
    assert model.system.background == "white" and model.route(2) == "decode"
    true, _ = model.prepare(kaleidoscene.read_capture(BUS).select([0]))
    assert float(psnr(first[None], true)) > 13  # an orbit begins at the reference
    objects = tmp_path / "objects"
    assert main(["generate", "--samples", "2", "--frames", "3", "--steps", "8", "--out", str(objects)]) == 0
    views = [read_image(objects / f"sample-0{n}" / "frames" / "0001.png")[0] for n in (1, 2)]
    assert not torch.allclose(*views, atol=0.1)


def test_a_report_says_which_views_were_drawn(tmp_path):
    """By the number of references: of one or none dit3d draws, of more it decodes."""
    command = ["evaluate", "--benchmark", "objects", "--data", str(BUS.parent), "--references", "1", "2"]
    assert main([*command, "--metrics", "psnr", "--model", "dit3d", "--out", str(tmp_path / "scores")]) == 0
    settings = json.loads((tmp_path / "scores" / "report.json").read_text())["method"]["settings"]
    assert settings["route"] == {"1": "diffusion", "2": "decode"}


def test_one_view_becomes_a_cloud_of_what_is_drawn(tmp_path, capsys):
    out = tmp_path / "cloud"
    command = ["reconstruct", str(BUS), "--references", "0", "--model", "dit3d", "--seed", "1", "--out", str(out)]
    assert main([*command, "--frames", "6", "--turntable", "2"]) == 0
    assert "dit3d: diffusion." in capsys.readouterr().out
    scene = kaleidoscene.load("dit3d").open_scene(out / "scene.safetensors")
    views = scene.render(scene.around(2))
    assert torch.isfinite(views.points).all() and (views.depths > 0).float().mean() > 0.05
    assert (out / "cloud.ply").stat().st_size > 10_000
