"""A model of images alone makes a mesh: ``kaleidoscene reconstruct --model default``, and ``evaluate`` of surfaces."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.errors import KaleidosceneError, NoSurface
from kaleidoscene.evaluation.metrics.shape import chamfer_sampled
from kaleidoscene.geometry.trajectories import rings
from kaleidoscene.workflows import meshing
from kaleidoscene.workflows.shapes import ShapeJob
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

BUS = REPOSITORY / "examples" / "captures" / "school_bus"
QUICK = [
    "--fit.surface.steps", "25", "--fit.surface.resolution", "36", "--fit.surface.rays", "512", "--fit.faces", "900",
    "--fit.texture", "128", "--turntable", "2",
]  # fmt: skip


@pytest.mark.slow
def test_photographs_become_a_mesh_with_a_texture_and_it_goes_on(tmp_path, capsys, monkeypatch):
    """Stopped while it fits, the same command takes the views that are rendered and writes everything."""
    out = tmp_path / "out"
    command = [
        "reconstruct",
        str(BUS),
        "--model",
        "default",
        "--references",
        "0,2",
        "--out",
        str(out),
        *QUICK,
        "--json",
    ]

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(meshing, "fit_surface", stopped)
        assert main(command) == 130
    assert not out.exists() and (tmp_path / ".out.views" / "video.mp4").is_file()
    other = [name if name != "0,2" else "0,3" for name in command]  # what waits is not replaced unasked
    assert main(other) == 1 and "give --overwrite to replace it" in capsys.readouterr().err
    frames = tmp_path / ".out.views" / "frames"
    before = {path.name: path.stat().st_mtime_ns for path in frames.iterdir()}
    capsys.readouterr()
    assert main(command) == 0
    printed = capsys.readouterr().out.splitlines()
    assert any(line.startswith("36 views from 2 references:") for line in printed)
    assert any(line.startswith("The surface (75 steps) takes up to") for line in printed)
    said = json.loads(printed[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert {path.name: path.stat().st_mtime_ns for path in (out / "views" / "frames").iterdir()} == before
    assert len(before) == 36 and sorted(f"{path.name}{'/' * path.is_dir()}" for path in out.iterdir()) == sorted(
        meshing.MESH_FILES
    )
    mesh = trimesh.load(out / "mesh.ply", process=False)
    assert len(mesh.faces) == said["faces"] > 900 and mesh.is_watertight and said["painted"] > 0.8
    (textured,) = trimesh.load(out / "mesh.glb").geometry.values()
    assert textured.visual.material.baseColorTexture.size == (128, 128) and len(textured.faces) <= 900
    colmap = read_capture(out / "colmap")
    torch.testing.assert_close(
        colmap.cameras.world_from_cam, read_capture(out / "views").cameras.world_from_cam, rtol=0, atol=1e-5
    )
    assert colmap.points is not None and len(colmap.points.positions) == len(mesh.vertices)


def test_views_all_around_are_those_of_the_paper():
    capture = read_capture(BUS)
    cameras = rings(capture)
    offsets = cameras.centres - capture.origin()
    distance = offsets.norm(dim=-1)
    torch.testing.assert_close(distance, distance[:1].expand(36))
    elevations = torch.rad2deg((offsets @ capture.up().float() / distance).asin())
    torch.testing.assert_close(elevations, torch.tensor([-30.0, 0.0, 30.0]).repeat_interleave(12), rtol=0, atol=1e-3)
    ahead = torch.nn.functional.normalize(offsets, dim=-1)
    torch.testing.assert_close((ahead * cameras.directions).sum(-1), torch.full((36,), -1.0))
    turns = (ahead[12:24] * ahead[12:24].roll(-1, 0)).sum(-1)
    torch.testing.assert_close(turns, torch.full((12,), 3**0.5 / 2), rtol=0, atol=1e-5)  # 30 degrees


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("default", ["--frames", "5"], "--frames is for models that render points, which default is not"),
        ("default", ["--surface"], "--surface is for models that render points"),
        ("rng", ["--seed", "3"], "--seed is for models that draw, or render images alone, which rng is not"),
        ("rng", ["--fit.faces", "1000"], "--fit is for models that render images alone"),
        ("capture", ["--fit.faces", "1000"], "--fit is for models, which capture is not"),
        ("default", ["--fps", "-5"], "--fps must be above 0 and at most 1000, got -5.0"),
        ("default", ["--out", "."], "the output folder is the one we are in"),
    ],
)
def test_options_of_another_way_are_refused(model, more, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["reconstruct", str(BUS), "--model", model, "--out", str(tmp_path / "out"), *more]
    assert main(command) == 1
    assert said in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_places_are_refused_and_few_images_are_all_taken(tmp_path, capsys):
    room = REPOSITORY / "tests" / "room"
    assert main(["reconstruct", str(room), "--model", "places", "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr()
    assert "6 as references" in said.out and "the cameras look about in a place" in said.err
    assert "give masks ('capture --cut-out') and --masked" in said.err
    few = tmp_path / "few"
    shutil.copytree(BUS, few)
    document = json.loads((few / "transforms.json").read_text())
    document["frames"] = document["frames"][:4]
    (few / "transforms.json").write_text(json.dumps(document))
    assert main(["reconstruct", str(few), "--model", "default", "--out", str(tmp_path / "o"), "--turntable", "0"]) == 1
    said = capsys.readouterr()
    assert "4 as references" in said.out and "A turntable has 1 or more frames, got 0" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few"]


def test_an_object_in_a_place_is_taken_with_its_masks(tmp_path, capsys, monkeypatch):
    """As structure from motion and cutting out leave it: in a world of its own, whose zero means nothing."""
    folder = tmp_path / "photos"
    shutil.copytree(BUS, folder)
    document = json.loads((folder / "transforms.json").read_text())
    (folder / "masks").mkdir()
    for frame in document["frames"]:
        frame["transform_matrix"][0][3] += 5.0
        frame["mask_path"] = f"masks/{Path(frame['file_path']).stem}.png"
        with Image.open(folder / frame["file_path"]) as picture:
            picture.getchannel("A").point(lambda level: 255 * (level > 127)).save(folder / frame["mask_path"])
    (folder / "transforms.json").write_text(json.dumps({k: v for k, v in document.items() if k != "scene_centred"}))
    capture = read_capture(folder)
    assert capture.centred == "scene"

    def begun(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(meshing.RenderingJob, "run", begun)
    command = ["reconstruct", str(folder), "--model", "default", "--references", "0,2", "--out", str(tmp_path / "out")]
    assert main(command) == 1 and "give masks" in capsys.readouterr().err
    assert main([*command, "--masked"]) == 130


@pytest.mark.parametrize(
    ("model", "more", "remedy"),
    [
        ("default", ["--fit.surface.rays", "1000000", "--fit.surface.samples", "512"], "lower --fit.surface.rays"),
        ("rng", ["--surface", "--mesh.resolution", "512"], "lower --mesh.resolution"),
    ],
)
def test_what_does_not_fit_into_memory_is_refused_before_it_starts(model, more, remedy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("kaleidoscene.memory.available_bytes", lambda device="cpu": 2**31)
    command = ["reconstruct", str(BUS), "--model", model, "--references", "0,2", "--out", str(tmp_path / "out")]
    assert main([*command, *more]) == 1
    said = capsys.readouterr().err
    assert "GiB, 2.0 GiB are free" in said and remedy in said and not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """The bus as a benchmark of one object, and a box in place of its true surface."""
    folder = tmp_path_factory.mktemp("shapes")
    shutil.copytree(BUS, folder / "captures" / "bus")
    (folder / "meshes").mkdir()
    trimesh.creation.box((1.0, 0.5, 0.55)).subdivide_to_size(0.05).export(folder / "meshes" / "bus.ply")
    return folder


def test_surfaces_are_scored_and_a_second_start_goes_on(objects, tmp_path, capsys):
    command = [
        "evaluate", "--benchmark", "gso-3d", "--data", str(objects / "captures"), "--meshes", str(objects / "meshes"),
        "--model", "baseline:hull", "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    assert main([*command, "--references", "3"]) == 0
    first = json.loads((tmp_path / "out" / "report.json").read_text())
    assert main([*command, "--references", "3", "5"]) == 0
    printed = capsys.readouterr().out
    both = json.loads((tmp_path / "out" / "report.json").read_text())
    assert both["scores"][0] == first["scores"][0] and [score["references"] for score in both["scores"]] == [3, 5]
    assert "Kaleido 0.0113 / 0.796" in printed and "EscherNet 0.0175 / 0.742" in printed
    for score in both["scores"]:
        assert 0 < score["vertices"] < 0.2 and 0.1 < score["overlap"] < 1 and not score["failed"]
    said = json.loads(printed.splitlines()[-1])["mean"]
    assert said["5"]["overlap"] == both["scores"][1]["overlap"]
    other = [name if name != "baseline:hull" else "baseline:plane-sweep" for name in command]
    assert main(other) == 1 and "an evaluation of baseline:hull" in capsys.readouterr().err
    for more, wanted in (
        (["--metrics", "psnr"], "--metrics is not for the benchmark gso-3d"),
        (["--image-size", "256"], "--image-size is not for the benchmark gso-3d"),
        (["--references", "3", "3"], "--references must be different positive numbers"),
        (["--scenes", "buss"], "scene in"),
    ):
        assert main([*command, *more]) == 1 and wanted in capsys.readouterr().err
    (objects / "meshes" / "bus.ply").rename(objects / "meshes" / "car.ply")
    assert main(command) == 1 and "no true mesh bus.glb" in capsys.readouterr().err
    (objects / "meshes" / "car.ply").rename(objects / "meshes" / "bus.ply")


@pytest.mark.slow
def test_more_silhouettes_are_nearer_to_the_true_surface(shared_data, tmp_path):
    """On a real scan: the hull of ten references against that of three, in the axes of the true mesh."""
    parts = fit_unit_box(read_mesh(shared_data / "meshes" / "test" / "gso_Sonny_School_Bus.glb"))
    truth = trimesh.util.concatenate([trimesh.Trimesh(part.vertices, part.faces, process=False) for part in parts])
    job = ShapeJob(out=tmp_path, data=BUS.parent, meshes=shared_data / "meshes" / "test", model="baseline:hull")
    make, _ = job._maker()
    capture = read_capture(BUS).recentred()
    off = []
    for count in (3, 10):
        made = make(capture.select(range(count)))
        mesh = trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False)
        off.append(chamfer_sampled(mesh, truth, samples=10_000))
    assert off[1] < 0.95 * off[0] and off[1] < 0.05, off
    turned = truth.copy()
    turned.vertices = np.asarray(turned.vertices)[:, [1, 0, 2]]
    assert chamfer_sampled(mesh, turned, samples=10_000) > 1.5 * off[1]


def test_what_makes_no_surface_is_counted_and_named(objects, tmp_path):
    job = ShapeJob(out=tmp_path / "out", data=objects / "captures", meshes=objects / "meshes", model="baseline:hull")

    def nothing(_):
        raise NoSurface("The views agree on no surface.")

    truth = trimesh.load(objects / "meshes" / "bus.ply")
    score = job._score("bus", read_capture(BUS).select([0, 1]), truth, nothing)
    assert (score.vertices, score.overlap, score.failed) == (0.5, 0.0, "The views agree on no surface.")

    def broken(_):
        raise KaleidosceneError("Meshes need scikit-image.")

    with pytest.raises(KaleidosceneError, match="scikit-image"):  # no answer of the method: it is not scored
        job._score("bus", read_capture(BUS).select([0, 1]), truth, broken)
