"""Scans in their published layout: of Polycam, Record3D and the 3D Scanner App, and of ARKitScenes."""

import json
import shutil
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.intake import scan_within, take_in
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import log_so3, quaternion_of, rotation_of
from tests import own_captures

VIEWS = 5
FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


def polycam(folder, *, corrected=False, depth=True) -> Cameras:
    """``keyframes/{images,cameras,depth}``, and those that the app has optimised."""
    cameras, pictures = own_captures.truth().to(torch.float64), own_captures.pictures(own_captures.ROOM)
    h, w = cameras.image_size
    for prefix in ("", "corrected_") if corrected else ("",):
        for kind in ("images", "cameras"):
            (folder / "keyframes" / f"{prefix}{kind}").mkdir(parents=True)
        for view in range(VIEWS):
            stamp = 90_000 + 2_500 * view  # names of microseconds do not sort as text
            Image.open(pictures[view]).convert("RGB").save(
                folder / "keyframes" / f"{prefix}images" / f"{stamp}.jpg", quality=97
            )
            pose, k = cameras.world_from_cam[view] @ FLIP, cameras.intrinsics[view]
            said = {f"t_{r}{c}": float(pose[r, c]) for r in range(3) for c in range(4)}
            if corrected and not prefix:
                said["t_03"] += 0.5  # tracking drifts
            said |= {"fx": float(k[0, 0]), "fy": float(k[1, 1]), "cx": float(k[0, 2]), "cy": float(k[1, 2])}
            said |= {"width": w, "height": h, "blur_score": 71.3, "timestamp": stamp}
            (folder / "keyframes" / f"{prefix}cameras" / f"{stamp}.json").write_text(json.dumps(said))
    if depth:
        (folder / "keyframes" / "depth").mkdir()
        for view in range(VIEWS):
            levels = np.full((h // 2, w // 2), 1234, np.uint16)
            Image.fromarray(levels).save(folder / "keyframes" / "depth" / f"{90_000 + 2_500 * view}.png")
    (folder / "mesh_info.json").write_text("{}")
    return cameras[:VIEWS]


def record3d(folder, *, name="metadata", images="rgbd", each=False) -> Cameras:
    """``metadata`` with K by columns, quaternions x y z w, and images that are numbered."""
    cameras, pictures = own_captures.truth().to(torch.float64), own_captures.pictures(own_captures.ROOM)
    (folder / images).mkdir(parents=True)
    poses, lenses = [], []
    count = 11  # 10 comes after 9
    for view in range(count):
        at = view % len(pictures)
        Image.open(pictures[at]).convert("RGB").save(folder / images / f"{view}.jpg", quality=97)
        (folder / images / f"{view}.depth").write_bytes(b"bvx2packed")
        pose, k = cameras.world_from_cam[at] @ FLIP, cameras.intrinsics[at]
        w, x, y, z = quaternion_of(pose[:3, :3]).tolist()
        poses.append([x, y, z, w, *pose[:3, 3].tolist()])
        lenses.append([float(k[0, 0]) + view, float(k[1, 1]) + view, float(k[0, 2]), float(k[1, 2])])
    h, w = cameras.image_size
    said = {"K": cameras.intrinsics[0].T.flatten().tolist(), "w": w, "h": h, "fps": 30, "poses": poses}
    if each:
        said["perFrameIntrinsicCoeffs"] = lenses
    (folder / name).write_text(json.dumps(said))
    return cameras[[view % len(pictures) for view in range(count)]]


def scanner(folder) -> Cameras:
    """``frame_NNNNN.json`` for every tick, a picture for some, depth and confidence beside."""
    cameras, pictures = own_captures.truth().to(torch.float64), own_captures.pictures(own_captures.ROOM)
    folder.mkdir()
    for view in range(VIEWS):
        for tick in range(3):
            pose, k = cameras.world_from_cam[view] @ FLIP, cameras.intrinsics[view]
            said = {
                "cameraPoseARFrame": pose.flatten().tolist(),
                "intrinsics": k.flatten().tolist(),
                "motionQuality": 0.9,
            }
            (folder / f"frame_{6 * view + tick:05d}.json").write_text(json.dumps(said))
        h, w = cameras.image_size
        Image.open(pictures[view]).convert("RGB").save(folder / f"frame_{6 * view:05d}.jpg", quality=97)
        Image.fromarray(np.full((h // 2, w // 2), 2345, np.uint16)).save(folder / f"depth_{6 * view:05d}.png")
        Image.fromarray(np.full((h // 2, w // 2), 2, np.uint8)).save(folder / f"conf_{6 * view:05d}.png")
    (folder / "info.json").write_text(json.dumps({"device": "phone", "frames": 3 * VIEWS}))
    return cameras[:VIEWS]


def scenes(folder, *, kind="lowres_wide", late=0.0) -> Cameras:
    """Pictures and lenses named by time; a trajectory of ten poses a second, camera from world, in any order."""
    cameras, pictures = own_captures.truth().to(torch.float64), own_captures.pictures(own_captures.ROOM)
    for name in (kind, f"{kind}_intrinsics", "lowres_depth"):
        (folder / name).mkdir(parents=True)
    h, w = cameras.image_size
    lines = []
    for view in range(VIEWS):
        time = 98.9 + 0.1 * view  # 100.1 comes after 99.9
        stem = f"41069021_{time + late:.3f}"
        Image.open(pictures[view]).convert("RGB").save(folder / kind / f"{stem}.png")
        k = cameras.intrinsics[view]
        lens = [w, h, *(float(k[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))]
        (folder / f"{kind}_intrinsics" / f"41069021_{time + late + 0.001:.3f}.pincam").write_text(
            " ".join(map(str, lens))
        )
        Image.fromarray(np.full((h // 2, w // 2), 3456, np.uint16)).save(folder / "lowres_depth" / f"{stem}.png")
        pose = torch.linalg.inv(cameras.world_from_cam[view])
        numbers = [time + 0.002, *log_so3(pose[:3, :3]).tolist(), *pose[:3, 3].tolist()]
        lines.append(" ".join(repr(float(number)) for number in numbers))
    (folder / "lowres_wide.traj").write_text("\n".join(lines[::-1]) + "\n")
    return cameras[:VIEWS]


def check_same(capture, truth: Cameras):
    torch.testing.assert_close(capture.exact_cameras.world_from_cam, truth.world_from_cam, rtol=0, atol=1e-6)
    torch.testing.assert_close(capture.exact_cameras.intrinsics, truth.intrinsics, rtol=0, atol=1e-9)


def test_polycam_in_the_order_of_time_with_depth(tmp_path):
    truth = polycam(tmp_path / "scan")
    capture = read_capture(tmp_path / "scan")
    assert capture.format == "polycam" and len(capture) == VIEWS
    assert [frame.image.stem for frame in capture.frames][:3] == ["90000", "92500", "95000"]
    check_same(capture, truth)
    assert capture.depths()[0].unique().tolist() == pytest.approx([1.234])
    assert "phone's own tracking" in " ".join(capture.notes)
    check_same(read_capture(tmp_path / "scan" / "keyframes"), truth)


def test_polycams_optimised_cameras_come_first_and_depth_of_other_images_is_left_out(tmp_path):
    truth = polycam(tmp_path / "scan", corrected=True)
    capture = read_capture(tmp_path / "scan")
    check_same(capture, truth)
    assert {frame.image.parent.name for frame in capture.frames} == {"corrected_images"}
    assert all(frame.depth is None for frame in capture.frames)
    assert "depth maps are left out" in " ".join(capture.notes)


@pytest.mark.parametrize(("name", "images"), [("metadata", "rgbd"), ("metadata.json", "rgb")])
def test_record3d_in_the_order_of_its_numbers(tmp_path, name, images):
    truth = record3d(tmp_path / "scan", name=name, images=images)
    capture = read_capture(tmp_path / "scan")
    assert capture.format == "record3d" and [frame.image.stem for frame in capture.frames][9:] == ["9", "10"]
    check_same(capture, truth)
    assert "packed depth is left out" in " ".join(capture.notes)


def test_record3d_with_a_lens_for_every_frame(tmp_path):
    truth = record3d(tmp_path / "scan", each=True)
    focal = read_capture(tmp_path / "scan").exact_cameras.intrinsics[:, 0, 0]
    torch.testing.assert_close(focal, truth.intrinsics[0, 0, 0] + torch.arange(11.0).double())


def test_the_3d_scanner_app_has_pictures_of_some_of_its_cameras(tmp_path):
    truth = scanner(tmp_path / "scan")
    capture = read_capture(tmp_path / "scan")
    assert capture.format == "3dscanner" and len(capture) == VIEWS
    check_same(capture, truth)
    assert capture.depths()[0].unique().tolist() == pytest.approx([2.345])
    (tmp_path / "scan" / "frame_00006.json").write_text(json.dumps({"cameraPoseARFrame": [1, 2], "intrinsics": []}))
    with pytest.raises(KaleidosceneError, match=r"frame_00006.json: not a camera of the 3D Scanner App"):
        read_capture(tmp_path / "scan")
    (tmp_path / "scan" / "frame_00006.json").unlink()
    with pytest.raises(KaleidosceneError, match=r"frame_00006.jpg: its camera frame_00006.json is missing"):
        read_capture(tmp_path / "scan")


def test_notes_of_others_beside_frames_are_no_cameras(tmp_path):
    """Frames of a film with the annotations of a labelling tool beside them are photographs."""
    scanner(tmp_path / "scan")
    for file in (tmp_path / "scan").glob("*.json"):
        file.write_text(json.dumps({"version": "5.0", "shapes": [], "imagePath": f"{file.stem}.jpg"}))
    assert read_capture(tmp_path / "scan").format == "photos"
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as packed:
        for file in (tmp_path / "scan").glob("frame_*"):
            packed.write(file, f"scan/{file.name}")
    (tmp_path / "scratch").mkdir()
    capture, notes = take_in(tmp_path / "labels.zip", tmp_path / "scratch")
    assert capture.format == "photos" and len(capture) == VIEWS and "files were unpacked" in notes[0]


def test_arkitscenes_by_time(tmp_path):
    truth = scenes(tmp_path / "41069021")
    for path in (tmp_path / "41069021", tmp_path / "41069021" / "lowres_wide.traj"):
        capture = read_capture(path)
        assert capture.format == "arkitscenes" and len(capture) == VIEWS
        check_same(capture, truth)
    assert capture.depths()[0].unique().tolist() == pytest.approx([3.456])


def test_arkitscenes_between_two_poses_and_where_none_is_near(tmp_path):
    """Pictures a twentieth of a second later than poses get what lies between; the last has no pose after it."""
    truth = scenes(tmp_path / "scan", kind="wide", late=0.052)
    capture = read_capture(tmp_path / "scan")
    assert len(capture) == VIEWS - 1 and all(frame.depth is None for frame in capture.frames)
    assert "1 pictures have no pose" in " ".join(capture.notes) and "4 cameras lie between" in " ".join(capture.notes)
    centres = truth.centres
    torch.testing.assert_close(capture.exact_cameras.centres, (centres[:-1] + centres[1:]) / 2, rtol=0, atol=1e-6)
    file = tmp_path / "scan" / "lowres_wide.traj"
    text = file.read_text()
    alone = text.replace("98.9", "55.9", 1).splitlines()[-1]
    for bad, reason in (
        ("1 2 3\n", "lines are not of 7"), ("a b\n", "not a trajectory"), ("\n", "not a trajectory"),
        (alone, "none of the 5 pictures of wide"),
    ):  # fmt: skip
        file.write_text(bad)
        with pytest.raises(KaleidosceneError, match=reason):
            read_capture(tmp_path / "scan")
    file.write_text(text)
    next((tmp_path / "scan" / "wide").iterdir()).rename(tmp_path / "scan" / "wide" / "picture.png")
    with pytest.raises(KaleidosceneError, match=r"picture.png: the name does not end in a time"):
        read_capture(tmp_path / "scan")


def test_up_is_the_y_axis_of_the_phones_world(tmp_path):
    """The room's truth has z up; turned so that y is, as ARKit has it, it comes out along y."""
    truth = polycam(tmp_path / "scan")
    turn = torch.tensor([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.float64)
    for view, file in enumerate(sorted((tmp_path / "scan" / "keyframes" / "cameras").iterdir())):
        said, pose = json.loads(file.read_text()), turn @ truth.world_from_cam[view] @ FLIP
        file.write_text(json.dumps(said | {f"t_{r}{c}": float(pose[r, c]) for r in range(3) for c in range(4)}))
    assert read_capture(tmp_path / "scan").up().tolist() == [0, 1, 0]


def test_a_scan_that_was_held_upright_has_the_same_up(tmp_path):
    """The sensor's pictures lie on their side then, and so do the cameras; `capture` keeps what is known."""
    record3d(tmp_path / "scan")
    said = json.loads((tmp_path / "scan" / "metadata").read_text())
    roll = rotation_of(torch.tensor([0.5**0.5, 0, 0, 0.5**0.5], dtype=torch.float64))  # about the optical axis
    for pose, frame in zip(said["poses"], read_capture(tmp_path / "scan").frames, strict=True):
        w, x, y, z = quaternion_of(frame.world_from_cam[:3, :3] @ roll @ FLIP[:3, :3]).tolist()
        pose[:4] = [x, y, z, w]
    (tmp_path / "scan" / "metadata").write_text(json.dumps(said))
    assert read_capture(tmp_path / "scan").up().tolist() == [0, 1, 0]
    with zipfile.ZipFile(tmp_path / "walk.r3d", "w") as packed:
        for file in sorted((tmp_path / "scan").rglob("*")):
            packed.write(file, file.relative_to(tmp_path / "scan"))
    assert main(["capture", str(tmp_path / "walk.r3d"), "--out", str(tmp_path / "out")]) == 0
    assert read_capture(tmp_path / "out").up().tolist() == [0, 1, 0]


def test_damaged_scans_are_refused(tmp_path):
    polycam(tmp_path / "a")
    file = tmp_path / "a" / "keyframes" / "cameras" / "92500.json"
    file.write_text(json.dumps({"fx": 1}))
    with pytest.raises(KaleidosceneError, match=r"92500.json: not a camera of Polycam \(KeyError\('t_00'\)\)"):
        read_capture(tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "keyframes" / "cameras")
    (tmp_path / "a" / "keyframes" / "cameras").mkdir()
    with pytest.raises(KaleidosceneError, match="no cameras here"):
        read_capture(tmp_path / "a")
    record3d(tmp_path / "b")
    said = json.loads((tmp_path / "b" / "metadata").read_text())
    for change, reason in (
        ({"poses": said["poses"][:-1]}, "10 poses for 11 images"),
        ({"K": [1, 2]}, "not metadata of Record3D"),
        ({"perFrameIntrinsicCoeffs": [[1, 2]] * 11}, "lenses not of 4"),
        ({"poses": [[0.0] * 6] * 11}, "poses are not of 7 numbers"),
    ):
        (tmp_path / "b" / "metadata").write_text(json.dumps(said | change))
        with pytest.raises(KaleidosceneError, match=reason):
            read_capture(tmp_path / "b")


@pytest.mark.parametrize(
    ("names", "root"),
    [
        (["scan/keyframes/cameras/1.json", "scan/keyframes/images/1.jpg"], "scan"),
        (["keyframes/corrected_cameras/1.json"], "."),
        (["metadata", "rgbd/0.jpg"], "."), (["a/b/metadata.json", "a/b/rgb/0.png"], "a/b"),
        (["capture/transforms.json", "capture/images/0.png"], "capture"),
        (["s/frame_00000.json", "s/frame_00000.jpg"], "s"), (["1/lowres_wide.traj", "1/lowres_wide/1_2.png"], "1"),
        (["frame_00000.json", "other.jpg"], None), (["metadata", "pictures/0.jpg"], None),
        (["s/images/0.jpg", "s/sparse/0/cameras.bin"], "s"), (["s/sparse/cameras.txt", "s/images/0.jpg"], "s"),
        (["s/images/0.jpg", "s/colmap/sparse/0/cameras.bin"], "s"), (["cameras.txt", "0.jpg"], None),
        (["fern/poses_bounds.npy", "fern/images/0.jpg"], "fern"), (["c/transforms_train.json"], "c"),
        (["a/metadata.json", "b/rgb/0.png"], None), (["0.jpg"], None),
    ],
)  # fmt: skip
def test_where_in_an_archive_a_scan_lies(names, root):
    found = scan_within(names)
    assert (None if found is None else str(found)) == root


def test_an_r3d_file_becomes_a_capture_that_renders(tmp_path, capsys):
    truth = record3d(tmp_path / "scan")
    with zipfile.ZipFile(tmp_path / "walk.r3d", "w") as packed:
        for file in sorted((tmp_path / "scan").rglob("*")):
            packed.write(file, file.relative_to(tmp_path / "scan"))
        packed.writestr("__MACOSX/rgbd/._0.jpg", b"no picture")
        packed.writestr("rgbd/._1.jpg", b"no picture")
    assert main(["capture", str(tmp_path / "walk.r3d"), "--out", str(tmp_path / "out"), "--json"]) == 0
    note = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert note["images"] == note["posed"] == 11
    capture = read_capture(tmp_path / "out")
    torch.testing.assert_close(capture.exact_cameras.world_from_cam, truth.world_from_cam, rtol=0, atol=1e-6)
    assert "cameras, which are kept" in (tmp_path / "out" / "capture.html").read_text()
    render = ["render", str(tmp_path / "out"), "--references", "0,3", "--frames", "1", "--out", str(tmp_path / "new")]
    assert main(render) == 0


def test_folders_with_cameras_are_rendered_as_they_are_and_archives_stay_inside(tmp_path, capsys):
    polycam(tmp_path / "scan")
    (tmp_path / "scan" / "video.mp4").write_bytes(b"")  # the app keeps a film beside
    assert main(["capture", str(tmp_path / "scan"), "--out", str(tmp_path / "out")]) == 1
    assert "a polycam capture, which has cameras already; render it as it is" in capsys.readouterr().err
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as packed:
        packed.writestr("transforms.json", "{}")
        packed.writestr("../outside.txt", "x")
    assert main(["capture", str(tmp_path / "bad.zip"), "--out", str(tmp_path / "out")]) == 1
    assert "../outside.txt lies outside of the archive" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
