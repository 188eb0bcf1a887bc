"""Captures out and in again: cameras to the last digit, image files byte for byte."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.ExifTags import IFD, Base

from kaleidoscene.api import load
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.images import pinhole_capture, write_images
from kaleidoscene.captures.conversion.points import point_cloud
from kaleidoscene.captures.conversion.tools import WRITERS, dropped
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.captures.frames import Frame, PointCloud
from kaleidoscene.captures.ply import write_ply
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.from_captures import ShardConfig, scene_of, write_shards
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.images.files import read_image
from kaleidoscene.images.fitting import fit_depths, fit_views
from tests import own_captures
from tests.captures.test_formats import write_clip
from tests.conftest import ring

LENSES = (
    Distortion(),
    Distortion.opencv(0.03, -0.01, 0.001, 0.002),
    Distortion.opencv(0.02, 0.0, 0.0, 0.0, 0.01),
    Distortion("fisheye", (0.01, 0.002, -0.001, 0.0005)),
)


def _capture(folder, distortion, count=4):
    """Photographs of two sizes with odd intrinsics, masks and points."""
    folder.mkdir()
    cameras = ring(count, (18, 26), seed=9).to(torch.float64)
    generator = np.random.default_rng(4)
    frames = []
    for number in range(count):
        size = (18, 26) if number % 2 else (20, 26)
        path = folder / f"img_{number + 8}.png"  # 8, 9, 10, 11: natural order is not that of the letters
        Image.fromarray(generator.integers(0, 255, (*size, 3), dtype=np.uint8)).save(path)
        mask = folder / f"mask_{number}.png"
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(mask)
        k = cameras.intrinsics[number].clone()
        k[0, 0], k[0, 2] = k[0, 0] * (1 + 0.01 * number), k[0, 2] + 0.7
        frames.append(Frame(path, size, cameras.world_from_cam[number], k, distortion, mask=mask))
    positions = torch.randn(30, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 0.3
    points = PointCloud(positions, torch.arange(90).view(30, 3).to(torch.uint8))
    return Capture("thing", "test", folder, tuple(frames), "scene", points=points)


def same_cameras(a, b, *, tolerance):
    assert len(a) == len(b)
    for x, y in zip(a.frames, b.frames, strict=True):
        assert torch.equal(x.intrinsics, y.intrinsics) and x.image_size == y.image_size
        assert x.distortion.padded() == y.distortion.padded() or x.distortion.kind == y.distortion.kind == "opencv"
        torch.testing.assert_close(x.world_from_cam, y.world_from_cam, rtol=0, atol=tolerance)
        assert x.image.read_bytes() == y.image.read_bytes()


@pytest.mark.parametrize("distortion", LENSES, ids=lambda lens: f"{lens.kind}{len(lens.coefficients)}")
@pytest.mark.parametrize("tool", ["nerfstudio", "colmap"])
def test_round_trip(tmp_path, tool, distortion):
    if tool == "colmap":
        pytest.importorskip("pycolmap")
    capture = _capture(tmp_path / "in", distortion)
    WRITERS[tool](capture, tmp_path / "out")
    back = read_capture(tmp_path / "out")
    order = sorted(range(4), key=lambda n: capture.frames[n].name) if tool == "colmap" else range(4)
    # COLMAP stores rotations as quaternions, and these were made in single precision; matrices stay to the last digit.
    tolerance = 1e-6 if tool == "colmap" else 0.0
    same_cameras(replace(capture, frames=tuple(capture.frames[n] for n in order)), back, tolerance=tolerance)
    if tool == "nerfstudio":
        assert [frame.distortion for frame in back.frames] == [distortion] * 4
        for before, after in zip(capture.frames, back.frames, strict=True):
            assert before.mask is not None and after.mask is not None
            assert before.mask.read_bytes() == after.mask.read_bytes()
        assert (tmp_path / "out" / "points.ply").exists()
    else:
        assert capture.points is not None and back.points is not None
        torch.testing.assert_close(back.points.positions.sort(0).values, capture.points.positions.sort(0).values)


def test_what_was_rendered_converts_too(tmp_path):
    """A folder as rendering leaves it, to COLMAP and back: the cameras that it was rendered with."""
    pytest.importorskip("pycolmap")
    (tmp_path / "out" / "frames").mkdir(parents=True)
    names = [f"frames/{n:04d}.png" for n in range(3)]
    for name in names:
        Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "out" / name)
    cameras = ring(3, (16, 24), seed=3)
    write_cameras(tmp_path / "out" / "transforms.json", names, cameras, centred="object")
    assert main(["convert", str(tmp_path / "out"), str(tmp_path / "colmap"), "--to", "colmap"]) == 0
    back = read_capture(tmp_path / "colmap")
    torch.testing.assert_close(back.cameras.world_from_cam, cameras.world_from_cam, rtol=0, atol=1e-6)
    assert torch.equal(back.cameras.intrinsics, cameras.intrinsics)


def test_llff_round_trip_of_pinholes(tmp_path):
    capture = _capture(tmp_path / "in", Distortion())
    with pytest.raises(KaleidosceneError, match="which poses_bounds.npy cannot say"):
        WRITERS["llff"](capture, tmp_path / "refused")
    cameras = ring(4, (18, 26), seed=9).to(torch.float64)
    for frame in capture.frames:
        Image.new("RGB", (26, 18), (7, 8, 9)).save(frame.image)
    capture = replace(capture, frames=tuple(
        replace(frame, intrinsics=cameras.intrinsics[0], image_size=(18, 26), mask=None) for frame in capture.frames
    ))  # fmt: skip
    WRITERS["llff"](capture, tmp_path / "out")
    back = read_capture(tmp_path / "out")
    # Letters decide the order, as in LLFF's own code: 10, 11, 8, 9.
    assert [frame.name for frame in back.frames] == ["img_10.png", "img_11.png", "img_8.png", "img_9.png"]
    expected = cameras.world_from_cam[[2, 3, 0, 1]]
    torch.testing.assert_close(back.exact_cameras.world_from_cam, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(back.exact_cameras.intrinsics, capture.exact_cameras.intrinsics)
    near, far = np.load(tmp_path / "out" / "poses_bounds.npy")[:, 15:].T
    assert (0 < near).all() and (near < far).all() and (far < 4).all()


def test_blender_round_trip_and_what_it_cannot_say(tmp_path):
    own_captures.blender(tmp_path / "bus")
    source = read_capture(tmp_path / "bus").select([0, 7, 13])
    WRITERS["blender"](source, tmp_path / "out")
    back = read_capture(tmp_path / "out")
    assert back.format == "blender"
    torch.testing.assert_close(back.exact_cameras.world_from_cam, source.exact_cameras.world_from_cam)
    torch.testing.assert_close(back.exact_cameras.intrinsics, source.exact_cameras.intrinsics)
    torch.testing.assert_close(back.images(), source.images(), rtol=0, atol=1.01 / 255)
    alphas = source.alphas()
    assert alphas is not None and torch.equal(alphas, back.alphas())
    with pytest.raises(KaleidosceneError, match="Blender's transforms know one focal length"):
        WRITERS["blender"](_capture(tmp_path / "in", Distortion()), tmp_path / "refused")


def test_undistorted_images_are_those_that_the_capture_gives(tmp_path):
    capture = _capture(tmp_path / "in", LENSES[1])
    plain = pinhole_capture(capture, tmp_path / "plain")
    assert all(frame.distortion.is_none for frame in plain.frames)
    torch.testing.assert_close(plain.cameras.intrinsics, capture.cameras.intrinsics)
    torch.testing.assert_close(plain.images(), capture.images(), rtol=0, atol=0.51 / 255)


def test_a_photograph_on_its_side_is_stored_upright(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    exif.get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] = 26
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "a.png", exif=exif)
    camera = ring(1, (20, 12)).to(torch.float64)
    frame = Frame(tmp_path / "in" / "a.png", (20, 12), camera.world_from_cam[0], camera.intrinsics[0])
    WRITERS["nerfstudio"](Capture("a", "test", tmp_path, (frame,)), tmp_path / "out")
    with Image.open(tmp_path / "out" / "images" / "a.png") as image:
        assert image.size == (12, 20) and Base.Orientation not in image.getexif()
        assert image.getexif().get_ifd(IFD.Exif)[Base.FocalLengthIn35mmFilm] == 26, "the lens goes with the picture"
        assert np.array_equal(np.asarray(image), np.rot90(pixels, -1))
    read_capture(tmp_path / "out").images()


def test_what_is_known_of_a_scene_goes_with_it(tmp_path):
    """Its middle, its up direction and how near and far its views look, which are guesses otherwise."""
    capture = _capture(tmp_path / "in", Distortion())
    bounds = [(0.5 + number, 3.0 + number) for number in range(len(capture))]
    frames = tuple(replace(frame, bounds=both) for frame, both in zip(capture.frames, bounds, strict=True))
    centre, up = torch.tensor([0.3, -0.2, 0.5]), torch.tensor([0.6, 0.0, 0.8])
    capture = replace(capture, frames=frames, centre=centre, upward=up)
    (tmp_path / "out").mkdir()
    WRITERS["nerfstudio"](capture, tmp_path / "out")
    back = read_capture(tmp_path / "out")
    assert back.origin().equal(centre) and back.up().equal(up) and [f.bounds for f in back.frames] == bounds
    assert "middle of the scene and its up direction are guessed" in dropped(capture, "colmap")
    document = json.loads((tmp_path / "out" / "transforms.json").read_text())
    for key, wrong in (("scene_up", [1, 2]), ("scene_centre", [0, "x", 1]), ("scene_up", "up")):
        (tmp_path / "out" / "transforms.json").write_text(json.dumps(document | {key: wrong}))
        with pytest.raises(KaleidosceneError, match=f"{key} is not 3"):
            read_capture(tmp_path / "out")


def test_a_scene_stays_a_scene_in_blenders_form(tmp_path):
    capture = _capture(tmp_path / "in", Distortion(), count=3)
    k = capture.frames[0].intrinsics.clone()
    k[0, 2], k[1, 2], k[1, 1] = 13, 9, k[0, 0]
    frames = tuple(replace(f, image_size=(18, 26), intrinsics=k, mask=None) for f in capture.frames[1:2])
    (tmp_path / "out").mkdir()
    WRITERS["blender"](replace(capture, frames=frames), tmp_path / "out")
    assert read_capture(tmp_path / "out").centred == "scene"


def test_an_archive_of_another_tool_keeps_its_cameras_and_points(tmp_path, capsys):
    capture = _capture(tmp_path / "in", Distortion())
    (tmp_path / "scene").mkdir()
    WRITERS["colmap"](capture, tmp_path / "scene")
    shutil.make_archive(str(tmp_path / "scene"), "zip", tmp_path, "scene")
    assert main(["capture", str(tmp_path / "scene.zip"), "--out", str(tmp_path / "out")]) == 0
    assert "cameras, which are kept" in (tmp_path / "out" / "capture.html").read_text()
    back, before = read_capture(tmp_path / "out"), read_capture(tmp_path / "scene")
    torch.testing.assert_close(back.exact_cameras.world_from_cam, before.exact_cameras.world_from_cam)
    assert back.points is not None and len(back.points.positions) == 30


def test_endings_that_others_do_not_read_become_png(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 20, 3), dtype=np.uint8)).save(tmp_path / "a.WEBP")
    camera = ring(1, (12, 20)).to(torch.float64)
    frame = Frame(tmp_path / "a.WEBP", (12, 20), camera.world_from_cam[0], camera.intrinsics[0])
    capture = Capture("a", "test", tmp_path, (frame,))
    (written,) = write_images(capture, tmp_path / "out", as_png=[".webp"]).frames
    assert written.image.name == "a.png" and read_image(written.image)[0].equal(read_image(frame.image)[0])
    (kept,) = write_images(capture, tmp_path / "kept").frames
    assert kept.image.name == "a.WEBP"


def test_a_point_cloud_from_depth_lies_on_what_is_seen(tmp_path):
    own_captures.seven_scenes(tmp_path / "room")
    capture = read_capture(tmp_path / "room").select([0, 6])
    cloud = point_cloud(capture)
    assert cloud is not None and 15_000 < len(cloud.positions) < 50_000
    write_ply(tmp_path / "a.ply", cloud)
    trimesh = pytest.importorskip("trimesh")
    loaded = trimesh.load(tmp_path / "a.ply")
    np.testing.assert_allclose(np.asarray(loaded.vertices), cloud.positions.numpy(), atol=1e-5)
    assert cloud.colours is not None and np.array_equal(np.asarray(loaded.colors)[:, :3], cloud.colours.numpy())


@pytest.fixture
def captures(tmp_path):
    for number in range(5):
        folder = tmp_path / "captures" / f"object{number}"
        (folder / "images").mkdir(parents=True)
        names = [f"images/{n}.png" for n in range(3)]
        pixels = np.random.default_rng(number).integers(0, 255, (3, 24, 32, 4), dtype=np.uint8)
        for name, image in zip(names, pixels, strict=True):
            Image.fromarray(image).save(folder / name)
        write_cameras(folder / "transforms.json", names, ring(3, (24, 32), seed=number), centred="object")
    return tmp_path / "captures"


def test_shards_hold_the_scenes_and_an_interrupted_conversion_goes_on(captures, tmp_path):
    config = ShardConfig(image_size=(8, 12), scenes_per_shard=2)
    sources = sorted(captures.iterdir())

    def stored(path):
        return [scene_of(read_capture(path), path.name, config)]

    steps = write_shards(sources, tmp_path / "shards", config, stored)
    assert next(steps) == (2, 5)
    steps.close()  # interrupted after the first of three shards
    first = (tmp_path / "shards" / "shard-000000.tar").stat()
    read = []

    def counted(path):
        read.append(path.name)
        return stored(path)

    assert list(write_shards(sources, tmp_path / "shards", config, counted))[-1] == (5, 5)
    assert read == ["object2", "object3", "object4"]
    assert (tmp_path / "shards" / "shard-000000.tar").stat().st_mtime_ns == first.st_mtime_ns
    folder = ShardFolder(tmp_path / "shards")
    assert [folder.key(n) for n in range(len(folder))] == [f"object{n}" for n in range(5)]
    scene, capture = folder.read(3), read_capture(sources[3])
    focal = 0.5 / np.tan(np.radians(49.1) / 2)
    expected, cameras = fit_views(capture.images(), capture.cameras, (8, 12), focal)
    torch.testing.assert_close(scene.cameras.world_from_cam, cameras.world_from_cam)
    torch.testing.assert_close(scene.cameras.intrinsics, cameras.intrinsics)
    rgba = torch.from_numpy(scene.rgba).movedim(-1, 1).float() / 255
    on_white = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:]
    assert rgba[:, 3].min() < 0.9 and (on_white - expected).abs().max() < 1.5 / 255, "no fringe of what is under alpha"
    with pytest.raises(KaleidosceneError, match="begun with another image_size"):
        list(write_shards(sources, tmp_path / "shards", ShardConfig(image_size=(8, 8)), stored))
    (tmp_path / "shards" / "shard-000001.tar").write_bytes(b"changed")
    with pytest.raises(KaleidosceneError, match="shard-000001.tar: the shard is missing or has changed"):
        list(write_shards(sources, tmp_path / "shards", config, stored))


def test_opaque_scenes_are_opaque_where_the_image_is(tmp_path):
    capture = _capture(tmp_path / "in", Distortion())
    scene = scene_of(capture, "a", ShardConfig(image_size=(10, 10), field_of_view=80.0))
    alpha = scene.rgba[..., 3]
    assert alpha[:, 5, 5].min() == 255 and alpha[:, 0, 0].max() == 0  # white beyond the image is no object


def _with_depth(capture, folder):
    """Depths of 1 to 3 units in 16 bits, another one in every pixel."""
    frames = []
    for number, frame in enumerate(capture.frames):
        levels = np.random.default_rng(number).integers(1000, 3000, frame.image_size, dtype=np.uint16)
        Image.fromarray(levels).save(folder / f"depth_{number}.png")
        frames.append(replace(frame, depth=folder / f"depth_{number}.png"))
    return replace(capture, frames=tuple(frames))


@pytest.mark.parametrize("field_of_view", [None, 70.0])
def test_masks_become_the_alpha_of_shards_and_depth_is_stored_with_them(tmp_path, field_of_view):
    capture = _with_depth(_capture(tmp_path / "in", Distortion()), tmp_path / "in")
    h, w = capture.cameras.image_size
    size = (h, w) if field_of_view is None else (14, 20)
    config = ShardConfig(image_size=size, field_of_view=field_of_view, masked=True, depth=True)
    scene = scene_of(capture, "a", config)
    write_shard(tmp_path / "shard-000000.tar", [scene])
    scene = ShardFolder(tmp_path).read(0, depth=True)
    image, mask, depth = capture.images(masked=True), capture.masks(), capture.depths()
    depth = torch.where(mask[:, 0] > 0.5, depth, 0)
    if field_of_view is not None:
        focal = 0.5 / np.tan(np.radians(field_of_view) / 2)
        mask = 1 - fit_views((1 - mask).expand(-1, 3, -1, -1), capture.cameras, size, focal)[0][:, :1]
        depth = fit_depths(depth, capture.cameras, size, focal)
        image, _ = fit_views(image, capture.cameras, size, focal)
    rgba = torch.from_numpy(scene.rgba).movedim(-1, 1).float() / 255
    assert (rgba[:, 3:] - mask).abs().max() < 1 / 255 and mask.min() < 0.2
    assert (rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:] - image).abs().max() < 3 / 255
    torch.testing.assert_close(torch.from_numpy(scene.depth), depth, rtol=0, atol=3 / 65535)
    assert 0.3 < (depth == 0).float().mean() < 0.9, "masks are black in half of the pixels, and lenses may see more"
    without = scene_of(capture, "a", replace(config, masked=False))
    assert without.rgba[..., 3].min() == (255 if field_of_view is None else 0)  # white beyond the image
    assert scene_of(capture, "a", ShardConfig(image_size=size)).depth is None


def test_masks_and_depth_that_are_missing_are_named_and_those_left_behind_too(capsys, captures, tmp_path):
    def run(source, *argv):
        code = main([
            "convert", str(source), str(tmp_path / "out"), "--to", "shards", "--shards.image-size", "8", "12",
            "--shards.field-of-view", "None", *argv,
        ])  # fmt: skip
        return code, capsys.readouterr()

    for flag, word in (("--shards.masked", "mask"), ("--shards.depth", "depth map")):
        code, out = run(captures, flag)
        assert code == 1 and f"0.png has no {word}" in out.err and not list(tmp_path.glob("out/*.tar"))
        (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(SystemExit):
        run(captures, "--shards.masked", "--shards.image-format", "jpg")
    assert "jpg keeps no alpha" in capsys.readouterr().err
    capture = _with_depth(_capture(tmp_path / "in", Distortion()), tmp_path / "in")
    whole = tmp_path / "whole"
    whole.mkdir()
    WRITERS["nerfstudio"](capture, whole)
    code, out = run(whole)
    assert code == 0 and "Not stored: depth maps (--shards.depth) and masks (--shards.masked" in out.out
    code, out = run(whole, "--shards.masked")
    assert code == 1 and "begun with another masked" in out.err


def test_captures_may_keep_their_lens(tmp_path):
    """Cut about the middle to the aspect ratio alone, as recipes of many lenses take them."""
    capture = _capture(tmp_path / "in", Distortion())
    h, w = capture.cameras.image_size
    size = (h, h // 2)
    scene = scene_of(capture, "a", ShardConfig(image_size=size, field_of_view=None))
    assert scene.cameras is not None and scene.cameras.image_size == size
    left = (w - h // 2) // 2
    expected = (capture.images()[..., left : left + h // 2] * 255).round().to(torch.uint8).movedim(1, -1)
    assert np.array_equal(scene.rgba[..., :3], expected.numpy()) and (scene.rgba[..., 3] == 255).all()
    torch.testing.assert_close(scene.cameras.intrinsics[:, 0, 0], capture.cameras.intrinsics[:, 0, 0])
    moved = capture.cameras.intrinsics[:, 0, 2] - scene.cameras.intrinsics[:, 0, 2]
    torch.testing.assert_close(moved, torch.full_like(moved, left))


def test_convert_on_the_command_line(capsys, captures, tmp_path):
    def run(*argv):
        code = main([str(word) for word in argv])
        return code, capsys.readouterr()

    code, out = run("convert", captures, tmp_path / "shards", "--to", "shards", "--shards.image-size", 8, 8, "--json")
    assert code == 0 and "5 scenes of 5 captures" in out.out
    assert json.loads((tmp_path / "shards" / "manifest.json").read_text())["scenes"][4] == "object4"
    code, out = run("convert", captures / "object1", tmp_path / "ns", "--to", "nerfstudio")
    assert code == 0 and len(read_capture(tmp_path / "ns")) == 3
    code, out = run("convert", captures / "object1", tmp_path / "ns", "--to", "nerfstudio")
    assert code == 1 and "not empty" in out.err
    code, out = run("convert", captures / "object1", tmp_path / "l", "--to", "llff")
    assert code == 0 and "depth bounds are guessed" in out.out
    near, far = np.load(tmp_path / "l" / "poses_bounds.npy")[:, 15:].T
    assert np.allclose(far, 3 * near) and (1.5 * 0.5 <= near).all() and (far <= 2.2 * 1.5).all()
    code, out = run("convert", captures / "object1", tmp_path / "a.ply", "--to", "ply")
    assert code == 1 and "neither points nor depth maps" in out.err
    (tmp_path / "file").write_text("")
    code, out = run("convert", captures / "object1", tmp_path / "file" / "x", "--to", "nerfstudio")
    assert code == 1 and "cannot be made" in out.err and out.err.count("\n") == 1
    (captures / "object2" / "images" / "1.png").unlink()
    code, out = run("convert", captures, tmp_path / "more", "--to", "shards")
    assert code == 1 and "object2" in out.err and "the image is missing" in out.err  # refused, not skipped


def test_a_full_disk_ends_cleanly(capsys, captures, tmp_path, monkeypatch):
    """The system's own error at the third file; nothing with the final name is left."""
    done = []

    def full(source, target):
        done.append(target)
        if len(done) == 3:
            raise OSError(28, "No space left on device", str(target))
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr("kaleidoscene.captures.conversion.images.shutil.copyfile", full)
    code = main(["convert", str(captures / "object1"), str(tmp_path / "ns"), "--to", "nerfstudio"])
    error = capsys.readouterr().err
    assert code == 1 and "No space left on device" in error and error.count("\n") == 1
    assert not (tmp_path / "ns").exists() and not list(tmp_path.glob(".ns*"))


def test_unreadable_captures_are_left_out_up_to_a_share_and_named(capsys, captures, tmp_path):
    """Without a share the first one stops the work; with one it goes on from there, in the same folder."""
    (captures / "object3" / "transforms.json").write_text("{")
    shards = tmp_path / "shards"
    command = ["convert", str(captures), str(shards), "--to", "shards", "--shards.scenes-per-shard", "2"]
    assert main(command) == 1
    assert "object3" in (said := capsys.readouterr().err) and "unreadable sources" not in said
    assert main([*command, "--shards.damaged-share", "0.1"]) == 1
    assert "1 unreadable sources, 0.5 are allowed (--shards.damaged-share), the last: " in capsys.readouterr().err
    for _ in range(2):  # a second time: nothing to do, and the same is said
        assert main([*command, "--shards.damaged-share", "0.2"]) == 0
        said = capsys.readouterr().out
        assert "4 scenes of 5 captures" in said and "left out, unreadable: object3\n" in said
    (line,) = (shards / "left-out.txt").read_text().splitlines()
    assert line.startswith("object3: ") and "transforms.json" in line
    folder = ShardFolder(shards)
    assert [folder.key(n) for n in range(4)] == ["object0", "object1", "object2", "object4"]
    for number in (0, 1, 2, 4):
        (captures / f"object{number}" / "transforms.json").write_text("{")
    assert (
        main(["convert", str(captures), str(tmp_path / "no"), "--to", "shards", "--shards.damaged-share", "0.9"]) == 1
    )
    assert "5 unreadable sources, 4.5 are allowed" in capsys.readouterr().err
    assert not list((tmp_path / "no").glob("*.tar*"))


def test_camera_files_with_their_videos_are_a_folder_of_captures(capsys, tmp_path):
    """RealEstate10K as it lies when videos were fetched: NAME.txt beside NAME.mp4."""
    first, *rows = own_captures.re10k_lines(own_captures.truth()[:3])
    clips = tmp_path / "clips"
    clips.mkdir()
    for name, level in (("one", 60), ("two", 160)):
        write_clip(clips / f"{name}.mp4", [level] * 3)
        lines = [" ".join([str(time), *row.split()[1:]]) for time, row in zip((0, 100_000, 200_000), rows, strict=True)]
        (clips / f"{name}.txt").write_text("\n".join([first, *lines]))
    (clips / "gone.txt").write_text("\n".join([first, *rows]))  # its video is not to be had any more
    command = ["convert", str(clips), str(tmp_path / "shards"), "--to", "shards", "--shards.image-size", "18", "26"]
    assert main(command) == 1  # not taken for clips without cameras
    assert "camera files of RealEstate10K lie beside the videos; give --format re10k" in capsys.readouterr().err
    command += ["--format", "re10k"]
    assert main(command) == 1 and "gone" in capsys.readouterr().err
    assert main([*command, "--shards.damaged-share", "0.4"]) == 0
    assert "left out, unreadable: gone.txt" in capsys.readouterr().out
    folder = ShardFolder(tmp_path / "shards")
    assert [folder.key(n) for n in range(2)] == ["one", "two"] and folder.read(1).cameras.batch_shape == (3,)
    inside = folder.read(1).rgba[..., :3][folder.read(1).rgba[..., 3] == 255]
    assert abs(int(np.median(inside)) - 160) < 4
    write_clip(clips / "two.mp4", [40] * 4)  # another film under the same name
    assert main([*command, "--shards.damaged-share", "0.4"]) == 1
    assert "begun with another sources" in capsys.readouterr().err
    (clips / "empty.txt").write_text("")  # is a bad camera file, not none
    command[2] = str(tmp_path / "more")
    assert main([*command, "--shards.damaged-share", "0.5"]) == 0
    assert "left out, unreadable: empty.txt, gone.txt" in capsys.readouterr().out
    (clips / "alone").mkdir()
    command[2] = str(tmp_path / "none")
    assert main(command) == 1
    assert "alone: no camera file alone.txt beside it" in capsys.readouterr().err


def test_a_conversion_of_an_older_version_is_still_done(capsys, captures, tmp_path):
    command = ["convert", str(captures), str(tmp_path / "shards"), "--to", "shards"]
    assert main(command) == 0
    manifest = json.loads((tmp_path / "shards" / "manifest.json").read_text())
    assert manifest.pop("damaged") == {}  # was not noted once
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    assert main(command) == 0


def test_short_captures_are_left_out_and_another_lens_is_trained_on(capsys, captures, tmp_path):
    """From captures of unequal length to a model of their own field of view."""
    for number in (1, 3, 4):
        folder = captures / f"object{number}"
        names = [f"images/{n % 3}.png" for n in range(5)]
        write_cameras(folder / "transforms.json", names, ring(5, (24, 32), seed=number), centred="object")
    options = ["--shards.image-size", "32", "32", "--shards.least-views", "4", "--shards.field-of-view", "70"]
    shards, run = tmp_path / "shards", tmp_path / "run"
    for _ in range(2):  # a second time: nothing to do, and the same is said
        assert main(["convert", str(captures), str(shards), "--to", "shards", *options]) == 0
        said = capsys.readouterr().out
        assert "3 scenes of 5 captures" in said and "left out, under 4 views: object0, object2\n" in said
    assert (shards / "left-out.txt").read_text() == "object0\nobject2\n"
    assert ShardFolder(shards).fewest_views == 5
    none = ["convert", str(captures), str(tmp_path / "none"), "--to", "shards", "--shards.least-views"]
    assert main([*none, "9"]) == 1
    assert "nothing to store, all of 5 have less than 9 views" in capsys.readouterr().err
    assert main([*none, "5"]) == 0  # nothing is left that could stand in the way
    with pytest.raises(SystemExit):
        main([*none, "0"])
    assert "must be positive" in " ".join(capsys.readouterr().err.split())
    train = ["train", "kaleido-debug", "--out", str(run), "--shards", str(shards), "--data.batch-size", "2"]
    train += ["--train.steps", "1"]
    assert main(train) == 1
    error = capsys.readouterr().err  # windows are whole pixels of small images
    assert "views of 70." in error and "the recipe has 49.1; for those of the shards give --field-of-view" in error
    assert main([*train, "--field-of-view", "180"]) == 1
    assert "--field-of-view must be from 1 to below 180 degrees" in capsys.readouterr().err
    assert main(["train", "kaleido-debug", "--out", str(tmp_path / "own"), "--field-of-view", "70"]) == 1
    assert "--field-of-view is for shards that were made with another lens" in capsys.readouterr().err
    assert not (tmp_path / "own").exists()
    assert main([*train, "--field-of-view", "70"]) == 0
    model = load(run)
    assert model.system.focal_over_height == pytest.approx(0.5 / np.tan(np.radians(35)))
