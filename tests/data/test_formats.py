"""Readers on real captures, and what they refuse."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from anyview.data.formats import transforms_json
from anyview.data.formats.registry import read_capture
from anyview.data.images import read_image
from anyview.errors import AnyViewError
from anyview.geometry.normalisation import focus_point
from tests.conftest import REPOSITORY, ring

EXAMPLE = REPOSITORY / "examples" / "captures"


def test_blender_capture(shared_data):
    capture = read_capture(shared_data / "captures" / "chair_blender")
    assert (capture.format, len(capture), capture.centred) == ("blender", 100, "object")
    assert capture.cameras.image_size == (256, 256)
    assert capture.cameras.intrinsics[0, 0, 0].item() == pytest.approx(128 / math.tan(0.6911112 / 2), rel=1e-5)
    # All cameras look at the chair: the axes meet near the origin only if the axes were converted rightly.
    assert focus_point(capture.cameras).norm() < 0.2
    inward = (capture.cameras.directions * -capture.cameras.centres).sum(-1)
    assert (inward > 0).all()
    assert capture.select([3, 5]).images().shape == (2, 3, 256, 256)


def test_eschernet_capture(shared_data):
    capture = read_capture(shared_data / "captures" / "elephant_eschernet")
    assert (capture.format, len(capture), capture.name) == ("eschernet", 25, "elephant_eschernet")
    distance = capture.cameras.centres.norm(dim=-1)
    assert ((distance >= 1.49) & (distance <= 2.21)).all()
    assert focus_point(capture.cameras).norm() < 1e-3
    # The object's silhouette is where the cameras say the origin is.
    alphas = [read_image(path)[1] for path in capture.image_paths[:4]]
    for alpha in alphas:
        assert alpha is not None and alpha[246:266, 246:266].mean() > 0.1


def test_distortion_is_refused_and_without_it_the_nerfstudio_capture_reads(shared_data, tmp_path):
    source = shared_data / "captures" / "fox_nerfstudio"
    with pytest.raises(AnyViewError, match="lens distortion \\(k1, k2, p1, p2\\)"):
        read_capture(source)
    document = json.loads((source / "transforms.json").read_text())
    document = {k: v for k, v in document.items() if k not in ("k1", "k2", "p1", "p2")}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    (tmp_path / "images").symlink_to(source / "images")
    capture = read_capture(tmp_path)
    assert (capture.format, len(capture), capture.centred) == ("nerfstudio", 50, "scene")
    assert capture.cameras.image_size == (960, 540)
    ahead = focus_point(capture.cameras)
    assert (((ahead - capture.cameras.centres) * capture.cameras.directions).sum(-1) > 0).float().mean() > 0.9


@pytest.fixture
def capture_folder(tmp_path):
    """A transforms.json capture of 3 images of 12 x 20 pixels, written by the package."""
    folder = tmp_path / "capture"
    (folder / "images").mkdir(parents=True)
    cameras = ring(3, (12, 20))
    names = [f"images/{n}.png" for n in range(3)]
    for n, name in enumerate(names):
        Image.fromarray(np.full((12, 20, 3), 40 * n, np.uint8)).save(folder / name)
    transforms_json.write(folder / "transforms.json", names, cameras, centred="object")
    return folder


def test_written_transforms_read_back_exactly(capture_folder):
    capture = read_capture(capture_folder)
    assert torch.equal(capture.cameras.world_from_cam, ring(3, (12, 20)).world_from_cam)
    assert torch.equal(capture.cameras.intrinsics, ring(3, (12, 20)).intrinsics)
    assert capture.centred == "object"


def _edit(folder, change):
    file = folder / "transforms.json"
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))


def _no_focal(document):
    for holder in (document, *document["frames"]):
        for key in ("fl_x", "fl_y"):
            holder.pop(key, None)


BAD = {
    "no focal length": (_no_focal, "frame 0 has no focal length"),
    "no frames": (lambda d: d.update(frames=[]), "no frames"),
    "missing image": (lambda d: d["frames"][1].update(file_path="images/9.png"), "image of frame 1 is missing"),
    "no pose": (lambda d: d["frames"][2].pop("transform_matrix"), "frame 2 has no transform_matrix"),
    "no file": (lambda d: d["frames"][2].pop("file_path"), "frame 2 has no file_path"),
    "mirrored pose": (
        lambda d: d["frames"][1]["transform_matrix"][0].__setitem__(slice(0, 3), [9, 9, 9]),
        "Camera 1: .*not rigid",
    ),
    "pose not a matrix": (lambda d: d["frames"][0].update(transform_matrix=[[1, 2]]), "expected 4x4"),
    "size": (lambda d: [f.update(w=99) for f in d["frames"]], "transforms.json says 12x99"),
    "zero angle": (lambda d: [_no_focal(d), d.update(camera_angle_x=0)], "camera_angle_x must be between 0 and pi"),
    "text": (lambda d: d["frames"][1].update(cx="left"), "frame 1: cx must be a number, got 'left'"),
    "fisheye": (lambda d: d.update(camera_model="OPENCV_FISHEYE"), "camera model 'OPENCV_FISHEYE'"),
    "zero focal y": (lambda d: d["frames"][2].update(fl_y=0.0), "Camera 2: .*focal length"),
    "NaN": (lambda d: d["frames"][1]["transform_matrix"][1].__setitem__(3, float("nan")), "Camera 1: .*NaN"),
    "zero focal": (lambda d: d["frames"][2].update(fl_x=0.0, fl_y=-1.0), "Camera 2: .*focal length"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_transforms_are_refused(capture_folder, name):
    change, message = BAD[name]
    _edit(capture_folder, change)
    with pytest.raises(AnyViewError, match=message):
        read_capture(capture_folder)


def test_images_of_different_size_are_refused(capture_folder):
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(capture_folder / "images" / "1.png")
    _edit(capture_folder, lambda d: [h.pop(k, None) for h in (d, *d["frames"]) for k in ("w", "h")])
    with pytest.raises(AnyViewError, match="different size"):
        read_capture(capture_folder)


def test_a_truncated_image_is_named(capture_folder):
    file = capture_folder / "images" / "2.png"
    Image.effect_noise((20, 12), 90).save(file)
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(AnyViewError, match=r"2\.png: not a readable image"):
        read_capture(capture_folder).images()


def test_not_json_empty_folder_nothing_known_and_nothing_there(capture_folder, tmp_path):
    (capture_folder / "transforms.json").write_text("{")
    with pytest.raises(AnyViewError, match="not readable JSON"):
        read_capture(capture_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnyViewError, match="folder is empty"):
        read_capture(tmp_path / "empty")
    shutil.rmtree(capture_folder / "images")
    (capture_folder / "transforms.json").rename(capture_folder / "notes.txt")
    with pytest.raises(AnyViewError, match="no capture of a known format"):
        read_capture(capture_folder)
    with pytest.raises(AnyViewError, match="no such file or folder"):
        read_capture(tmp_path / "absent")
    with pytest.raises(AnyViewError, match="did you mean 'eschernet'"):
        read_capture(tmp_path, format="eschernett")


def test_eschernet_with_a_missing_image(shared_data, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(shared_data / "captures" / "elephant_eschernet" / "render_mvs_25" / "model", folder)
    (folder / "003.png").chmod(0o644)
    folder.chmod(0o755)
    (folder / "003.png").unlink()
    with pytest.raises(AnyViewError, match=r"003\.png: the image of 003\.npy is missing"):
        read_capture(folder)


@pytest.mark.parametrize("index", [3, -4])
def test_views_out_of_range_are_refused(capture_folder, index):
    with pytest.raises(AnyViewError, match=f"view {index} is out of range, the capture has views 0 to 2"):
        read_capture(capture_folder).select([0, index])


def test_images_of_every_mode_become_rgb(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    cases = {"grey.png": Image.fromarray(grey), "deep.png": Image.fromarray(grey.astype(np.uint16) * 256)}
    cases["cmyk.jpg"] = Image.fromarray(np.zeros((3, 4, 3), np.uint8)).convert("CMYK")
    for name, image in cases.items():
        image.save(tmp_path / name)
        assert read_image(tmp_path / name)[0].shape == (3, 3, 4)
    torch.testing.assert_close(read_image(tmp_path / "grey.png")[0][0], torch.from_numpy(grey) / 255)
    torch.testing.assert_close(read_image(tmp_path / "deep.png")[0][1], torch.from_numpy(grey) / 255)
    clear = Image.fromarray(np.full((3, 4, 4), 0, np.uint8))
    clear.save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png")[0].min() == 1  # white behind nothing


def test_a_photo_on_its_side_has_the_size_that_is_read(tmp_path):
    image = Image.fromarray(np.zeros((6, 10, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    from anyview.data.images import image_size

    assert image_size(tmp_path / "turned.jpg") == (10, 6) == tuple(read_image(tmp_path / "turned.jpg")[0].shape[-2:])


def test_one_view_of_a_scene_keeps_the_centre_of_all(shared_data, tmp_path):
    source = shared_data / "captures" / "fox_nerfstudio"
    document = json.loads((source / "transforms.json").read_text())
    document = {k: v for k, v in document.items() if k not in ("k1", "k2", "p1", "p2")}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    (tmp_path / "images").symlink_to(source / "images")
    capture = read_capture(tmp_path)
    one = capture.select([7])
    assert one.origin().equal(capture.origin())
    assert (one.origin() - one.cameras.centres[0]).norm() > 1
