"""Points of captures, as PLY, and what their cameras are centred on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.captures.ply import read_ply, write_ply
from kaleidoscene.errors import KaleidosceneError
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
        assert (found.colours is None) == (made.colours is None)
        if made.colours is not None and found.colours is not None:
            assert found.colours.equal(made.colours)


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
    ],
)  # fmt: skip
def test_what_is_none_is_refused(tmp_path, text):
    (tmp_path / "a.ply").write_text(text)
    with pytest.raises(KaleidosceneError, match=r"a\.ply: not a PLY file with points"):
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
    (tmp_path / "points.ply").write_text("ply")
    with pytest.raises(KaleidosceneError, match="not a PLY file"):
        read_capture(tmp_path)
