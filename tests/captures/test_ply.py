"""Points of captures, as PLY, and what their cameras are centred on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.captures.ply import read_ply, write_ply
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.geometry.view import View, as_view
from tests.conftest import ring
from tests.geometry.test_origin import cloud

XYZ = "property float x\nproperty double y\nproperty float z\n"


def points() -> PointCloud:
    colours = torch.randint(0, 256, (4000, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return PointCloud(cloud(), colours)


def test_written_clouds_are_read(tmp_path):
    for name, made in (("a.ply", points()), ("b.ply", PointCloud(cloud(), normals=cloud(), confidence=cloud()[:, 0]))):
        write_ply(tmp_path / name, made)
        found = read_ply(tmp_path / name)
        torch.testing.assert_close(found.positions, made.positions.float().double(), rtol=0, atol=0)
        for kind in ("colours", "normals", "confidence"):
            kept, written = getattr(found, kind), getattr(made, kind)
            assert (kept is None) == (written is None)
            if written is not None:
                torch.testing.assert_close(kept, written if kind == "colours" else written.float().double())


@pytest.mark.parametrize("order", [">", "<"])
def test_files_of_others(tmp_path, order):
    """Other orders of bytes, kinds of numbers and elements; trimesh reads the same."""
    trimesh = pytest.importorskip("trimesh")
    colours = [(name, "u1") for name in ("red", "green", "blue")]
    rows = np.zeros(5, np.dtype([("x", "f4"), ("y", "f8"), ("z", "f4"), *colours]))
    for number, name in enumerate(rows.dtype.names or ()):
        rows[name] = np.arange(5) * (number + 1) + 0.5 * (number < 3)
    kind = "binary_big_endian" if order == ">" else "binary_little_endian"
    colour = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    head = f"ply\nformat {kind} 1.0\ncomment made by hand\nelement vertex 5\n{XYZ}{colour}"
    faces = "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    face = np.array([3], "u1").tobytes() + np.array([0, 1, 2], f"{order}i4").tobytes()
    vertices = rows.astype(rows.dtype.newbyteorder(order)).tobytes()
    (tmp_path / "a.ply").write_bytes((head + faces).encode() + vertices + face)
    found, loaded = read_ply(tmp_path / "a.ply"), trimesh.load(tmp_path / "a.ply", process=False)
    np.testing.assert_allclose(found.positions, loaded.vertices)
    assert found.colours is not None and found.colours[4].tolist() == [16, 20, 24]
    text = "\n".join(" ".join(str(row[name]) for name in "xyz") for row in rows)
    (tmp_path / "b.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 5\n{XYZ}end_header\n{text}\n")
    np.testing.assert_allclose(read_ply(tmp_path / "b.ply").positions, loaded.vertices)


@pytest.mark.parametrize(
    "text",
    [
        "", "solid", "ply\nend_header\n", f"ply\nelement vertex 1\n{XYZ}end_header\n1 2 3",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1",
        f"ply\nformat ascii 1.0\nelement vertex 3\n{XYZ}end_header\n1 2 3\n",
        f"ply\nformat ascii 1.0\nelement vertex 1\n{XYZ}end_header\none 2 3\n",
        f"ply\nformat binary_little_endian 1.0\nelement vertex 3\n{XYZ}end_header\nab",
        f"ply\nformat ascii 1.0\nelement face 0\nelement vertex 1\n{XYZ}end_header\n1 2 3",
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty list uchar int x\nend_header\n1 2",
        f"ply\nformat ascii 1.0\nelement vertex many\n{XYZ}end_header\n1 2 3",
        f"ply\nformat ascii 1.0\nelement vertex -1\n{XYZ}end_header\n1 2 3",
        f"ply\nformat binary_little_endian 1.0\nelement vertex {10**26}\n{XYZ}end_header\n1 2 3",
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(tmp_path, text):
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(KaleidosceneError, match=r"a\.ply: "):
        read_ply(tmp_path / "a.ply")


def test_points_beside_cameras_say_where_a_walk_looks(tmp_path):
    """Two parallel cameras: without points nobody knows how far away anything is."""
    poses = np.eye(4)[None].repeat(2, 0) * [1, -1, -1, 1]
    poses[1, 0, 3] = 1.0
    for number in range(2):
        Image.new("RGB", (26, 18)).save(tmp_path / f"{number}.png")
    frames = [
        {"file_path": f"{n}.png", "transform_matrix": pose.tolist(), "fl_x": 20, "w": 26, "h": 18}
        for n, pose in enumerate(poses)
    ]
    document = {"frames": frames, "ply_file_path": "points.ply"}
    (tmp_path / "transforms.json").write_text(json.dumps(document))
    assert read_capture(tmp_path).points is None, "it names a file that is not there"
    assert read_capture(tmp_path).origin().tolist() == [0.5, 0.0, 0.0]
    write_ply(tmp_path / "points.ply", points())
    capture = read_capture(tmp_path)
    assert capture.points is not None and len(capture.points) == 4000
    assert capture.origin()[2] == pytest.approx(13.8, rel=0.05) and capture.origin()[0] == pytest.approx(0.5, abs=0.01)
    assert capture.select([1]).origin().equal(capture.origin())
    assert not capture.findings
    # Absolute paths of another machine, as for images.
    (tmp_path / "transforms.json").write_text(json.dumps({**document, "ply_file_path": "/home/she/room/points.ply"}))
    assert len(read_capture(tmp_path).points or ()) == 4000
    for name, said in (
        ("../points.ply", "leads out of"),
        ("none.ply", "No such file"),
        ("0.png", "0.png"),
        (7, "no name"),
    ):
        (tmp_path / "transforms.json").write_text(json.dumps({**document, "ply_file_path": name}))
        without = read_capture(tmp_path)
        (finding,) = without.findings
        assert without.points is None and without.origin().tolist() == [0.5, 0.0, 0.0]
        assert (finding.severity, finding.kind) == ("warning", "points") and said in finding.value


def test_what_sensors_and_editors_write(tmp_path):
    """Points that are not finite, comments in any letters, and blank lines."""
    colour = "property uchar red\nproperty uchar green\nproperty uchar blue\n"
    comment = "comment H\u00e4user, the end_header comes later"
    head = f"ply\nformat ascii 1.0\n{comment}\nelement vertex 3\n{XYZ}{colour}end_header\n"
    (tmp_path / "a.ply").write_text(f"{head}\n1 2 3 4 5 6\nnan 0 0 1 1 1\n\n7 8 9 10 11 12\n", encoding="latin-1")
    found = read_ply(tmp_path / "a.ply")
    assert found.positions.tolist() == [[1, 2, 3], [7, 8, 9]]
    assert found.colours is not None and found.colours.tolist() == [[4, 5, 6], [10, 11, 12]]
    (tmp_path / "b.ply").write_text(f"ply\nformat ascii 1.0\nelement vertex 0\n{XYZ}end_header\n")
    assert len(read_ply(tmp_path / "b.ply")) == 0


def test_selections_know_where_all_cameras_stand(tmp_path):
    """In whatever world, and so how wide a path about the first of them may be."""
    for number in range(5):
        Image.new("RGB", (26, 18)).save(tmp_path / f"{number}.png")
    somewhere = random_rigid(generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    cameras = ring(5, (18, 26)).to(torch.float64)
    cameras = replace(cameras, world_from_cam=somewhere @ cameras.world_from_cam)
    write_cameras(tmp_path / "transforms.json", [f"{n}.png" for n in range(5)], cameras, centred="scene")
    whole = read_capture(tmp_path)
    torch.testing.assert_close(whole.standpoints(), whole.cameras.centres.double())
    one = whole.select([3])
    assert one.standpoints().equal(whole.standpoints()) and as_view(one).reach == pytest.approx(
        View.of(whole.cameras, start=3).reach
    )
    for moved, all_of_them in ((one.recentred(), whole.recentred()), (one.upright(), whole.upright())):
        torch.testing.assert_close(moved.standpoints(), all_of_them.exact_cameras.centres)
        torch.testing.assert_close(moved.exact_cameras.centres, all_of_them.exact_cameras.centres[3:4])
