"""What is said before a rendering that will not come out well, and ``--strict``."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.cli.main import main
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.coverage import coverage
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.workflows.doubts import coloured_border, degrees_to_nearest, doubts_of, expectations
from tests import own_captures
from tests.conftest import REPOSITORY

BUS = str(REPOSITORY / "examples" / "captures" / "school_bus")
UP = torch.tensor([0.0, 0.0, 1.0])


def circle(*degrees: float, size=(128, 128)) -> Cameras:
    """Cameras around the origin at some azimuths, with the lens of the default weights."""
    angle = torch.deg2rad(torch.tensor(degrees))
    eyes = 1.85 * torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)
    focal = 0.857  # 49.1 degrees
    return Cameras.from_field_of_view(look_at(eyes, torch.zeros_like(eyes), UP), focal, size)


@pytest.fixture(scope="module")
def backed(tmp_path_factory):
    """An object in front of a grey wall, with masks."""
    folder = tmp_path_factory.mktemp("captures") / "backed"
    folder.mkdir()
    names = [f"{n}.png" for n in range(3)]
    document = None
    for name in names:
        Image.fromarray(np.full((128, 128, 3), 120, np.uint8)).save(folder / name)
        mask = np.zeros((128, 128), np.uint8)
        mask[40:90, 30:100] = 255
        Image.fromarray(mask).save(folder / f"mask-{name}")
    write_cameras(folder / "transforms.json", names, circle(0, 20, 40), centred="object")
    document = json.loads((folder / "transforms.json").read_text())
    for frame in document["frames"]:
        frame["mask_path"] = f"mask-{frame['file_path']}"
    (folder / "transforms.json").write_text(json.dumps(document))
    return folder


def test_the_border_is_the_outermost_pixels():
    images = torch.ones(2, 3, 100, 200)
    assert coloured_border(images) == 0
    images[0, 1, :2] = 0.5  # the two outermost rows of one of two images
    ring = 100 * 200 - 96 * 196
    assert coloured_border(images) == pytest.approx(2 * 200 / (2 * ring))
    images[:, :, 2:98, 2:198] = 0  # what lies inside does not count
    assert coloured_border(images) == pytest.approx(2 * 200 / (2 * ring))
    assert coloured_border(torch.zeros(1, 3, 9, 13)) == 1


def test_angles_are_those_at_the_middle_of_the_object():
    angles = degrees_to_nearest(circle(0, 90), circle(10, 80, 135, 270), torch.zeros(3))
    assert angles.tolist() == pytest.approx([10, 10, 45, 90], abs=1e-3)


def test_far_views_and_backgrounds_are_named(backed):
    model, capture = load("default"), read_capture(backed)
    assert model.system.background == load("rng").system.background == "white"
    background, far = doubts_of(model, capture, circle(10, 130, 200))
    assert background.startswith("100 % of the border") and "--masked" in background
    assert far.startswith("2 of 3 new views (1, 2)") and "(up to 160)" in far
    assert doubts_of(model, capture, circle(10, 90), masked=True) == []
    assert doubts_of(model, read_capture(BUS)[[0, 1, 2]], read_capture(BUS).cameras[3:5]) == []


def test_views_inside_the_object_and_of_another_unit_are_named(backed):
    references, model = read_capture(backed), load("default")
    views = circle(0, 10, 20, 30)
    assert not [doubt for doubt in doubts_of(model, references, views, masked=True) if "stand at" in doubt]
    for number, factor, said in ((2, 0.1, "0.1"), (1, 30, "30")):
        poses = views.world_from_cam.clone()
        poses[number, :3, 3] *= factor
        moved = replace(views, world_from_cam=poses)
        (doubt,) = [doubt for doubt in doubts_of(model, references, moved, masked=True) if "stand at" in doubt]
        assert f"1 of 4 new views ({number}) stand at up to {said} of the references' distance" in doubt
    both = views.world_from_cam.clone()
    both[0, :3, 3] *= 0.1
    both[3, :3, 3] *= 30
    found = doubts_of(model, references, replace(views, world_from_cam=both), masked=True)
    assert len([doubt for doubt in found if "stand at" in doubt]) == 2
    whole = replace(references, centred="scene")
    assert not [doubt for doubt in doubts_of(model, whole, moved, masked=True) if "stand at" in doubt], "a place"


def test_the_command_warns_and_strict_refuses(backed, tmp_path, capsys):
    render = ["render", str(backed), "--references", "0", "--targets", "1", "--out", str(tmp_path / "out")]
    assert main([*render, "--strict"]) == 1
    error = capsys.readouterr().err
    assert "--strict" in error and "is not white" in error and not (tmp_path / "out").exists()
    assert main([*render, "--json"]) == 0
    said = capsys.readouterr().out
    assert "warning: 100 % of the border" in said
    (warning,) = json.loads(said.splitlines()[-1])["warnings"]
    assert "smear backgrounds" in warning
    assert main([*render, "--masked", "--strict", "--overwrite"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_references_that_are_smaller_than_what_is_asked_for_are_named(backed):
    small, bus = read_capture(backed), read_capture(BUS)[[0, 1]]
    model = load("default").at_size(256)
    (doubt,) = doubts_of(model, small, circle(10), masked=True)
    assert doubt == "the references have 128 pixels on their longer side: views of 256 show no more than they do."
    assert doubts_of(load("default"), small, circle(10), masked=True) == []
    assert doubts_of(model, bus, bus.cameras) == [], "as large as that"


@pytest.mark.slow
def test_views_of_twice_the_size_go_on_where_they_were(tmp_path, capsys):
    out = tmp_path / "out"
    render = ["render", BUS, "--references", "0,2", "--targets", "5,14", "--out", str(out)]
    large = [*render, "--image-size", "256"]
    assert main(large) == 0 and "2 views of 256x256" in capsys.readouterr().out
    assert read_capture(out).images().shape == (2, 3, 256, 256)
    assert main(large) == 0 and "are there already" in capsys.readouterr().out
    assert main(render) == 1 and "--overwrite" in capsys.readouterr().err, "another request"
    objects = ["evaluate", "--benchmark", "objects", "--data", str(REPOSITORY / "examples" / "captures")]
    more = ["--references", "1", "--metrics", "psnr", "--image-size", "256", "--out", str(tmp_path / "scores")]
    assert main([*objects, *more]) == 0
    assert "256x256" in capsys.readouterr().out


def test_what_references_show_is_said_for_every_target(tmp_path, capsys):
    """A number a view, and what such views of held-out scenes came out at."""
    command = ["render", BUS, "--references", "0,1", "--targets", "2,3,4", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*command, "--json"]) == 0
    said = capsys.readouterr().out
    shown = json.loads(said.splitlines()[-1])["coverage"]
    capture = read_capture(BUS)
    expected = coverage(capture.cameras[[0, 1]], capture.cameras[[2, 3, 4]], capture.origin())
    assert shown == pytest.approx(expected.tolist(), abs=1e-4) and len(set(shown)) == 3
    assert f"The references show {100 * min(shown):.0f} to {100 * max(shown):.0f} % of the new views" in said
    assert "dB." in said
    bands = load("default").system.held_out_psnr
    assert [band[0] for band in bands] == sorted(band[0] for band in bands) and bands[-1][0] == 1
    for share, low, high in bands:
        (line,) = expectations(load("default"), torch.tensor([share - 0.01]))
        assert f"came out at {low:.0f} to {high:.0f} dB" in line
    assert "dB" not in expectations(load("rng"), torch.tensor([0.5]))[0], "nobody has measured it"


def test_places_that_no_reference_shows_are_named(tmp_path):
    own_captures.nerfstudio(tmp_path / "room")
    model, capture = load("rae3d"), read_capture(tmp_path / "room")
    two = capture.select([0, 1])
    back = two.cameras.world_from_cam.clone()
    back[:, :3, :3] = back[:, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))  # turned about
    turned = Cameras(back, two.cameras.intrinsics, two.cameras.image_size)
    doubts = doubts_of(model, two, Cameras.concatenate([two.cameras, turned]))
    assert any("2 of 4 new views (2, 3) look at what no reference shows" in doubt for doubt in doubts)


def test_cameras_that_lie_together_have_no_unit():
    """Of models whose unit is how far cameras lie apart; others have depths as ever."""
    bus, around = read_capture(BUS), circle(0, 40, 80)
    near = bus[[0]]
    beside = near.cameras.world_from_cam.expand(3, 4, 4).clone()
    beside[:, 0, 3] += torch.tensor([0.0, 0.1, 0.2])
    close = Cameras(beside, near.cameras.intrinsics.expand(3, 3, 3), near.cameras.image_size)
    for name in ("rae3d", "dit3d"):
        model = load(name)
        (doubt,) = [said for said in doubts_of(model, near, close) if "lie within" in said]
        assert "11 % of the distance to the object" in doubt
        assert not [said for said in doubts_of(model, near, around) if "lie within" in said]
    assert not [said for said in doubts_of(load("default"), near, close) if "lie within" in said]
