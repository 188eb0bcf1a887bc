"""``kaleidoscene reconstruct --model capture``: a capture with depth maps becomes a mesh, a cloud and splats."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.workflows.surface import views_of_capture
from tests.own_captures import seven_scenes
from tests.reconstruction.test_fusion import RADIUS, around, colour_of, views_of_a_sphere

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A capture of a coloured ball with depth maps and alpha, and what was drawn."""
    folder, views = tmp_path_factory.mktemp("captures") / "ball", views_of_a_sphere(around(12))
    alpha = (views.depths > 0).numpy().astype(np.uint8)[..., None] * 255
    rgb = np.stack([to_bytes(image) for image in views.images])
    folder.mkdir()
    write_rendered_capture(folder, np.concatenate([rgb, alpha], -1), views.cameras, depth=views.depths.numpy())
    return folder, views


def test_a_capture_with_depth_becomes_a_mesh_in_its_own_world(ball, tmp_path, capsys):
    folder, _ = ball
    out = tmp_path / "out"
    assert main(["reconstruct", str(folder), "--model", "capture", "--out", str(out), "--mesh.resolution", "40",
                 "--mesh.unseen", "inside", "--turntable", "3", "--json"]) == 0  # fmt: skip
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    names = ["cloud.glb", "cloud.ply", "mesh.glb", "mesh.ply", "splats.ply", "turntable.mp4"]
    assert sorted(path.name for path in out.iterdir()) == names
    mesh = trimesh.load(out / "mesh.ply", process=False)
    assert mesh.is_watertight and len(mesh.faces) == said["faces"]
    radii = np.linalg.norm(mesh.vertices, axis=1)
    assert abs(radii - RADIUS).mean() < 0.004 and mesh.volume > 0
    seen = torch.from_numpy(np.asarray(mesh.visual.vertex_colors)[:, :3] / 255).float()
    off = (seen - colour_of(torch.from_numpy(np.asarray(mesh.vertices)).float())).abs()
    assert float(off.median()) < 0.02 and float(off.mean()) < 0.04
    # Viewers expect y up; the world of the capture has z up.
    turned = trimesh.load(out / "mesh.glb", force="mesh", process=False)
    expected = np.asarray(mesh.vertices)[:, [0, 2, 1]] * [1, 1, -1]
    assert np.abs(np.sort(turned.vertices[:, 1]) - np.sort(expected[:, 1])).max() < 1e-4


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A room seen from within; few of its views have a depth map."""
    folder = tmp_path_factory.mktemp("captures") / "room"
    seven_scenes(folder)
    return folder


def test_what_the_images_say_of_background_is_carved_and_nothing_else(ball, room):
    folder, drawn = ball
    views, empty = views_of_capture(read_capture(folder))
    assert torch.allclose(views.depths, drawn.depths, atol=1e-3)
    assert bool((empty == (drawn.depths == 0)).all())
    opaque = read_capture(room)
    views, empty = views_of_capture(opaque)
    assert len(views) == sum(frame.depth is not None for frame in opaque.frames) < len(opaque)
    assert not bool(empty.any())  # a pixel without depth is not known to be free


def test_masks_cut_the_object_out_of_its_background(tmp_path):
    """A wall that is known everywhere, and a mask: what lies beyond it is free, and not of the object."""
    cameras, size = around(3), (48, 60)
    pixels = np.full((3, *size, 4), 255, np.uint8)
    folder = tmp_path / "wall"
    folder.mkdir()
    write_rendered_capture(folder, pixels, cameras, depth=np.full((3, *size), 1.5, np.float32))
    document = json.loads((folder / "transforms.json").read_text())
    mask = np.zeros(size, np.uint8)
    mask[10:30, 20:50] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    for frame in document["frames"]:
        frame["mask_path"] = "mask.png"
    (folder / "transforms.json").write_text(json.dumps(document))
    views, empty = views_of_capture(read_capture(folder), masked=True)
    assert bool(((views.depths > 0) == torch.from_numpy(mask > 0)).all())
    assert bool((empty == torch.from_numpy(mask == 0)).all())
    views, empty = views_of_capture(read_capture(folder))
    assert bool((views.depths > 0).all()) and not bool(empty.any())


def test_a_room_is_left_open(room, tmp_path):
    out = tmp_path / "out"
    assert main(["reconstruct", str(room), "--model", "capture", "--out", str(out), "--mesh.resolution", "48",
                 "--turntable", "2"]) == 0  # fmt: skip
    mesh = trimesh.load(out / "mesh.ply", process=False)
    assert len(mesh.faces) > 2000 and not mesh.is_watertight
    views, _ = views_of_capture(read_capture(room))
    truth = views.points[views.depths > 0][::97].numpy()
    near = trimesh.proximity.ProximityQuery(mesh).vertex(truth)[0]
    assert np.median(near) < 0.7 * mesh.extents.max() / 48  # less than a cell from a vertex


def test_lenses_are_made_straight(ball):
    capture = read_capture(ball[0])
    bent = tuple(replace(f, distortion=Distortion.opencv(0.8, 0.0, 0.0, 0.0, 0.0)) for f in capture.frames)
    views, _ = views_of_capture(replace(capture, frames=bent))
    straight, _ = views_of_capture(capture)
    assert not torch.allclose(views.depths, straight.depths, atol=1e-3)  # looked up where the lens puts them
    assert torch.equal(views.depths, replace(capture, frames=bent).depths())


def test_nothing_to_fuse_is_refused(ball):
    capture = read_capture(ball[0])
    with pytest.raises(KaleidosceneError, match="no views with a camera and a depth map"):
        views_of_capture(replace(capture, frames=tuple(replace(frame, depth=None) for frame in capture.frames)))
