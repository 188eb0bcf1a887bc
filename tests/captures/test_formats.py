"""Readers on real captures, and what they refuse."""

import gzip
import json
import math
import re
import shutil
import sqlite3
import struct

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats import dtu
from kaleidoscene.captures.formats.registry import read_capture, scan_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.geometry.normalisation import focus_point
from kaleidoscene.geometry.poses import invert
from kaleidoscene.geometry.rays import project, unproject
from kaleidoscene.images import files as images
from kaleidoscene.images.files import image_size, read_depth, read_image
from tests import own_captures
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


def write_rtmv(folder, views):
    import OpenEXR

    cameras = ring(views, (12, 20))
    for number in range(views):
        rgba = np.random.default_rng(number).random((12, 20, 4), dtype=np.float32) * 1.5
        with OpenEXR.File({"compression": OpenEXR.NO_COMPRESSION}, {"RGBA": rgba}) as file:
            file.write(str(folder / f"{number:05d}.exr"))
        matrix = cameras.world_from_cam[number].double().numpy() @ np.diag([1.0, -1, -1, 1])
        focal, (x, y) = cameras.intrinsics[number, 0, 0].item(), cameras.intrinsics[number, :2, 2].tolist()
        lens = {"fx": focal, "fy": focal, "cx": x, "cy": y}
        camera = {"width": 20, "height": 12, "cam2world": matrix.T.tolist(), "intrinsics": lens}
        (folder / f"{number:05d}.json").write_text(json.dumps({"camera_data": camera, "objects": []}))


def test_rtmv_capture(tmp_path):
    """Files as the data set has them: RGBA in linear floats, the pose transposed and in OpenGL axes."""
    import OpenEXR

    cameras, values = ring(3, (6, 10)), np.linspace(-0.5, 2.5, 6 * 10 * 4, dtype=np.float32).reshape(6, 10, 4)
    for number in range(3):
        with OpenEXR.File({}, {"RGBA": values.astype(np.float16 if number else np.float32)}) as file:
            file.write(str(tmp_path / f"{number:05d}.exr"))
        with OpenEXR.File({}, {"RGB": values[:3, :, :3]}) as file:
            file.write(str(tmp_path / f"{number:05d}.depth.exr"))
        pose = cameras.world_from_cam[number].double() @ torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
        lens = {"fx": 11.0, "fy": 12.0, "cx": 4.5, "cy": 3.5}
        camera = {"width": 10, "height": 6, "cam2world": pose.mT.tolist(), "intrinsics": lens}
        camera["scene_center_3d_box"] = [0.5, -0.25, 2]
        (tmp_path / f"{number:05d}.json").write_text(json.dumps({"camera_data": camera}))
    capture = read_capture(tmp_path)
    assert (capture.format, len(capture), capture.cameras.image_size) == ("rtmv", 3, (6, 10))
    assert capture.origin().tolist() == [0.5, -0.25, 2.0]
    torch.testing.assert_close(capture.cameras.world_from_cam, cameras.world_from_cam)
    assert capture.cameras.intrinsics[1].tolist() == [[11, 0, 4.5], [0, 12, 3.5], [0, 0, 1]]
    expected = torch.from_numpy(values[..., :3]).clamp(0, 1).movedim(-1, 0)
    torch.testing.assert_close(capture.images()[0], expected)
    torch.testing.assert_close(capture.images()[2], expected, rtol=0, atol=2e-3)

    def refused(message, change):
        document = json.loads((tmp_path / "00001.json").read_text())
        change(document["camera_data"])
        shutil.copytree(tmp_path, tmp_path / "bad")
        (tmp_path / "bad" / "00001.json").write_text(json.dumps(document))
        with pytest.raises(KaleidosceneError, match=message):
            read_capture(tmp_path / "bad").images()
        shutil.rmtree(tmp_path / "bad")

    refused("frame 1 .00001.exr.*6x10.*6x11", lambda camera: camera.update(width=11))
    refused("fx has 'wide', expected a number", lambda camera: camera["intrinsics"].update(fx="wide"))
    refused("width has '1000+', expected a number", lambda camera: camera.update(width=10**400))
    refused("cam2world is no 4x4 matrix", lambda camera: camera.update(cam2world=[[1, 0, 0, 0]] * 3))
    refused("cam2world has '0', expected a number", lambda camera: camera.update(cam2world=[[1, 0, 0, "0"]] * 4))
    refused("frame 1 .00001.exr.: the last row of the pose", lambda camera: camera.update(cam2world=[[2, 0, 0, 0]] * 4))
    for end, what in ((".json", "camera"), (".exr", "image")):
        shutil.copytree(tmp_path, tmp_path / "gap")
        (tmp_path / "gap" / f"00001{end}").unlink()
        with pytest.raises(KaleidosceneError, match=f"the {what} of view 00001 is missing .expected 00001{end}"):
            read_capture(tmp_path / "gap")
        (tmp_path / "gap" / "00001.exr").unlink(missing_ok=True)
        (tmp_path / "gap" / "00001.json").unlink(missing_ok=True)
        with pytest.raises(KaleidosceneError, match="the image of view 00001 is missing"):
            read_capture(tmp_path / "gap")
        shutil.rmtree(tmp_path / "gap")


def test_rtmv_is_checked_and_converted_like_other_captures(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    write_rtmv(tmp_path / "in", 4)
    assert main(["convert", str(tmp_path / "in"), str(tmp_path / "out"), "--to", "nerfstudio"]) == 0
    source, copy = read_capture(tmp_path / "in"), read_capture(tmp_path / "out")
    torch.testing.assert_close(copy.images(), source.images(), rtol=0, atol=0.5 / 255 + 1e-6)
    torch.testing.assert_close(copy.cameras.world_from_cam, source.cameras.world_from_cam)
    for number in (1, 2):
        path = tmp_path / "in" / f"{number:05d}.exr"
        path.write_bytes(path.read_bytes()[:200])
    capsys.readouterr()
    assert main(["check", str(tmp_path / "in")]) == 1
    told = capsys.readouterr().out
    assert "00001.exr" in told and "00002.exr" in told
    shutil.copyfile(tmp_path / "in" / "00000.exr", tmp_path / "out" / "images" / "00000.exr")
    document = tmp_path / "out" / "transforms.json"
    document.write_text(document.read_text().replace("00000.png", "00000.exr"))
    with pytest.raises(KaleidosceneError, match="an OpenEXR image, which is read for RTMV only"):
        read_capture(tmp_path / "out")


def test_bad_openexr_images_are_refused(tmp_path, monkeypatch):
    import OpenEXR

    grey, broken = tmp_path / "grey.exr", tmp_path / "broken.exr"
    with OpenEXR.File({}, {"Y": np.ones((4, 6), np.float32)}) as file:
        file.write(str(grey))
    with pytest.raises(KaleidosceneError, match=f"^{re.escape(str(grey))}: channels Y, B is missing.$"):
        read_image(grey)
    with OpenEXR.File({}, {"RGB": np.full((4, 6, 3), 128, np.uint32)}) as file:
        file.write(str(broken))
    with pytest.raises(KaleidosceneError, match="no floating-point numbers"):
        read_image(broken)
    window = (np.array([2, 3], np.int32), np.array([11, 9], np.int32))
    with OpenEXR.File({"displayWindow": window}, {"RGB": np.ones((4, 6, 3), np.float32)}) as file:
        file.write(str(broken))
    with pytest.raises(KaleidosceneError, match="a part of its picture only"):
        read_image(broken)
    with OpenEXR.File({}, {"RGB": np.full((4, 6, 3), np.inf, np.float32)}) as file:
        file.write(str(broken))
    with pytest.raises(KaleidosceneError, match="values that are not finite"):
        read_image(broken)
    broken.write_bytes(grey.read_bytes()[:150])
    whole = np.random.default_rng(0).random((40, 60, 3), dtype=np.float32)
    with OpenEXR.File({}, {"RGB": whole}) as file:
        file.write(str(tmp_path / "cut.exr"))
    assert image_size(tmp_path / "cut.exr") == (40, 60)
    (tmp_path / "cut.exr").write_bytes((tmp_path / "cut.exr").read_bytes()[:900])
    with pytest.raises(KaleidosceneError, match="damaged|not a readable OpenEXR"):
        read_image(tmp_path / "cut.exr")
    monkeypatch.setattr(images, "_MOST_PIXELS", 20)
    with pytest.raises(KaleidosceneError, match="4x6 pixels are more than is read"):
        read_image(grey)
    for path, message in ((broken, "not a readable OpenEXR image"), (tmp_path / "none.exr", "no such image")):
        with pytest.raises(KaleidosceneError, match=message):
            read_image(path)


def looks_at_its_subject(capture) -> float:
    """Share of the cameras that have the capture's middle in front of them."""
    ahead = capture.origin() - capture.cameras.centres
    return float(((ahead * capture.cameras.directions).sum(-1) > 0).float().mean())


def test_nerfstudio_capture_with_distortion(shared_data):
    capture = read_capture(shared_data / "captures" / "fox_nerfstudio")
    assert (capture.format, len(capture), capture.centred) == ("nerfstudio", 50, "scene")
    first = capture.frames[0]
    assert first.distortion == Distortion.opencv(0.0578421, -0.0805099, -0.000980296, 0.00015575)
    assert first.intrinsics is not None and first.intrinsics[0, 0] == 687.76 and first.intrinsics[1, 2] == 482.634
    assert capture.cameras.image_size == (960, 540) and looks_at_its_subject(capture) == 1
    # Undistorted: the widest pinhole inside sees a little less than the lens.
    assert 1.0 < capture.cameras.intrinsics[0, 0, 0] / 687.76 < 1.05


def test_colmap_binary_with_points(shared_data):
    pytest.importorskip("pycolmap")
    capture = read_capture(shared_data / "captures" / "papercup_colmap")
    assert (capture.format, len(capture), capture.common_size) == ("colmap", 77, (600, 800))
    assert capture.points is not None and len(capture.points.positions) == 9262
    assert looks_at_its_subject(capture) == 1
    # COLMAP's own projection of its points is within a pixel or so of where it saw them.
    cameras, points = capture.exact_cameras, capture.points.positions
    pixels, depth = project(cameras, points.expand(len(cameras), -1, -1))
    inside = (depth > 0) & (pixels > 0).all(-1) & (pixels[..., 0] < 800) & (pixels[..., 1] < 600)
    assert inside.float().mean() > 0.6


def test_colmap_with_one_camera_an_image_portrait_and_landscape(shared_data):
    pytest.importorskip("pycolmap")
    capture = read_capture(shared_data / "captures" / "mouse_colmap")
    assert len(capture) == 56 and {frame.image_size for frame in capture.frames} == {(1440, 1920), (1920, 1440)}
    assert any("3 of 59 images have no pose" in note for note in capture.notes)
    assert capture.common_size == (1440, 1440)
    upright = next(n for n, frame in enumerate(capture.frames) if frame.image_size == (1920, 1440))
    k = capture.frames[upright].intrinsics
    assert k is not None and k[1, 2] == 960
    assert capture.cameras.intrinsics[upright, 1, 2] == 720  # cropped about the middle, and the camera with it
    assert capture.select([upright]).images().shape == (1, 3, 1920, 1440)


def test_colmap_text_with_radial_distortion(shared_data):
    pytest.importorskip("pycolmap")
    capture = read_capture(shared_data / "captures" / "lund_door_colmap_txt")
    assert len(capture) == 12 and capture.common_size == (1936, 1296)
    assert capture.frames[0].distortion == Distortion.opencv(-0.0336422)
    assert [frame.name for frame in capture.frames] == sorted(frame.name for frame in capture.frames)
    line = "1 0.983789 0.00113517 0.176825 -0.0298644 -7.60712 0.428157 2.75243"  # image 1 of images.txt
    w, x, y, z, *t = (float(word) for word in line.split()[1:])
    first = next(frame for frame in capture.frames if frame.name == "DSC_0001.JPG")
    assert first.world_from_cam is not None
    moved = invert(first.world_from_cam)
    torch.testing.assert_close(moved[:3, 3], torch.tensor(t, dtype=torch.float64), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(moved[0, 1], torch.tensor(2 * (x * y - w * z)).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "count", "size", "focal"),
    [("fern_llff", 20, (378, 504), 3260.526 * 504 / 4032), ("maryrose_llff", 69, (432, 432), 10547.2437 / 8)],
)
def test_llff(shared_data, name, count, size, focal):
    capture = read_capture(shared_data / "captures" / name)
    assert (capture.format, len(capture), capture.common_size) == ("llff", count, size)
    assert capture.cameras.intrinsics[0, 0, 0].item() == pytest.approx(focal, rel=1e-5)
    assert looks_at_its_subject(capture) == 1
    masked = [frame.mask for frame in capture.frames if frame.mask is not None]
    assert len(masked) == (69 if "mary" in name else 0)
    if masked:
        white = capture.images(masked=True, only=[4])
        assert (white == 1).float().mean() > 0.3 > (capture.images(only=[4]) == 1).float().mean()


def test_dtu(shared_data):
    capture = read_capture(shared_data / "captures" / "scan24_dtu")
    assert (capture.format, len(capture), capture.common_size) == ("dtu", 49, (384, 384))
    k = capture.cameras.intrinsics[0]
    # The photograph's focal length of 2892.33 and principal point (823.2, 619.1), cut to its middle square of 1200.
    expected = torch.tensor([2892.33, 823.205 - 200, 619.071]) * 384 / 1200
    torch.testing.assert_close(torch.stack([k[0, 0], k[0, 2], k[1, 2]]), expected, rtol=1e-4, atol=0.05)
    assert looks_at_its_subject(capture) == 1
    distance = capture.cameras.centres.norm(dim=-1)
    assert distance.min() > 1.5 and distance.max() < 6  # in units of the sphere about the object


def test_the_projection_matrix_comes_back_from_its_parts():
    cameras = ring(5, (48, 64), seed=3).to(torch.float64)
    projections = cameras.intrinsics @ cameras.cam_from_world[:, :3]
    for number, factor in enumerate((1.0, -2.0, 0.3, 1e3, -1e-2)):
        intrinsics, pose = dtu.decompose(factor * projections[number], where="here")
        # The cameras were made in single precision, so that their rotations are orthonormal to 1e-7 only.
        torch.testing.assert_close(intrinsics, cameras.intrinsics[number], rtol=1e-6, atol=1e-5)
        torch.testing.assert_close(pose, cameras.world_from_cam[number], rtol=1e-6, atol=1e-6)
    with pytest.raises(KaleidosceneError, match="here: .*singular"):
        dtu.decompose(torch.ones(3, 4, dtype=torch.float64), where="here")


def test_co3d_sample(shared_data):
    capture = read_capture(shared_data / "captures" / "apple_co3d")
    assert (capture.format, len(capture), capture.common_size) == ("co3d", 20, (1896, 1066))
    assert capture.cameras.intrinsics[0, 0, 0].item() == pytest.approx(3.5171254 * 533, rel=1e-5)
    assert looks_at_its_subject(capture) == 1


def test_7scenes_with_depth(shared_data):
    capture = read_capture(shared_data / "captures" / "redkitchen_7scenes")
    assert (capture.format, len(capture), capture.common_size) == ("7scenes", 200, (480, 640))
    assert sum(frame.depth is not None for frame in capture.frames) == 50
    depth = capture.depths(only=[0])[0]
    assert 0.5 < depth[depth > 0].median() < 5  # metres
    # What one frame sees with its depth is where another sees it too: both the poses and the depth are right.
    known = depth[60:420:40, 80:560:40].flatten() > 0
    world = unproject(capture.exact_cameras[0], depth.double())[60:420:40, 80:560:40].reshape(-1, 3)[known]
    pixels, ahead = project(capture.exact_cameras[4], world)
    assert (ahead > 0).all() and ((pixels > 0) & (pixels < pixels.new_tensor([640, 480]))).all(-1).float().mean() > 0.6


def test_photos_videos_and_where_their_focal_length_is_from(shared_data):
    lund = read_capture(shared_data / "photos" / "lund")
    assert (lund.format, len(lund), lund.is_posed) == ("photos", 29, False)
    assert any("29 images from their EXIF" in note for note in lund.notes)
    assert lund.frames[0].intrinsics is not None
    # 35 mm equivalent of 35 mm on the diagonal of 36 x 24.
    assert float(lund.frames[0].intrinsics[0, 0]) == pytest.approx(35 * math.hypot(768, 1024) / math.hypot(36, 24))
    kitchen = read_capture(shared_data / "photos" / "kitchen")
    assert any("14 images estimated" in note for note in kitchen.notes)
    single = read_capture(shared_data / "photos" / "single" / "llff-room.jpg")
    assert len(single) == 1 and single.images().shape == (1, 3, 576, 768)
    with pytest.raises(KaleidosceneError, match="has no pose; estimate cameras with 'kaleidoscene pose'"):
        lund.cameras  # noqa: B018
    video = read_capture(shared_data / "videos" / "vggt_room.mp4")
    times = [frame.time for frame in video.frames]
    assert (video.format, len(video), times[0]) == ("video", 8, 0.0) and times == sorted(times)
    images = video.select([2, 5]).images()
    assert images.shape == (2, 3, 384, 512) and (images[0] - images[1]).abs().mean() > 0.01


@pytest.mark.parametrize("place", ["room", pytest.param("published", marks=pytest.mark.real_data)])
def test_re10k_with_images_video_and_nothing(place, request, tmp_path):
    source = tmp_path / "alone.txt"
    if place == "room":
        source.write_text("\n".join(own_captures.re10k_lines(own_captures.truth())))
    else:
        folder = request.getfixturevalue("shared_data") / "captures" / "trajectories_re10k"
        shutil.copyfile(folder / "0bf152ef84195293.txt", source)
    lines = source.read_text().splitlines()
    with pytest.raises(KaleidosceneError, match="the image is missing"):
        read_capture(source)
    assert len(scan_capture(source).cameras) == len(lines) - 1  # cameras alone are a camera path
    stamps = [line.split()[0] for line in lines[1:4]]
    (tmp_path / "clip").mkdir()
    for number, stamp in enumerate(stamps):
        Image.fromarray(np.full((9, 16, 3), 60 * number, np.uint8)).save(tmp_path / "clip" / f"{stamp}.png")
    (tmp_path / "clip.txt").write_text("\n".join(lines[:4]))
    capture = read_capture(tmp_path / "clip")
    assert (capture.format, len(capture), capture.common_size) == ("re10k", 3, (9, 16))
    k = capture.frames[0].intrinsics
    fx, fy, cx = (float(word) for word in lines[1].split()[1:4])
    assert k is not None and k[0, 0] == fx * 16 and k[1, 1] == fy * 9 and k[0, 2] == cx * 16
    cam_from_world = torch.tensor([float(word) for word in lines[1].split()[7:]], dtype=torch.float64).view(3, 4)
    assert capture.frames[0].world_from_cam is not None
    torch.testing.assert_close(invert(capture.frames[0].world_from_cam)[:3], cam_from_world)
    shutil.rmtree(tmp_path / "clip")
    write_clip(tmp_path / "clip.mp4", [40, 90, 140, 190, 240])
    times = [0, 200_000, 400_000]
    rows = [" ".join([str(t), *line.split()[1:]]) for t, line in zip(times, lines[1:], strict=False)]
    (tmp_path / "clip.txt").write_text("\n".join([lines[0], *rows]))
    capture = read_capture(tmp_path / "clip.txt")
    assert [frame.position for frame in capture.frames] == [0, 2, 4]
    torch.testing.assert_close(capture.images().mean((1, 2, 3)), torch.tensor([40, 140, 240]) / 255, rtol=0, atol=0.02)
    (tmp_path / "clip.txt").write_text("\n".join([lines[0], rows[0], " ".join(["9000000", *lines[1].split()[1:]])]))
    with pytest.raises(KaleidosceneError, match="no frame at 9.000 s"):
        read_capture(tmp_path / "clip.txt")


def write_clip(path, levels):
    """A video of plain grey frames, ten a second."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for level in levels:
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def pytorch3d_of(cameras, number):
    """R, T, focal length and principal point (isotropic NDC) that PyTorch3D would have for one of our cameras."""
    flip = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
    cam_from_world = cameras.cam_from_world[number].double()
    half = min(cameras.image_size) / 2
    k = cameras.intrinsics[number].double()
    centre = torch.tensor([cameras.image_size[1], cameras.image_size[0]], dtype=torch.float64) / 2
    rotation = (flip @ cam_from_world[:3, :3]).mT.contiguous()
    return rotation, flip @ cam_from_world[:3, 3], k.diagonal()[:2] / half, (centre - k[:2, 2]) / half


def test_co3d_annotations_of_a_sequence(tmp_path):
    """Cameras that are written as PyTorch3D has them come back, in both of its coordinates."""
    cameras = ring(3, (24, 36), seed=5)
    cameras.intrinsics[:, 0, 2] += 2.5
    entries = []
    (tmp_path / "apple" / "110_1" / "images").mkdir(parents=True)
    for number in range(3):
        rotation, translation, focal, principal = pytorch3d_of(cameras, number)
        viewpoint = {"R": rotation.tolist(), "T": translation.tolist(), "intrinsics_format": "ndc_isotropic"}
        if number == 2:  # the older coordinates span [-1, 1] on both sides
            scale = torch.tensor([24 / 36, 1.0])
            focal, principal = focal * scale, principal * scale
            viewpoint.pop("intrinsics_format")
        viewpoint |= {"focal_length": focal.tolist(), "principal_point": principal.tolist()}
        name = f"apple/110_1/images/frame{number:06d}.jpg"
        Image.fromarray(np.zeros((24, 36, 3), np.uint8)).save(tmp_path / name)
        entry = {"sequence_name": "110_1", "frame_number": number, "frame_timestamp": number / 10}
        entries.append({**entry, "image": {"path": name, "size": [24, 36]}, "viewpoint": viewpoint, "mask": None})
    with gzip.open(tmp_path / "apple" / "frame_annotations.jgz", "wt") as file:
        json.dump([entries[1], entries[0], entries[2]], file)
    for path in (tmp_path / "apple" / "110_1", tmp_path / "apple"):
        capture = read_capture(path)
        assert (capture.format, [frame.time for frame in capture.frames]) == ("co3d", [0, 0.1, 0.2])
        torch.testing.assert_close(capture.cameras.world_from_cam, cameras.world_from_cam)
        torch.testing.assert_close(capture.cameras.intrinsics, cameras.intrinsics)
    (tmp_path / "apple" / "x" / "images").mkdir(parents=True)
    with pytest.raises(KaleidosceneError, match="give the folder of one sequence"):
        read_capture(tmp_path / "apple" / "x", format="co3d")
    (tmp_path / "apple" / "set_lists").mkdir()
    other = json.loads(json.dumps(entries).replace("110_1", "90_2"))
    shutil.copytree(tmp_path / "apple" / "110_1", tmp_path / "apple" / "90_2")
    with gzip.open(tmp_path / "apple" / "frame_annotations.jgz", "wt") as file:
        json.dump([*entries, *other], file)
    assert main(["convert", str(tmp_path / "apple"), str(tmp_path / "shards"), "--to", "shards"]) == 0
    assert json.loads((tmp_path / "shards" / "manifest.json").read_text())["scenes"] == ["110_1", "90_2"]


def test_uco3d_sequence(tmp_path):
    cameras = ring(3, (32, 48), seed=6)
    folder = tmp_path / "food" / "apple" / "1-2-3"
    folder.mkdir(parents=True)
    write_clip(folder / "rgb_video.mp4", [30, 80, 130, 180])
    database = sqlite3.connect(tmp_path / "metadata.sqlite")
    columns = "_viewpoint_R, _viewpoint_T, _viewpoint_focal_length, _viewpoint_principal_point"
    database.execute(
        "CREATE TABLE frame_annots (sequence_name TEXT, frame_number INT, frame_timestamp REAL, _image_size BLOB, "
        f"{columns.replace(',', ' BLOB,')} BLOB, _viewpoint_colmap_distortion_coeffs BLOB, "
        "_viewpoint_intrinsics_format TEXT)"
    )
    database.execute("CREATE TABLE sequence_annots (sequence_name TEXT, _video_path TEXT)")
    database.execute("INSERT INTO sequence_annots VALUES ('1-2-3', 'food/apple/1-2-3/rgb_video.mp4')")
    for number in range(3):
        rotation, translation, focal, principal = pytorch3d_of(cameras, number)
        packed = [struct.pack("2i", 32, 48), struct.pack("9f", *rotation.flatten()), struct.pack("3f", *translation)]
        packed += [struct.pack("2f", *focal), struct.pack("2f", *principal), struct.pack("12f", 0.1, *[0] * 11)]
        row = ("1-2-3", number, number / 10, *packed, "ndc_isotropic")
        database.execute(f"INSERT INTO frame_annots VALUES ({', '.join('?' * len(row))})", row)
    database.commit()
    database.close()
    capture = read_capture(folder)
    assert (capture.format, [frame.position for frame in capture.frames]) == ("uco3d", [0, 1, 2])
    torch.testing.assert_close(capture.cameras.world_from_cam, cameras.world_from_cam)
    assert capture.frames[0].distortion.coefficients == (pytest.approx(0.1),)
    assert capture.frames[1].intrinsics is not None
    torch.testing.assert_close(capture.frames[1].intrinsics.float(), cameras.intrinsics[1])
    (folder.parent / "other").mkdir()
    shutil.copy(folder / "rgb_video.mp4", folder.parent / "other")
    with pytest.raises(KaleidosceneError, match="the sequence 'other' has no frames"):
        read_capture(folder.parent / "other")


def test_scannet_leaves_lost_frames_out(tmp_path):
    cameras = ring(3, (12, 20), seed=7)
    for name in ("color", "pose", "intrinsic", "depth"):
        (tmp_path / name).mkdir()
    for number in range(3):
        Image.fromarray(np.full((12, 20, 3), 50, np.uint8)).save(tmp_path / "color" / f"{number * 5}.jpg")
        rows = cameras.world_from_cam[number].tolist() if number != 1 else [[float("-inf")] * 4] * 4
        text = "\n".join(" ".join(map(repr, row)) for row in rows)
        (tmp_path / "pose" / f"{number * 5}.txt").write_text(text)
    matrix = torch.eye(4)
    matrix[:3, :3] = cameras.intrinsics[0]
    np.savetxt(tmp_path / "intrinsic" / "intrinsic_color.txt", matrix.numpy())
    capture = read_capture(tmp_path)
    assert (capture.format, [frame.name for frame in capture.frames]) == ("scannet", ["0.jpg", "10.jpg"])
    assert any("1 of 3 frames left out" in note for note in capture.notes)
    torch.testing.assert_close(capture.cameras.world_from_cam, cameras.world_from_cam[[0, 2]])
    torch.testing.assert_close(capture.cameras.intrinsics[0], cameras.intrinsics[0])


def test_dl3dv_layout_with_reduced_images(tmp_path):
    """DL3DV names full-size images, and the archive has them reduced by four."""
    cameras = ring(2, (48, 88), seed=8)
    (tmp_path / "nerfstudio" / "images_4").mkdir(parents=True)
    names = [f"images/frame_{n:05d}.png" for n in (1, 2)]
    for name in names:
        Image.fromarray(np.zeros((12, 22, 3), np.uint8)).save(
            tmp_path / "nerfstudio" / name.replace("images", "images_4")
        )
    write_cameras(tmp_path / "nerfstudio" / "transforms.json", names, cameras)
    capture = read_capture(tmp_path)
    assert capture.common_size == (12, 22) and any("reduced by 4" in note for note in capture.notes)
    torch.testing.assert_close(capture.cameras.intrinsics, cameras.resize(12, 22).intrinsics)


@pytest.fixture
def capture_folder(tmp_path):
    """A transforms.json capture of 3 images of 12 x 20 pixels, written by the package."""
    folder = tmp_path / "capture"
    (folder / "images").mkdir(parents=True)
    cameras = ring(3, (12, 20))
    names = [f"images/{n}.png" for n in range(3)]
    for n, name in enumerate(names):
        Image.fromarray(np.full((12, 20, 3), 40 * n, np.uint8)).save(folder / name)
    write_cameras(folder / "transforms.json", names, cameras, centred="object")
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
    "no focal length": (_no_focal, "frame 0 .*no focal length is given"),
    "no frames": (lambda d: d.update(frames=[]), "no frames"),
    "missing image": (lambda d: d["frames"][1].update(file_path="images/9.png"), "frame 1 .*the image is missing"),
    "no pose": (lambda d: d["frames"][2].pop("transform_matrix"), "frame 2 has no transform_matrix"),
    "no file": (lambda d: d["frames"][2].pop("file_path"), "frame 2 has no file_path"),
    "mirrored pose": (
        lambda d: d["frames"][1]["transform_matrix"][0].__setitem__(slice(0, 3), [9, 9, 9]),
        "frame 1 .*not rigid",
    ),
    "pose not a matrix": (lambda d: d["frames"][0].update(transform_matrix=[[1, 2]]), "expected 4x4"),
    "size": (lambda d: [f.update(w=99) for f in d["frames"]], "frame 0 .*the image is 12x20, its camera says 12x99"),
    "zero angle": (
        lambda d: [_no_focal(d), d.update(camera_angle_x=0)],
        "camera_angle_x of 0.* must be between 0 and pi",
    ),
    "text": (lambda d: d["frames"][1].update(cx="left"), "frame 1 has a cx that is no number: 'left'"),
    "lens": (lambda d: d.update(camera_model="EQUIRECTANGULAR"), "camera model 'EQUIRECTANGULAR'"),
    "ambiguous lens": (lambda d: d.update(camera_model="OPENCV", k4=0.1), "k4 with camera model OPENCV"),
    "leads out": (lambda d: d["frames"][0].update(file_path="../a.png"), "frame 0 leads out of the capture folder"),
    "absolute": (lambda d: d["frames"][0].update(file_path="/etc/passwd"), "frame 0 leads out of the capture folder"),
    "NUL in a name": (lambda d: d["frames"][0].update(file_path="a\0b"), "impossible name"),
    "zero focal y": (lambda d: d["frames"][2].update(fl_y=0.0), "frame 2 .*the focal length must be positive"),
    "NaN": (
        lambda d: d["frames"][1]["transform_matrix"][1].__setitem__(3, float("nan")),
        "not readable JSON .NaN is not a number",
    ),
    "zero focal": (lambda d: d["frames"][2].update(fl_x=0.0, fl_y=-1.0), "frame 2 .*the focal length must be positive"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_bad_transforms_are_refused(capture_folder, name):
    change, message = BAD[name]
    _edit(capture_folder, change)
    with pytest.raises(KaleidosceneError, match=message):
        read_capture(capture_folder)


def test_images_of_different_size_are_cropped_to_the_smallest(capture_folder):
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(capture_folder / "images" / "1.png")
    _edit(capture_folder, lambda d: d["frames"][1].update(h=10))
    capture = read_capture(capture_folder)
    assert capture.common_size == (10, 20) and capture.images().shape == (3, 3, 10, 20)
    whole = ring(3, (12, 20)).intrinsics
    torch.testing.assert_close(capture.cameras.intrinsics[0], ring(3, (12, 20))[0].crop(1, 0, 10, 20).intrinsics)
    torch.testing.assert_close(capture.cameras.intrinsics[1], whole[1])


def test_a_truncated_image_is_named(capture_folder):
    file = capture_folder / "images" / "2.png"
    Image.effect_noise((20, 12), 90).save(file)
    file.write_bytes(file.read_bytes()[:-60])
    with pytest.raises(KaleidosceneError, match=r"2\.png: not a readable image"):
        read_capture(capture_folder).images()


def test_not_json_empty_folder_nothing_known_and_nothing_there(capture_folder, tmp_path):
    (capture_folder / "transforms.json").write_text("{")
    with pytest.raises(KaleidosceneError, match="not readable JSON"):
        read_capture(capture_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(KaleidosceneError, match="folder is empty"):
        read_capture(tmp_path / "empty")
    shutil.rmtree(capture_folder / "images")
    (capture_folder / "transforms.json").rename(capture_folder / "notes.txt")
    with pytest.raises(KaleidosceneError, match="no capture of a known format"):
        read_capture(capture_folder)
    with pytest.raises(KaleidosceneError, match="no such file or folder"):
        read_capture(tmp_path / "absent")
    with pytest.raises(KaleidosceneError, match="did you mean 'eschernet'"):
        read_capture(tmp_path, format="eschernett")


def test_eschernet_with_a_missing_image(tmp_path):
    own_captures.eschernet(tmp_path)
    folder = tmp_path / "render_mvs_25" / "model"
    (folder / "003.png").unlink()
    with pytest.raises(KaleidosceneError, match=r"frame 3 .* the image is missing: .*003\.png"):
        read_capture(folder)


@pytest.mark.parametrize("index", [3, -4])
def test_views_out_of_range_are_refused(capture_folder, index):
    with pytest.raises(KaleidosceneError, match=f"view {index} is out of range, the capture has views 0 to 2"):
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


def test_depth_levels_and_those_that_mean_unknown(tmp_path):
    levels = np.array([[0, 500, 65535], [2000, 1, 65534]], np.uint16)
    Image.fromarray(levels).save(tmp_path / "depth.png")
    expected = torch.tensor([[0.0, 0.5, 0.0], [2.0, 0.001, 65.534]])
    torch.testing.assert_close(read_depth(tmp_path / "depth.png", 0.001), expected)
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(tmp_path / "colour.png")
    with pytest.raises(KaleidosceneError, match="one channel, this image has 3"):
        read_depth(tmp_path / "colour.png", 0.001)


def test_a_photo_on_its_side_has_the_size_that_is_read(tmp_path):
    image = Image.fromarray(np.zeros((6, 10, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    from kaleidoscene.images.files import image_size

    assert image_size(tmp_path / "turned.jpg") == (10, 6) == tuple(read_image(tmp_path / "turned.jpg")[0].shape[-2:])


def test_one_view_of_a_scene_keeps_the_centre_of_all():
    capture = read_capture(own_captures.ROOM)
    one = capture.select([7])
    assert one.origin().equal(capture.origin())
    assert (one.origin() - one.cameras.centres[0]).norm() > 1


def test_llff_belongs_to_names_in_the_order_of_letters(tmp_path):
    """img_10 stands before img_2, as in LLFF's own scripts; and photographs must have the shape of their cameras."""
    (tmp_path / "images").mkdir()
    rows = []
    for number, pose in enumerate(ring(12, (20, 30)).world_from_cam.double().numpy()):
        Image.fromarray(np.full((20, 30, 3), 20 * number, np.uint8)).save(tmp_path / "images" / f"img_{number}.png")
        right, down, forward, centre = pose[:3].T
        matrix = np.stack([down, right, -forward, centre, np.array([40.0, 60.0, 50.0])], axis=1)
        rows.append(np.concatenate([matrix.flatten(), [1.0, 3.0 + number]]))
    np.save(tmp_path / "poses_bounds.npy", np.stack(rows))
    capture = read_capture(tmp_path)
    assert [frame.name for frame in capture.frames][:4] == ["img_0.png", "img_1.png", "img_10.png", "img_11.png"]
    assert [frame.bounds for frame in capture.frames][:2] == [(1.0, 3.0), (1.0, 4.0)]
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(tmp_path / "images" / "img_3.png")
    with pytest.raises(KaleidosceneError, match=r"img_3.png: an image of 30x30, poses_bounds.npy is for 40x60"):
        read_capture(tmp_path)


def test_a_missing_image_is_missing_though_reduced_ones_are_there(capture_folder):
    (capture_folder / "images_2").mkdir()
    for number in range(3):
        Image.fromarray(np.zeros((6, 10, 3), np.uint8)).save(capture_folder / "images_2" / f"{number}.png")
    (capture_folder / "images" / "2.png").unlink()
    with pytest.raises(KaleidosceneError, match="frame 2 .*the image is missing"):
        read_capture(capture_folder)


def test_fisheye_as_instant_ngp_says_it(capture_folder):
    _edit(capture_folder, lambda d: d.update(is_fisheye=True, k1=0.05, k2=0.01, k3=0.0, k4=0.002, camera_model=None))
    document = json.loads((capture_folder / "transforms.json").read_text())
    del document["camera_model"]
    (capture_folder / "transforms.json").write_text(json.dumps(document))
    assert read_capture(capture_folder).frames[0].distortion == Distortion("fisheye", (0.05, 0.01, 0.0, 0.002))
    _edit(capture_folder, lambda d: d.update(camera_model="OPENCV"))
    with pytest.raises(KaleidosceneError, match="is_fisheye, which contradict"):
        read_capture(capture_folder)


def test_captures_named_by_relative_paths(capture_folder, monkeypatch):
    monkeypatch.chdir(capture_folder)
    for name in (".", "transforms.json", "../capture"):
        assert read_capture(name).name == "capture"


def test_a_phone_clip_on_its_side_is_turned(tmp_path):
    """A video whose container says 90 degrees is read as players show it."""
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24] = 255  # white on the left as stored
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert read_capture(tmp_path / "a.mp4").common_size == (32, 48)
    data = (tmp_path / "a.mp4").read_bytes()
    place = data.index(b"tkhd") + 4 + 40  # the 3x3 matrix of a version 0 track header
    one, minus = struct.pack(">i", 1 << 16), struct.pack(">i", -(1 << 16))
    zero = bytes(4)
    matrix = zero + one + zero + minus + zero + zero + zero + zero + struct.pack(">i", 1 << 30)
    (tmp_path / "a.mp4").write_bytes(data[:place] + matrix + data[place + 36 :])
    capture = read_capture(tmp_path / "a.mp4")
    image = capture.images(only=[1])[0]
    assert capture.common_size == (48, 32) and image.shape == (3, 48, 32)
    # The matrix says 90 degrees clockwise: what was left is up.
    assert image[:, :20].mean() > 0.9 and image[:, 28:].mean() < 0.1
