"""Damaged captures of every format end in a clean capture or in our own error, and in nothing else."""

import gzip
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.tools import WRITERS
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.captures.frames import Frame, PointCloud
from kaleidoscene.errors import KaleidosceneError
from tests.captures.test_formats import pytorch3d_of, write_clip, write_rtmv
from tests.conftest import REPOSITORY, ring


def _images(folder: Path, names) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((12, 20, 3), 30 + 60 * number, np.uint8)).save(folder / name)


def _transforms(folder):
    names = ["images/0.png", "images/1.png"]
    _images(folder, names)
    write_cameras(folder / "transforms.json", names, ring(2, (12, 20)))


def _eschernet(folder):
    _images(folder, ["000.png", "001.png"])
    for number, camera in enumerate(ring(2, (12, 20)).cam_from_world.double().numpy()):
        np.save(folder / f"{number:03d}.npy", (np.diag([1, -1, -1]) @ camera[:3]).astype(np.float32))


def _rtmv(folder):
    write_rtmv(folder, 2)


def _colmap(folder, *, text=False):
    cameras = ring(2, (12, 20)).to(torch_double())
    _images(folder / "src", ["0.png", "1.png"])
    frames = tuple(
        Frame(folder / "src" / f"{n}.png", (12, 20), cameras.world_from_cam[n], cameras.intrinsics[n]) for n in range(2)
    )
    points = PointCloud(cameras.centres * 0.1)
    WRITERS["colmap"](Capture("c", "test", folder, frames, points=points), folder)
    shutil.rmtree(folder / "src")
    if text:
        import pycolmap

        sparse = folder / "sparse" / "0"
        pycolmap.Reconstruction(str(sparse)).write_text(str(sparse))
        for file in sparse.glob("*.bin"):
            file.unlink()


def torch_double():
    import torch

    return torch.float64


def _llff(folder):
    _images(folder, ["images/0.png", "images/1.png"])
    rows = []
    for pose in ring(2, (12, 20)).world_from_cam.double().numpy():
        right, down, forward, centre = pose[:3].T
        matrix = np.stack([down, right, -forward, centre, np.array([24.0, 40.0, 30.0])], axis=1)
        rows.append(np.concatenate([matrix.flatten(), [1.0, 3.0]]))
    np.save(folder / "poses_bounds.npy", np.stack(rows))


def _dtu(folder):
    _images(folder, ["image/0.png", "image/1.png"])
    cameras = ring(2, (12, 20)).to(torch_double())
    arrays = {}
    for number in range(2):
        matrix = np.eye(4, dtype=np.float32)
        matrix[:3] = (cameras.intrinsics[number] @ cameras.cam_from_world[number, :3]).numpy()
        arrays |= {f"world_mat_{number}": matrix, f"scale_mat_{number}": np.eye(4, dtype=np.float32)}
    np.savez(folder / "cameras.npz", **arrays)


def _seven_scenes(folder):
    _images(folder, ["frame-000000.color.png", "frame-000001.color.png"])
    for number, pose in enumerate(ring(2, (12, 20)).world_from_cam.numpy()):
        np.savetxt(folder / f"frame-{number:06d}.pose.txt", pose)
    np.savetxt(folder / "camera-intrinsics.txt", np.array([[20.0, 0, 10], [0, 20, 6], [0, 0, 1]]))


def _scannet(folder):
    _images(folder, ["color/0.png", "color/1.png"])
    for name in ("pose", "intrinsic"):
        (folder / name).mkdir()
    for number, pose in enumerate(ring(2, (12, 20)).world_from_cam.numpy()):
        np.savetxt(folder / "pose" / f"{number}.txt", pose)
    matrix = np.eye(4)
    matrix[:3, :3] = [[20.0, 0, 10], [0, 20, 6], [0, 0, 1]]
    np.savetxt(folder / "intrinsic" / "intrinsic_color.txt", matrix)


def _co3d(folder):
    cameras, entries = ring(2, (12, 20)), []
    for number in range(2):
        rotation, translation, focal, principal = pytorch3d_of(cameras, number)
        name = f"apple/1/images/{number}.png"
        viewpoint = {"R": rotation.tolist(), "T": translation.tolist(), "intrinsics_format": "ndc_isotropic"}
        viewpoint |= {"focal_length": focal.tolist(), "principal_point": principal.tolist()}
        image = {"path": name, "size": [12, 20]}
        entries.append({"sequence_name": "1", "frame_number": number, "image": image, "viewpoint": viewpoint})
        _images(folder, [name])
    with gzip.open(folder / "apple" / "frame_annotations.jgz", "wt") as file:
        json.dump(entries, file)


def _co3d_sample(folder):
    _images(folder, ["0.png", "1.png"])
    parts = [pytorch3d_of(ring(2, (12, 20)), n) for n in range(2)]
    stacked = {key: np.stack([part[i].numpy() for part in parts]) for i, key in enumerate(("gtR", "gtT", "gtFL"))}
    np.savez(folder / "gt_cameras.npz", **{key: value.astype(np.float32) for key, value in stacked.items()})


def _uco3d(folder):
    place = folder / "food" / "apple" / "1"
    place.mkdir(parents=True)
    write_clip(place / "rgb_video.mp4", [30, 90])
    database = sqlite3.connect(folder / "metadata.sqlite")
    blobs = ("_image_size", "_viewpoint_R", "_viewpoint_T", "_viewpoint_focal_length", "_viewpoint_principal_point")
    columns = ", ".join(f"{name} BLOB" for name in (*blobs, "_viewpoint_colmap_distortion_coeffs"))
    head = "sequence_name TEXT, frame_number INT, frame_timestamp REAL"
    database.execute(f"CREATE TABLE frame_annots ({head}, {columns}, _viewpoint_intrinsics_format TEXT)")
    database.execute("CREATE TABLE sequence_annots (sequence_name TEXT, _video_path TEXT)")
    for number in range(2):
        parts = [tensor.flatten().tolist() for tensor in pytorch3d_of(ring(2, (32, 48)), number)]
        packed = [struct.pack("2i", 32, 48), *(struct.pack(f"{len(part)}f", *part) for part in parts)]
        row = ("1", number, number / 10, *packed, None, "ndc_isotropic")
        database.execute(f"INSERT INTO frame_annots VALUES ({', '.join('?' * len(row))})", row)
    database.commit()
    database.close()


def _re10k(folder):
    lines = ["https://example.org/watch"]
    for number, pose in enumerate(ring(2, (12, 20)).cam_from_world.double()):
        numbers = [0.9, 1.5, 0.5, 0.5, 0, 0, *pose[:3].flatten().tolist()]
        lines.append(" ".join([str(number), *map(repr, numbers)]))
    _images(folder, ["clip/0.png", "clip/1.png"])
    (folder / "clip.txt").write_text("\n".join(lines))


def _photos(folder):
    _images(folder, ["a.png", "b.jpg"])


def _video(folder):
    write_clip(folder / "clip.mp4", [30, 90, 150])


MAKERS = {
    "transforms": (_transforms, "."), "eschernet": (_eschernet, "."), "rtmv": (_rtmv, "."), "colmap": (_colmap, "."),
    "colmap text": (lambda folder: _colmap(folder, text=True), "."), "llff": (_llff, "."), "dtu": (_dtu, "."),
    "7scenes": (_seven_scenes, "."), "scannet": (_scannet, "."), "co3d": (_co3d, "apple/1"),
    "co3d sample": (_co3d_sample, "."), "uco3d": (_uco3d, "food/apple/1"), "re10k": (_re10k, "clip"),
    "photos": (_photos, "."), "video": (_video, "clip.mp4"),
}  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """One sound capture of every format, all files of which are small."""
    root = tmp_path_factory.mktemp("originals")
    for name, (make, _) in MAKERS.items():
        if name.startswith("colmap"):
            pytest.importorskip("pycolmap")
        (root / name).mkdir()
        make(root / name)
    return root


def _look(path: Path) -> None:
    capture = read_capture(path)
    capture.images()
    if capture.is_posed:
        assert len(capture.cameras) == len(capture)


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_the_originals_are_sound(originals, name):
    _look(originals / name / MAKERS[name][1])


WORDS = [
    b"1e999", b"-1", b"NaN", b'"x"', b"null", b"[]", b"\xff\xfe", b"\x00" * 8, b"\xff" * 8, b"../../x", b"9" * 40,
]  # fmt: skip
EDITS = st.lists(
    st.one_of(
        st.tuples(st.just("cut"), st.integers(0, 4000)),
        st.tuples(st.just("byte"), st.integers(0, 4000), st.integers(0, 255)),
        st.tuples(st.just("word"), st.integers(0, 4000), st.sampled_from(WORDS)),
        st.tuples(st.just("double"), st.integers(0, 4000), st.integers(1, 400)),
    ),
    min_size=1, max_size=4,
)  # fmt: skip


def damage(data: bytes, edits) -> bytes:
    """Change a file as a bad disk, a bad editor or a bad program would."""
    out = bytearray(data)
    for kind, anywhere, *rest in edits:
        place = anywhere % max(len(out), 1)
        if kind == "cut":
            del out[place:]
        elif kind == "byte" and out:
            out[place] = rest[0]
        elif kind == "word":
            out[place : place + len(rest[0])] = rest[0]
        elif kind == "double":
            out[place:place] = out[place : place + rest[0]]
    return bytes(out)


@pytest.mark.parametrize("name", sorted(MAKERS))
@settings(
    max_examples=25, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(pick=st.integers(0, 1000), edits=EDITS)
def test_damaged_files_end_in_a_capture_or_in_our_error(originals, tmp_path_factory, name, pick, edits):
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(originals / name, folder, dirs_exist_ok=True)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    # Files of cameras are damaged more often than images.
    cameras = [path for path in files if path.suffix not in (".png", ".jpg")] or files
    victim = (cameras + files)[pick % (len(cameras) + len(files))]
    victim.write_bytes(damage(victim.read_bytes(), edits))
    try:
        _look(folder / MAKERS[name][1])
    except KaleidosceneError as error:
        assert str(error).count("\n") == 0 and len(str(error)) < 2000
    finally:
        shutil.rmtree(folder)


# --- what a reader must not follow or open ---------------------------------------------------------------------------


def test_links_that_lead_out_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    _transforms(tmp_path / "in")
    secret = tmp_path / "secret.png"
    shutil.copy(tmp_path / "in" / "images" / "0.png", secret)
    (tmp_path / "in" / "images" / "0.png").unlink()
    (tmp_path / "in" / "images" / "0.png").symlink_to(secret)
    with pytest.raises(KaleidosceneError, match="frame 0 leads out of the capture folder"):
        read_capture(tmp_path / "in")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").symlink_to(secret)
    with pytest.raises(KaleidosceneError, match="leads out of the capture folder"):
        read_capture(tmp_path / "photos")


@pytest.mark.parametrize(
    ("name", "image"),
    [("llff", "images/0.png"), ("dtu", "image/0.png"), ("eschernet", "000.png"), ("rtmv", "00000.exr"),
     ("7scenes", "frame-000000.color.png"), ("scannet", "color/0.png"), ("colmap", "images/0.png"),
     ("re10k", "clip/0.png"), ("co3d sample", "0.png")],
)  # fmt: skip
def test_links_that_lead_out_are_refused_in_every_format(originals, tmp_path, name, image):
    shutil.copytree(originals / name, tmp_path / "in")
    shutil.copy(tmp_path / "in" / image, tmp_path / "secret.png")
    (tmp_path / "in" / image).unlink()
    (tmp_path / "in" / image).symlink_to(tmp_path / "secret.png")
    with pytest.raises(KaleidosceneError, match="leads out of the capture folder"):
        read_capture(tmp_path / "in" / MAKERS[name][1])


def test_a_link_to_the_capture_itself_is_followed(tmp_path):
    (tmp_path / "in").mkdir()
    _transforms(tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert len(read_capture(tmp_path / "link")) == 2


def test_archives_that_unpack_to_gigabytes_are_not_unpacked(tmp_path):
    _dtu(tmp_path)
    import zipfile

    with zipfile.ZipFile(tmp_path / "cameras.npz", "w", zipfile.ZIP_DEFLATED) as file:
        with file.open("world_mat_0.npy", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(2**20))
    with pytest.raises(KaleidosceneError, match="unpacks to 300 MiB"):
        read_capture(tmp_path)


def test_an_array_that_claims_more_than_its_file_holds(tmp_path):
    _llff(tmp_path)
    data = (tmp_path / "poses_bounds.npy").read_bytes()
    (tmp_path / "poses_bounds.npy").write_bytes(data.replace(b"(2, 17)", b"(9999999999999, 17)"))
    with pytest.raises(KaleidosceneError, match="not a readable array"):
        read_capture(tmp_path)
    np.save(tmp_path / "poses_bounds.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(KaleidosceneError, match="not a readable array"):
        read_capture(tmp_path)


def test_an_image_of_more_pixels_than_is_read(tmp_path):
    _transforms(tmp_path)
    file = tmp_path / "images" / "0.png"
    data = bytearray(file.read_bytes())
    data[16:24] = struct.pack(">II", 90_000, 90_000)
    file.write_bytes(bytes(data))
    with pytest.raises(KaleidosceneError, match="0.png"):
        read_capture(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"frames": [], "frames": []}', "'frames' is there twice"), ('{"a": Infinity}', "Infinity is not a number"),
     ('{"a": 1e999}', "too large"), ("[" * 100_000, "not readable JSON"), ("", "empty"), ("{}", "no frames")],
)  # fmt: skip
def test_json_that_is_none(tmp_path, text, message):
    _transforms(tmp_path)
    (tmp_path / "transforms.json").write_text(text)
    with pytest.raises(KaleidosceneError, match=message):
        read_capture(tmp_path)


def test_names_that_are_not_utf8(tmp_path):
    _photos(tmp_path)
    os.rename(tmp_path / "a.png", os.fsencode(tmp_path) + b"/\xff\xfe.png")
    capture = read_capture(tmp_path)
    assert len(capture) == 2 and capture.images().shape == (2, 3, 12, 20)


def test_files_that_may_not_be_read(tmp_path):
    """As another user, because root may read everything."""
    _transforms(tmp_path)
    (tmp_path / "transforms.json").chmod(0)
    program = (
        "import os, sys\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "from kaleidoscene.captures.formats.registry import read_capture\n"
        "try: read_capture(sys.argv[1])\n"
        "except ValueError as error: print(type(error).__name__, error)\n"
    )
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):
        parent.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    # Imported before the user changes: the checkout itself may be private.
    program = "import kaleidoscene.captures.formats.registry\n" + program
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, env=environment, check=False
    )
    assert "KaleidosceneError" in out.stdout and "cannot be read (Permission denied)" in out.stdout, out
