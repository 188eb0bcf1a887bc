"""Meshes and cameras beside true ones, by the command line, on real formats with known answers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_frames
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.captures.ply import write_ply
from kaleidoscene.cli.main import main
from tests.conftest import REPOSITORY

BUS = REPOSITORY / "examples" / "captures" / "school_bus"


def numbers_of(arguments, capsys):
    capsys.readouterr()
    assert main(["compare", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])["numbers"]


def box(path, extents, *, scale=1.0, hole=False):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.box(extents)
    if hole:
        mesh.update_faces(np.arange(len(mesh.faces)) > 1)
    mesh.apply_scale(scale)
    mesh.apply_translation([3.0, -1.0, 2.0])
    mesh.export(path)
    return path


def test_a_mesh_is_itself_wherever_it_stands(tmp_path, capsys):
    found = numbers_of([box(tmp_path / "a.ply", (1, 2, 3)), box(tmp_path / "b.obj", (1, 2, 3), scale=0.2)], capsys)
    assert found.pop("volume IoU at 64^3 (EscherNet)") == 1
    assert found.pop("chamfer of vertices, mean of both directions (EscherNet)") == pytest.approx(0, abs=1e-6)
    assert len(found) == 4 and all(0 < value < 0.02 for value in found.values())  # samples of one surface


def test_boxes_have_the_distance_and_overlap_of_boxes(tmp_path, capsys):
    """In the unit box the corners of these are at (1/6, 1/3, 1/2) and (1/6, 1/6, 1/2)."""
    a, b = box(tmp_path / "a.glb", (1, 2, 3)), box(tmp_path / "b.stl", (1, 1, 3))
    found = numbers_of([a, b], capsys)
    assert found["chamfer of vertices, mean of both directions (EscherNet)"] == pytest.approx(1 / 6, abs=1e-6)
    assert found["volume IoU at 64^3 (EscherNet)"] == pytest.approx(0.5, abs=0.06)
    mean, total = found["chamfer of 100000 samples, mean"], found["chamfer of 100000 samples, sum"]
    assert 0.01 < mean < 1 / 6 and total == pytest.approx(2 * mean)
    assert found["chamfer of 100000 samples, squared, mean"] < mean**1.2


def test_a_cloud_beside_a_true_mesh(tmp_path, capsys):
    """Points drawn from the surface are near it; a cloud of half its size is not, unless boxes are compared."""
    trimesh = pytest.importorskip("trimesh")
    truth = box(tmp_path / "a.ply", (1, 2, 3))
    points = np.asarray(trimesh.load(truth).sample(50_000, seed=5), dtype=np.float32)
    colours = np.full((len(points), 3), 90, np.uint8)
    cloud = PointCloud(torch.from_numpy(points), torch.from_numpy(colours), torch.from_numpy(0 * points))
    write_ply(tmp_path / "cloud.ply", cloud)
    found = numbers_of([tmp_path / "cloud.ply", truth], capsys)
    assert len(found) == 3 and all(0 < value < 0.03 for value in found.values())
    trimesh.PointCloud(points / 2, colours).export(tmp_path / "half.glb")
    half = numbers_of([tmp_path / "half.glb", truth], capsys)
    assert half["chamfer of points and 100000 samples, in unit boxes, mean"] < 0.01
    assert half["chamfer of points and 100000 samples, as they stand, sum"] > 1
    placed = trimesh.Scene()
    move = trimesh.transformations.translation_matrix([5.0, 0.0, 0.0])
    placed.add_geometry(trimesh.PointCloud(points, colours), transform=move)
    placed.export(tmp_path / "placed.glb")
    moved = numbers_of([tmp_path / "placed.glb", truth], capsys)
    assert moved["chamfer of points and 100000 samples, as they stand, sum"] > 4  # where its node places it
    assert main(["compare", str(truth), str(tmp_path / "cloud.ply")]) == 1
    assert "cloud.ply: a mesh without faces" in capsys.readouterr().err
    write_ply(tmp_path / "none.ply", PointCloud(torch.zeros(0, 3)))
    assert main(["compare", str(tmp_path / "none.ply"), str(truth)]) == 1
    assert "none.ply" in capsys.readouterr().err


def test_what_has_holes_has_no_volume(tmp_path, capsys):
    whole, open_box = box(tmp_path / "a.ply", (1, 2, 3)), box(tmp_path / "b.ply", (1, 2, 3), hole=True)
    assert numbers_of([open_box, whole], capsys)["volume IoU at 64^3 (EscherNet)"] is None
    assert main(["compare", str(open_box), str(whole)]) == 0
    assert "volume IoU at 64^3 (EscherNet): none, a surface has holes" in capsys.readouterr().out


def test_seams_of_a_texture_are_no_holes(tmp_path, capsys):
    """As scans are stored: vertices twice where their places in the texture differ."""
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.creation.box((1, 2, 3))
    loose = trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    loose.visual = trimesh.visual.TextureVisuals(
        uv=np.random.default_rng(0).random((36, 2)), image=Image.new("RGB", (4, 4), "red")
    )
    loose.export(tmp_path / "a.glb")
    found = numbers_of([tmp_path / "a.glb", tmp_path / "a.glb"], capsys)
    assert found["volume IoU at 64^3 (EscherNet)"] == 1
    assert len(trimesh.load(tmp_path / "a.glb", force="mesh").vertices) == 36


def moved_bus(folder, *, turn_degrees=0.0, count=None):
    """The example's cameras in another world and scale, every second one turned about its optical axis."""
    capture = read_capture(BUS)
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3] = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    world[:3, :3] *= torch.linalg.det(world[:3, :3]).sign()
    world[:3, 3] = torch.tensor([5.0, -2.0, 1.0])
    angle = math.radians(turn_degrees)
    roll = torch.eye(4, dtype=torch.float64)
    roll[:2, :2] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    frames = []
    for number, frame in enumerate(capture.frames[:count]):
        pose = frame.world_from_cam.double().clone()
        pose[:3, 3] *= 2.5
        pose = world @ pose @ (roll if number % 2 else torch.eye(4, dtype=torch.float64))
        (folder / "images").mkdir(parents=True, exist_ok=True)
        image = folder / "images" / frame.image.name
        image.write_bytes(frame.image.read_bytes())
        frames.append(replace(frame, image=image, world_from_cam=pose))
    write_frames(folder / "transforms.json", replace(capture, root=folder, frames=tuple(frames)))
    return folder


def test_cameras_are_compared_whatever_their_world(tmp_path, capsys):
    same = numbers_of([moved_bus(tmp_path / "same", count=9), BUS], capsys)
    assert same["images in both"] == 9 and same["images of the truth"] == 30
    assert same["RA@5, percent"] == same["RT@5, percent"] == 100
    assert same["ATE_r after Sim(3), degrees"] == pytest.approx(0, abs=1e-4)
    # Focal lengths are shares of their own image's height, whatever other images there are.
    mixed = tmp_path / "same" / "transforms.json"
    document = json.loads(mixed.read_text())
    small = {**document["frames"][0], "file_path": "images/small.png", "h": 128, "w": 128}
    small |= {key: document["frames"][0][key] / 2 for key in ("fl_x", "fl_y", "cx", "cy")}
    Image.open(tmp_path / "same" / "images" / "000.png").resize((128, 128)).save(tmp_path / "same/images/small.png")
    mixed.write_text(json.dumps({**document, "frames": [*document["frames"], small]}))
    focal = numbers_of([tmp_path / "same", BUS], capsys)["focal length over image height, mean relative error"]
    assert focal == pytest.approx(0, abs=1e-6)
    turned = numbers_of([moved_bus(tmp_path / "turned", turn_degrees=8.0, count=10), BUS], capsys)
    assert turned["ATE_r after Sim(3), degrees"] == pytest.approx(4, abs=1e-3)  # half of them by 8
    assert 100 * 10 / 45 <= turned["RA@5, percent"] < 100 * 20 / 45  # ten pairs of those that were not turned


def test_what_cannot_be_compared_is_said(tmp_path, capsys):
    mesh = box(tmp_path / "a.ply", (1, 2, 3))
    (tmp_path / "broken.glb").write_bytes(b"glTF and nothing")
    (tmp_path / "none").mkdir()
    few = moved_bus(tmp_path / "few", count=2)
    for arguments, said in (
        ([tmp_path / "missing.ply", mesh], "missing.ply: no mesh file"),
        ([BUS, mesh], "school_bus: no mesh file (expected .glb"),
        ([mesh, mesh, "--overwrite"], "without --names, --out and --overwrite"),
        ([BUS / "transforms.json", BUS / "transforms.json", "--json"], "--json is for meshes and cameras"),
        ([tmp_path / "broken.glb", mesh], "broken.glb: not a readable mesh"),
        ([mesh, mesh, mesh], "two at a time"),
        ([mesh, mesh, "--out", tmp_path / "out"], "without --names, --out and --overwrite"),
        ([tmp_path / "none", BUS], "none: the folder is empty"),
        ([few, BUS], "have 2 images of the same name; at least 3 are needed"),
    ):
        assert main(["compare", *map(str, arguments)]) == 1
        error = capsys.readouterr().err
        assert said in error and len(error.strip().splitlines()) == 1, error
