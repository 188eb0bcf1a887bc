"""kaleidoscene reconstruct: from photographs to a folder, and what it refuses."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from kaleidoscene.api import load
from kaleidoscene.captures.checking.run import check_capture
from kaleidoscene.captures.formats.registry import read_capture, scan_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import write_checkpoint
from kaleidoscene.families.rng.checkpoint import describe
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.geometry.poses import random_rotation
from kaleidoscene.geometry.rays import project
from kaleidoscene.geometry.upright import level_up
from kaleidoscene.images.files import read_image
from kaleidoscene.reconstruction.fusion import FusionConfig
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.workflows.reconstruction import ReconstructionJob
from tests import own_captures
from tests.conftest import ring
from tests.families.rng.tiny import SIZE, tiny_network, tiny_settings

pytestmark = pytest.mark.slow

PHOTO = (40, 66)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random weights, whose points lie about the origin."""
    folder = tmp_path_factory.mktemp("model")
    network = tiny_network()
    network.points.out.weight.data *= 0.2
    # Angles of view of about 50 degrees: what check finds right.
    network.camera_head.out.weight.data[7:] *= 0.01
    network.camera_head.out.bias.data[7:] = 0.3
    write_checkpoint(folder, describe(tiny_settings()), network.state_dict())
    return str(folder)


def write_photographs(folder, count=3, *, size=PHOTO, seed=0):
    folder.mkdir()
    draw = np.random.default_rng(seed)
    for number in range(count):
        Image.fromarray(draw.integers(0, 200, (*size, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def columns_of(path):
    """Header and rows of a PLY file, read by its own words."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in head.decode().splitlines() if line.startswith("property")]
    return np.frombuffer(body, dtype=[(name, kinds[kind]) for kind, name in fields])


def test_photographs_become_a_folder(tmp_path, model, capsys):
    photos, out = write_photographs(tmp_path / "photos"), tmp_path / "out"
    arguments = ["reconstruct", str(photos), "--model", model, "--out", str(out), "--frames", "5", "--turntable", "4"]
    filters = ["--fusion.new-erosion", "0", "--fusion.source-erosion", "0"]
    assert main([*arguments, *filters, "--json"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    said = json.loads(lines[-1])
    assert any("3 of 3 images are used (0, 1, 2)" in line for line in lines) and said["poses"] is None
    rows = columns_of(out / "cloud.ply")
    assert len(rows) == said["points"] > 0
    assert rows.dtype.names == ("x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "confidence")
    lengths = np.linalg.norm(np.stack([rows[name] for name in ("nx", "ny", "nz")]), axis=0)
    assert np.allclose(lengths, 1, atol=1e-5) and (rows["confidence"] >= 1).all()
    cloud = trimesh.load(out / "cloud.ply")
    assert np.allclose(cloud.vertices[:, 2], rows["z"])
    # Viewers of GLB take y for up; the world of the object has z up.
    shown = trimesh.load(out / "cloud.glb").geometry
    (points,) = shown.values()
    assert np.allclose(points.vertices[:, 1], rows["z"], atol=1e-5)
    assert np.array_equal(points.colors[:, 0], rows["red"])
    capture = read_capture(out)
    assert capture.is_posed and len(capture) == 3 and capture.centred == "object"
    assert not [finding for finding in check_capture(scan_capture(out)) if finding.severity == "error"]
    assert float(capture.cameras.centres[0].norm()) == pytest.approx(1, abs=1e-5)
    # Depth maps belong to the points: both are of the same pixels.
    scene = load(model).open_scene(out / "scene.safetensors")
    views = scene.sources()
    depths = capture.depths()
    torch.testing.assert_close(depths, views.depths, rtol=0, atol=float(views.depths.max()) / 30_000)
    known = views.depths[0] > 0
    _, depth = project(capture.cameras[0], views.points[0][known])
    torch.testing.assert_close(depth, depths[0][known], rtol=1e-3, atol=1e-4)
    for name in ("turntable.mp4", "contact_sheet.png", "images/002.png", "depth/002.png"):
        assert (out / name).stat().st_size > 0
    assert not (out / "turntable").exists()
    assert main([*arguments, *filters]) == 1
    assert "the output folder is not empty; give --overwrite" in capsys.readouterr().err


def test_what_was_done_is_taken_up_again(tmp_path, model, capsys, monkeypatch):
    """Stopped among its views, the same command makes the rest, without the scene anew, and writes the same."""
    photos = write_photographs(tmp_path / "photos")
    common = ["reconstruct", str(photos), "--model", model, "--frames", "20", "--turntable", "2"]
    common += ["--fusion.new-erosion", "0", "--fusion.source-erosion", "0"]
    assert main([*common, "--out", str(tmp_path / "whole")]) == 0
    some, calls = Reconstruction._some, []

    def counted(self, cameras):
        calls.append(len(cameras))
        if len(calls) == 4:  # sources, and two of three parts of the views
            raise KeyboardInterrupt
        return some(self, cameras)

    monkeypatch.setattr(Reconstruction, "_some", counted)
    resumed = [*common, "--out", str(tmp_path / "out")]
    assert main(resumed) == 130
    assert "the same command goes on with the rest" in capsys.readouterr().out and not (tmp_path / "out").exists()
    other = [word if word != "20" else "12" for word in resumed]
    assert main(other) == 1 and "another rendering was begun here" in capsys.readouterr().err
    (tmp_path / ".out.rendering" / "new" / "000008.safetensors").write_bytes(b"torn")
    with monkeypatch.context() as patch:
        patch.setattr(RngRenderer, "encode", None)  # nobody asks for it
        assert main(resumed) == 0
    assert calls[4:] == [8, 4, 8], "the torn part, the last one, and the views of the contact sheet"
    assert "going on with the scene that was made, and 3 parts of its views" in capsys.readouterr().out
    for name in ("cloud.ply", "splats.ply", "scene.safetensors", "depth/001.png", "contact_sheet.png"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_known_cameras_fix_the_world_and_are_held_against(tmp_path, model, capsys):
    photos = write_photographs(tmp_path / "photos", 4)
    cameras = ring(4, PHOTO, seed=1)
    write_cameras(photos / "transforms.json", [f"{n}.png" for n in range(4)], cameras)
    out = tmp_path / "out"
    arguments = ["reconstruct", str(photos), "--model", model, "--out", str(out), "--turntable", "1"]
    assert main([*arguments, "--references", "2,0,3", "--json", "--fusion.new-erosion", "0"]) == 0
    printed = capsys.readouterr().out
    assert "Its cameras fix the world" in printed and "AUC@30" in printed and "Laid on those by Sim(3)" in printed
    said = json.loads(printed.strip().splitlines()[-1])
    assert set(said["poses"]) == {"ra5", "ra15", "ra30", "rt5", "rt15", "rt30", "auc30"}
    assert 0 < said["path"]["ate_r"] <= 180 and said["path"]["ate_t"] > 0
    found = read_capture(out).cameras
    torch.testing.assert_close(found.world_from_cam, cameras.world_from_cam[[2, 0, 3]], rtol=0, atol=1e-5)


def test_what_is_refused_leaves_nothing(tmp_path, model, capsys):
    photos, out = write_photographs(tmp_path / "photos"), tmp_path / "out"

    def said(*changed: str, source=photos) -> str:
        assert main(["reconstruct", str(source), "--out", str(out), *changed]) == 1
        assert not out.exists() and not list(tmp_path.glob(".out*"))
        return capsys.readouterr().err

    assert "renders_points" not in (text := said("--model", "default")) and "rng" in text
    ours = ("--model", model)
    assert "view 7 is out of range" in said(*ours, "--references", "0,7")
    assert "view 1 is named twice" in said(*ours, "--references", "1,0,1")
    assert "at least one image, got 0" in said(*ours, "--num-references", "0")
    assert "0 or more views around it" in said(*ours, "--frames", "-1")
    with pytest.raises(SystemExit) as stop:
        main(["reconstruct", str(photos), "--out", str(out), *ours, "--fusion.new-quantile", "2"])
    assert stop.value.code == 2 and "new_quantile is a share" in capsys.readouterr().err
    white = tmp_path / "white"
    white.mkdir()
    Image.fromarray(np.full((*PHOTO, 3), 255, np.uint8)).save(white / "a.png")
    assert "white all over" in said(*ours, source=white)
    (tmp_path / "none").mkdir()
    assert "none" in said(*ours, source=tmp_path / "none")
    (photos / "1.png").write_bytes(b"\x89PNG broken")
    assert "1.png" in said(*ours)


def test_from_python(tmp_path, model):
    photos = write_photographs(tmp_path / "photos")
    files = sorted(photos.iterdir())
    scene = load(model).reconstruct(files)
    assert len(scene.cameras) == 3
    # The world is the object's: cameras that are held level have z up.
    up = level_up(scene.cameras)
    assert up is not None
    torch.testing.assert_close(up, torch.tensor([0.0, 0.0, 1.0]), rtol=0, atol=1e-4)
    torch.testing.assert_close(scene.up, torch.tensor([0.0, 0.0, 1.0]))
    views = scene.render(scene.around(4))
    assert views.images.shape == (4, 3, *SIZE) and views.points.shape == (4, *SIZE, 3)
    assert torch.equal(load(model).reconstruct(read_capture(photos)).images, scene.images)
    with pytest.raises(KaleidosceneError, match="zero targets"):
        scene.render(scene.cameras[:0])
    with pytest.raises(KaleidosceneError, match="no such image"):
        load(model).reconstruct([*files, photos / "9.png"])
    with pytest.raises(KaleidosceneError, match="There are no photographs"):
        load(model).reconstruct([])


def splat_size(path):
    """The logarithm of the first one's, which is that of all."""
    header, _, body = path.read_bytes().partition(b"end_header\n")
    names = [line.split()[-1] for line in header.decode().splitlines() if line.startswith("property float")]
    return float(np.frombuffer(body, "<f4", len(names))[names.index("scale_0")])


def test_the_world_may_be_moved(tmp_path, model):
    """Cameras of a capture that is turned, scaled and moved: points are, too, and pictures of them are the same."""
    photos = write_photographs(tmp_path / "photos")
    cameras = ring(3, PHOTO, seed=4)
    names = [f"{n}.png" for n in range(3)]
    write_cameras(photos / "transforms.json", names, cameras, centred="scene")
    ours = load(model).reconstruct(read_capture(photos))
    turn = random_rotation(generator=torch.Generator().manual_seed(5))
    move = torch.tensor([40.0, -70.0, 90.0])
    poses = cameras.world_from_cam.clone()
    poses[:, :3, :3] = turn @ poses[:, :3, :3]
    poses[:, :3, 3] = 3.0 * poses[:, :3, 3] @ turn.T + move
    write_cameras(photos / "transforms.json", names, replace(cameras, world_from_cam=poses), centred="scene")
    theirs = load(model).reconstruct(read_capture(photos))
    torch.testing.assert_close(theirs.origin, 3.0 * turn @ ours.origin + move, rtol=1e-4, atol=1e-3)
    a, b = ours.sources(), theirs.sources()
    torch.testing.assert_close(b.depths, 3 * a.depths, rtol=1e-2, atol=1e-2)
    torch.testing.assert_close(b.points, 3 * a.points @ turn.T + move, rtol=1e-3, atol=3e-2)
    # Squares of a drawing are as large in pixels, wherever the world's zero is.
    assert theirs.view.distance == pytest.approx(3 * ours.view.distance, rel=1e-4)
    drawn = []
    job = {"frames": 0, "fusion": FusionConfig(source_erosion=0.0, cell=0.0), "turntable": 1}
    for name, capture in (("a", ours), ("b", theirs)):
        del capture
        out = tmp_path / name
        if name == "a":
            write_cameras(photos / "transforms.json", names, cameras, centred="scene")
        else:
            moved = replace(cameras, world_from_cam=poses)
            write_cameras(photos / "transforms.json", names, moved, centred="scene")
        ReconstructionJob(out=out, model=load(model), capture=read_capture(photos), **job).run()
        drawn.append(read_image(out / "contact_sheet.png")[0])
    assert (drawn[0] - drawn[1]).abs().mean() < 0.02
    sizes = [splat_size(tmp_path / name / "splats.ply") for name in ("a", "b")]
    assert sizes[1] == pytest.approx(sizes[0] + math.log(3), abs=1e-3)


def test_photographs_of_different_sizes(tmp_path, model, capsys):
    """Upright and lying ones: the middle of each is seen, and lenses follow."""
    photos = write_photographs(tmp_path / "photos", 2)
    draw = np.random.default_rng(3)
    Image.fromarray(draw.integers(0, 200, (66, 40, 3), dtype=np.uint8)).save(photos / "2.png")
    out = tmp_path / "out"
    arguments = ["reconstruct", str(photos), "--model", model, "--out", str(out), "--turntable", "1", "--frames", "0"]
    assert main([*arguments, "--fusion.source-erosion", "0"]) == 0
    assert (
        "References of 2 sizes are cropped about their middle to the smallest sides, 40x40" in capsys.readouterr().out
    )
    loaded = load(model)
    posed = loaded.estimate_cameras(read_capture(photos))
    seen = loaded.prepare(posed)[1]
    # As the model sees them all have the lens that it told, about the middle.
    middle = torch.tensor([SIZE[1] / 2, SIZE[0] / 2]).expand(3, 2)
    torch.testing.assert_close(seen.intrinsics[:, :2, 2], middle, rtol=0, atol=0.5)
    told = loaded.system.renderer.encode(loaded.prepare(posed)[0][None], None).cameras
    torch.testing.assert_close(seen.intrinsics[:, 0, 0], told.intrinsics[0, :, 0, 0], rtol=1e-4, atol=1e-4)
    render = ["render", str(photos), "--model", model, "--out", str(tmp_path / "views"), "--frames", "2"]
    assert main(render) == 0


def test_a_lens_that_is_known_is_kept(tmp_path, model, capsys):
    """EXIF tells it; the poses are those of photographs that say nothing, whose lens the model tells."""
    own_captures.photographs(tmp_path / "said", 3, equivalent=35)
    own_captures.photographs(tmp_path / "silent", 3)
    said, silent = (read_capture(tmp_path / name) for name in ("said", "silent"))
    loaded = load(model)
    known, told = (loaded.estimate_cameras(capture) for capture in (said, silent))
    torch.testing.assert_close(known.cameras.world_from_cam, told.cameras.world_from_cam)
    for before, frame, other in zip(said.frames, known.frames, told.frames, strict=True):
        assert torch.equal(frame.intrinsics, before.intrinsics) and not other.guessed_focal
        assert not torch.allclose(frame.intrinsics, other.intrinsics, rtol=1e-2)
    render = ["render", str(tmp_path / "said"), "--model", model, "--out", str(tmp_path / "out"), "--frames", "1"]
    assert main(render) == 0
    assert "The lenses of 3 are known, and kept." in capsys.readouterr().out


def test_depth_maps_beside_frames(tmp_path, model, capsys):
    """What --depth writes is what Python gives, and is read back as a capture."""
    photos, out = write_photographs(tmp_path / "photos"), tmp_path / "out"
    arguments = ["render", str(photos), "--model", model, "--out", str(out), "--frames", "3"]
    assert main(["render", str(photos), "--out", str(out), "--depth", "--references", "0"]) == 1
    assert "--depth needs a method that renders depth" in capsys.readouterr().err and not out.exists()
    assert main([*arguments, "--depth", "--num-references", "3"]) == 0
    assert "wrote " + str(out / "depth") in capsys.readouterr().out
    written = read_capture(out)
    depths = written.depths()
    loaded = load(model)
    posed = loaded.estimate_cameras(read_capture(photos))
    views = loaded.render(posed.upright(), cameras=written.cameras)
    assert views.depths is not None
    torch.testing.assert_close(depths, views.depths, rtol=0, atol=float(views.depths.max()) / 10_000)
    views.save(tmp_path / "again")
    torch.testing.assert_close(read_capture(tmp_path / "again").depths(), depths, rtol=0, atol=1e-3)
    assert main([*arguments, "--num-references", "3", "--overwrite"]) == 0
    assert not (out / "depth").exists()
