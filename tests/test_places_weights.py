"""The weights for places in the package: small, described, any lens in its range, backgrounds and all."""

import json

import pytest
import torch

import kaleidoscene
from kaleidoscene.cli.main import main
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.evaluation.protocols import nearest_reference
from kaleidoscene.geometry.trajectories import dolly_zoom
from tests import own_captures
from tests.conftest import check_shipped

pytestmark = pytest.mark.slow


def test_they_are_small_and_described():
    check_shipped("places", "25 to 100 degrees", family="kaleido")
    model = kaleidoscene.load("places")
    assert model.capabilities.any_lens and model.system.lenses == (25.0, 100.0) and model.system.background == "any"


def test_a_room_with_its_background_is_better_than_its_nearest_picture(tmp_path):
    """4:3 pictures with their own lens: nothing is cut off, padded or laid on white."""
    own_captures.nerfstudio(tmp_path / "room")
    capture = kaleidoscene.read_capture(tmp_path / "room")
    model = kaleidoscene.load("places").for_shape(capture.cameras)
    assert model.image_size == (96, 128) and model.describe_fit(capture) == []
    count = len(capture)
    references = list(range(0, count, 2))
    targets = list(range(1, count, 4))
    images, cameras = model.prepare(capture)
    made = model.render(capture.select(references), cameras=capture.cameras[targets], seed=0).images
    copies = images[references][nearest_reference(cameras[references], cameras[targets])]
    gain = (psnr(made, images[targets]) - psnr(copies, images[targets])).mean()
    assert float(gain) > 1


def test_a_lens_may_change_along_the_way(tmp_path, capsys):
    own_captures.nerfstudio(tmp_path / "room")
    command = ["render", str(tmp_path / "room"), "--model", "places", "--num-references", "3", "--frames", "3"]
    assert main([*command, "--trajectory", "dolly-zoom:factor=0.7", "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "not white" not in said and "left white" not in said
    frames = json.loads((tmp_path / "out" / "transforms.json").read_text())["frames"]
    assert len({round(frame["fl_x"], 3) for frame in frames}) == 3
    path = dolly_zoom(kaleidoscene.read_capture(tmp_path / "room"), 3, factor=0.7)
    focal = path.intrinsics[:, 0, 0] / path.intrinsics[0, 0, 0]
    written = torch.tensor([frame["fl_x"] for frame in frames])
    torch.testing.assert_close(written / written[0], focal.to(written), rtol=1e-3, atol=0)
