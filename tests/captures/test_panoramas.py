"""Panoramas cut into pinholes, and what else lies in folders of pictures: a world whose colours depend on direction."""

import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.intake import take_in
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.rays import camera_rays
from kaleidoscene.images.panoramas import VIEWS, cameras_within, looked_at, says_panorama
from tests import own_captures
from tests.conftest import REPOSITORY

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><GPano:ProjectionType>equirectangular</GPano:ProjectionType></x:xmpmeta>'


def colours(directions):
    """RGB of the world in directions ``(..., 3)``: right, down, ahead."""
    x, y, z = directions.unbind(-1)
    return 0.5 + 0.4 * torch.stack([(3 * x + y).sin(), (2 * y - z).cos() * x, (4 * z + x).sin()], dim=-1)


def panorama(height):
    rows, columns = torch.arange(height) + 0.5, torch.arange(2 * height) + 0.5
    up = (0.5 - rows / height)[:, None] * math.pi
    around = (columns / (2 * height) - 0.5)[None] * 2 * math.pi
    x, y, z = up.cos() * around.sin(), -up.sin().expand(-1, 2 * height), up.cos() * around.cos()
    return colours(torch.stack([x, y, z], dim=-1)).permute(2, 0, 1)


def write(path, image, **more):
    Image.fromarray((255 * image).round().byte().permute(1, 2, 0).numpy()).save(path, quality=98, **more)


def test_pinholes_see_what_is_in_their_directions():
    cameras = cameras_within(96)
    seen = looked_at(panorama(96), cameras)
    _, directions = camera_rays(cameras)
    torch.testing.assert_close(seen, colours(directions).permute(0, 3, 1, 2), rtol=0, atol=0.01)
    ahead = cameras.directions
    torch.testing.assert_close(ahead[0], torch.tensor([0.0, 0.0, 1.0]))
    torch.testing.assert_close(ahead[2], torch.tensor([1.0, 0.0, 0.0]), rtol=0, atol=1e-6)  # to the right
    torch.testing.assert_close(cameras.world_from_cam[:, :3, 1], torch.tensor([0.0, 1.0, 0.0]).expand(VIEWS, 3))


def test_one_panorama_becomes_a_capture_with_its_cameras(tmp_path, capsys):
    write(tmp_path / "hall.jpg", panorama(160), xmp=XMP)
    assert says_panorama(tmp_path / "hall.jpg")
    assert main(["capture", str(tmp_path / "hall.jpg"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert f"1 panoramas were cut into {VIEWS} pictures" in said and "look from one place" in said
    assert "--camera-path PATH.json" in said
    assert main(["render", str(tmp_path / "out"), "--out", str(tmp_path / "views")]) == 1
    assert "there is nothing to go around: give a path of cameras" in capsys.readouterr().err
    capture = read_capture(tmp_path / "out")
    _, directions = camera_rays(capture.cameras)
    assert len(capture) == VIEWS and capture.centred == "scene"
    assert (capture.images() - colours(directions).permute(0, 3, 1, 2)).abs().mean() < 0.01
    torch.testing.assert_close(capture.cameras.centres, torch.zeros(VIEWS, 3))


def test_panoramas_among_photographs_tell_their_focal_length(tmp_path):
    folder = tmp_path / "rooms"
    own_captures.photographs(folder, 2)
    write(folder / "a.png", panorama(120))
    capture, notes = take_in(folder, tmp_path / "one")
    assert "a.png is twice as wide as high: if it shows all directions, give --panoramas." in notes
    assert len(capture) == 3
    capture, notes = take_in(folder, tmp_path / "two", panoramas=True)
    assert f"1 panoramas were cut into {VIEWS} pictures of 75 degrees." in notes
    cut = [frame for frame in capture.frames if frame.image.name.startswith("a_")]
    assert len(capture) == 2 + VIEWS and len(cut) == VIEWS and not capture.is_posed
    for frame in cut:
        torch.testing.assert_close(frame.intrinsics.float(), cameras_within(120).intrinsics[0], rtol=1e-4, atol=0)
    write(folder / "part.jpg", panorama(120)[:, 20:100], xmp=XMP)
    capture, notes = take_in(folder, tmp_path / "three", panoramas=True)
    assert len(capture) == 3 + VIEWS and any("part.jpg calls itself a panorama and does not show" in n for n in notes)
    photograph = next(path for path in sorted(folder.iterdir()) if path.name[0] not in "ap")
    shutil.copyfile(photograph, folder / "a_3.jpg")
    with pytest.raises(KaleidosceneError, match=r"a\.png: there is another picture called a_3\.jpg"):
        take_in(folder, tmp_path / "four", panoramas=True)
    (tmp_path / "deep").mkdir()
    shutil.copytree(folder, tmp_path / "deep" / "images", ignore=shutil.ignore_patterns("a*"))
    with pytest.raises(KaleidosceneError, match="--panoramas: no picture is twice as wide as high"):
        take_in(tmp_path / "deep", tmp_path / "five", panoramas=True)
    write(tmp_path / "deep" / "images" / "b.jpg", panorama(120), xmp=XMP)
    assert len(take_in(tmp_path / "deep", tmp_path / "six")[0]) == 3 + VIEWS


def test_depth_maps_are_no_photographs(tmp_path):
    own_captures.photographs(tmp_path / "photos", 3)
    first = sorted((tmp_path / "photos").iterdir())[0]
    with Image.open(first) as image:
        size = image.size
    Image.fromarray(np.full(size[::-1], 900, np.uint16)).save(tmp_path / "photos" / "depth_0.png")
    capture = read_capture(tmp_path / "photos")
    assert len(capture) == 3 and any("1 images of one channel and 16 bits are left out" in n for n in capture.notes)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copyfile(tmp_path / "photos" / "depth_0.png", alone / "depth_0.png")
    assert len(read_capture(alone)) == 1  # 16-bit photographs alone are photographs


def test_what_else_a_folder_holds_is_said(tmp_path):
    both = tmp_path / "both"
    shutil.copytree(REPOSITORY / "examples" / "captures" / "school_bus", both)
    assert read_capture(both).notes == ("read as nerfstudio: there is transforms.json",)
    shutil.copyfile(both / "transforms.json", both / "transforms_test.json")
    (both / "sparse" / "0").mkdir(parents=True)
    (both / "sparse" / "0" / "cameras.txt").write_text("# nothing\n")
    notes = read_capture(both).notes
    assert "left out: transforms_test.json; give the file itself to take one" in notes
    assert "there is sparse/0 as well (format colmap)" in notes
    assert read_capture(both / "transforms_test.json").notes == ("read as nerfstudio: there is transforms_test.json",)
    assert read_capture(both, format="transforms").notes == ("read as nerfstudio: as it was told to be",)
