"""Every reader, the checker and conversion on captures of our own, of which poses, lens, depth and pixels are known."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture, scan_capture
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.geometry.rays import project, unproject
from tests import own_captures
from tests.captures.conventions import found_in_other_conventions
from tests.own_captures import FORMATS, LENS, ROOM


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Folder and true cameras of a format, written once."""
    done = {}

    def get(name):
        if name not in done:
            folder = tmp_path_factory.mktemp(name) / "place"
            done[name] = folder, FORMATS[name][0](folder)
        return done[name]

    return get


@pytest.mark.parametrize("name", FORMATS)
def test_cameras_come_back_as_they_are(written, name):
    folder, cameras = written(name)
    capture = read_capture(folder)
    assert (capture.format, len(capture)) == (FORMATS[name][1], len(cameras))
    exact = capture.exact_cameras
    torch.testing.assert_close(exact.world_from_cam, cameras.world_from_cam, rtol=0, atol=2e-6)
    if name not in ("nerfstudio", "colmap-text"):  # whose lens is taken out
        torch.testing.assert_close(exact.intrinsics, cameras.intrinsics, rtol=1e-6, atol=1e-4)
        assert all(frame.distortion.is_none for frame in capture.frames)
    else:
        assert {frame.distortion for frame in capture.frames} == {LENS}
        torch.testing.assert_close(capture.frames[3].intrinsics, cameras.intrinsics[3], rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_pictures_come_back_as_they_are(written, name):
    """Through a lens and back: what the pinhole of the undistorted picture sees is what the renderer saw."""
    folder, cameras = written(name)
    source = own_captures.BUS if name in ("blender", "eschernet") else ROOM
    capture, original = read_capture(folder), read_capture(source)
    images, cams = capture.images(only=[5]), capture.exact_cameras
    h, w = cams.image_size
    y, x = torch.meshgrid(torch.arange(10, h - 10, 7) + 0.5, torch.arange(10, w - 10, 7) + 0.5, indexing="ij")
    k, true_k = cams.intrinsics[5], cameras.intrinsics[5].double()
    rays = torch.stack([x, y, torch.ones_like(x)], -1).double() @ torch.linalg.inv(k).T
    places = (rays @ true_k.T)[..., :2] / torch.tensor([w, h])
    expected = torch.nn.functional.grid_sample(
        original.images(only=[5]).double(), 2 * places[None] - 1, align_corners=False, padding_mode="border"
    )
    got = images[0, :, 10 : h - 10 : 7, 10 : w - 10 : 7].double()
    bent = name in ("nerfstudio", "colmap-text")  # resampled twice, in a room of fine marks
    assert (got - expected[0]).abs().mean() < (0.03 if bent else 0.005)


@pytest.mark.parametrize("name", FORMATS)
def test_the_checker_finds_nothing_and_would_in_another_convention(written, name):
    for convention, found in found_in_other_conventions(scan_capture(written(name)[0])):
        assert len(found) == 1 and found[0].startswith("convention-"), convention


@pytest.mark.parametrize("tool", ["nerfstudio", "colmap", "blender", "llff"])
@pytest.mark.parametrize("name", ["7scenes", "re10k"])
def test_conversion_keeps_cameras_and_pictures(written, tmp_path, capsys, name, tool):
    folder, cameras = written(name)
    assert main(["convert", str(folder), str(tmp_path / "out"), "--to", tool]) == 0
    copy, source = read_capture(tmp_path / "out"), read_capture(folder)
    stems = [frame.image.stem for frame in copy.frames]  # in the order of their letters, as the tool has them
    order = [stems.index(frame.image.stem) for frame in source.frames]
    poses = copy.exact_cameras.world_from_cam[order]
    torch.testing.assert_close(poses, cameras.world_from_cam, rtol=0, atol=1e-5)
    torch.testing.assert_close(copy.images(only=[order[2]]), source.images(only=[2]), rtol=0, atol=1e-6)
    capsys.readouterr()


def test_points_and_depth_are_those_of_the_room(written):
    cameras = written("colmap-binary")[1]
    capture = read_capture(written("colmap-binary")[0])
    assert capture.points is not None and len(capture.points.positions) == 1600
    np.testing.assert_allclose(
        np.sort(capture.points.positions.double().numpy(), 0), np.sort(own_captures.room_points(cameras), 0), atol=1e-5
    )
    depths = read_capture(written("7scenes")[0])
    assert sum(frame.depth is not None for frame in depths.frames) == 4
    # What one frame sees with its depth, another sees there too, unless something stands before it.
    first, other = depths.depths(only=[6])[0].double(), depths.depths(only=[12])[0].double()
    world = unproject(cameras[6], first)[20:-20:9, 20:-20:9].reshape(-1, 3)
    pixels, ahead = project(cameras[12], world)
    inside = ((pixels > 2) & (pixels < pixels.new_tensor([382, 286]))).all(-1) & (ahead > 0)
    grid = 2 * pixels[inside] / pixels.new_tensor([384, 288]) - 1
    there = torch.nn.functional.grid_sample(other[None, None], grid[None, None], mode="nearest", align_corners=False)
    same = (there[0, 0, 0] / ahead[inside] - 1).abs() < 0.01
    assert inside.float().mean() > 0.6 and same.float().mean() > 0.75


def test_photographs_and_videos_of_the_room(tmp_path):
    own_captures.photographs(tmp_path / "with", equivalent=35)
    capture = read_capture(tmp_path / "with")
    assert (capture.format, len(capture), capture.is_posed) == ("photos", 6, False)
    assert any("6 images from their EXIF" in note for note in capture.notes)
    focal = 35 * np.hypot(288, 384) / np.hypot(36, 24)
    assert capture.frames[0].intrinsics is not None
    assert float(capture.frames[0].intrinsics[0, 0]) == pytest.approx(focal)
    with pytest.raises(KaleidosceneError, match="has no pose; estimate cameras with 'kaleidoscene pose'"):
        capture.cameras  # noqa: B018
    own_captures.photographs(tmp_path / "without", 3)
    assert any("3 images estimated" in note for note in read_capture(tmp_path / "without").notes)
    own_captures.video(tmp_path / "walk.mp4", 9)
    walk = read_capture(tmp_path / "walk.mp4")
    assert (walk.format, len(walk)) == ("video", 9)
    assert [frame.time for frame in walk.frames] == pytest.approx([0.1 * n for n in range(9)])
    shown, true = walk.select([2, 7]).images(), read_capture(ROOM).images(only=[2, 7])
    assert (shown - true).abs().mean() < 0.05 < (shown[0] - true[1]).abs().mean()


def test_masks_of_llff_lay_the_background_white(tmp_path):
    own_captures.llff(tmp_path / "place")
    (tmp_path / "place" / "masks").mkdir()
    for path in own_captures.pictures(ROOM):
        mask = np.zeros((288, 384), np.uint8)
        mask[:, :100] = 255
        Image.fromarray(mask).save(tmp_path / "place" / "masks" / f"{path.stem}.png")
    capture = read_capture(tmp_path / "place")
    assert all(frame.mask is not None for frame in capture.frames)
    white, plain = capture.images(masked=True, only=[4]), capture.images(only=[4])
    assert (white[..., 101:] == 1).all() and white[..., :99].equal(plain[..., :99])


def test_an_image_that_is_missing_is_named(written, tmp_path):
    for name, victim in (("eschernet", "render_mvs_25/model/007.png"), ("7scenes", "frame-000007.color.png")):
        shutil.copytree(written(name)[0], tmp_path / name)
        (tmp_path / name / victim).unlink()
        with pytest.raises(KaleidosceneError, match="7"):
            read_capture(tmp_path / name).images()


def test_lens_of_the_room_is_not_nothing():
    """The pictures that readers straighten are bent by several pixels at the border."""
    corner = torch.tensor([[0.5, 0.38]], dtype=torch.float64)
    moved = (LENS.apply(corner) - corner).norm() * 373
    assert 2 < moved < 20 and isinstance(LENS, Distortion)
