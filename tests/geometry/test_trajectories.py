import json
import math

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry import trajectories as paths
from kaleidoscene.geometry.camera_path import read_camera_path, write_camera_path
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import rotation_angle
from kaleidoscene.geometry.rays import project
from tests.conftest import ring


@pytest.fixture
def view() -> paths.View:
    return paths.View.of(ring(5), centre=torch.tensor([0.1, -0.2, 0.3]), up=torch.tensor([0.0, 0.0, 1.0]))


@pytest.mark.parametrize("name", ["orbit", "spiral", "lemniscate", "dolly"])
def test_paths_about_a_centre_keep_it_in_the_middle(view, name):
    path = paths.PRESETS[name](view, 7)
    pixels, depth = project(path, view.centre.expand(7, 1, 3))
    assert (depth > 0).all()
    torch.testing.assert_close(pixels[:, 0], torch.tensor([[12.0, 8.0]]).expand(7, 2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", sorted(paths.PRESETS))
def test_every_preset_has_its_frames_and_size(view, name):
    path = paths.preset(name, view, 6)
    assert len(path) == 6
    assert path.image_size == (16, 24)


def test_orbit_is_a_circle_that_starts_at_the_view_and_does_not_repeat_it(view):
    path = paths.orbit(view, 8)
    torch.testing.assert_close(path.centres[0], view.camera.centres, rtol=0, atol=1e-5)
    offset = path.centres - view.centre
    torch.testing.assert_close(offset.norm(dim=-1), torch.full((8,), view.distance), rtol=0, atol=1e-5)
    torch.testing.assert_close(offset[:, 2], offset[0, 2].expand(8), rtol=0, atol=1e-5)
    step = (path.centres - path.centres.roll(1, 0)).norm(dim=-1)
    torch.testing.assert_close(step, step[0].expand(8), rtol=0, atol=1e-5)
    assert step[0] > 0.1


def test_orbit_at_an_elevation(view):
    offset = paths.orbit(view, 5, elevation=30.0).centres - view.centre
    torch.testing.assert_close(offset[:, 2] / offset.norm(dim=-1), torch.full((5,), 0.5), rtol=0, atol=1e-5)


def test_dolly_ends_at_its_factor(view):
    path = paths.dolly(view, 4, factor=0.25)
    assert (path.centres[-1] - view.centre).norm().item() == pytest.approx(view.distance / 4, rel=1e-5)


def test_dolly_zoom_keeps_the_size_of_things_at_the_centre(view):
    path = paths.dolly_zoom(view, 5, factor=0.5)
    size = path.intrinsics[:, 1, 1] / (path.centres - view.centre).norm(dim=-1)
    torch.testing.assert_close(size, size[0].expand(5))


def test_pan_and_roll_turn_in_place(view):
    for name, degrees in (("pan", 30), ("roll", 90)):
        path = paths.PRESETS[name](view, 4)
        torch.testing.assert_close(path.centres, view.camera.centres.expand(4, 3))
        angle = rotation_angle(path.world_from_cam[0, :3, :3], path.world_from_cam[-1, :3, :3])
        assert angle.item() == pytest.approx(math.radians(degrees), abs=1e-3)


def test_move_keeps_the_direction(view):
    path = paths.move(view, 4, direction="left", amount=0.5)
    torch.testing.assert_close(path.directions, view.camera.directions.expand(4, 3))
    in_camera = view.camera.world_from_cam[:3, :3].mT @ (path.centres[-1] - path.centres[0])
    torch.testing.assert_close(in_camera, torch.tensor([-0.5 * view.distance, 0, 0]), rtol=0, atol=1e-5)
    with pytest.raises(KaleidosceneError, match="did you mean 'left'"):
        paths.move(view, 3, direction="lefft")


def test_spline_meets_its_keyframes():
    keys = ring(4)
    path = paths.spline(keys, 10)
    torch.testing.assert_close(path.world_from_cam[[0, 3, 6, 9]], keys.world_from_cam, rtol=0, atol=1e-4)
    closed = paths.spline(keys, 8, closed=True)
    torch.testing.assert_close(closed.world_from_cam[::2], keys.world_from_cam, rtol=0, atol=1e-4)
    with pytest.raises(KaleidosceneError, match="at least 2"):
        paths.spline(keys[:1], 5)


def test_unknown_preset_names_the_near_one(view):
    with pytest.raises(KaleidosceneError, match="did you mean 'orbit'"):
        paths.preset("orbitt", view, 3)


@pytest.mark.parametrize(("name", "far"), [("spiral", 0.25), ("lemniscate", 0.4)])
def test_circles_stay_where_cameras_of_a_capture_stand(view, name, far):
    """A film goes a few steps past what is far away: a quarter of that distance leaves all that it shows."""
    poses = view.camera.world_from_cam.repeat(5, 1, 1)
    poses[:, :3, 3] += 0.02 * torch.arange(5.0)[:, None] * poses[:, :3, 0]
    cameras = Cameras(poses, view.camera.intrinsics.expand(5, 3, 3), view.camera.image_size)
    film = paths.View.of(cameras, centre=view.centre)
    assert film.reach == pytest.approx(0.04, rel=1e-4)

    def beside(start: paths.View, **options: float) -> float:
        moved = paths.PRESETS[name](start, 40, **options).centres - start.camera.centres
        return float((moved @ start.camera.world_from_cam[:3, :3])[:, :2].norm(dim=-1).max())

    assert beside(film) == pytest.approx(0.04, rel=1e-3)
    ahead = cameras.centres + torch.linspace(-1, 1, 5)[:, None] * view.camera.directions
    drive = paths.View.of(cameras[:1], centre=view.centre, standpoints=ahead)
    assert drive.reach == pytest.approx(0.04, rel=1e-3), "what they went ahead does not count"
    assert beside(view) == pytest.approx(far * view.distance, rel=1e-3), "those around an object stand far apart"
    assert beside(film, radius=0.1) == pytest.approx(0.1 * film.distance, rel=1e-3), "what is said is done"
    alone = paths.View.of(Cameras(poses[:1], film.camera.intrinsics[None], film.camera.image_size), centre=view.centre)
    assert alone.reach is None and beside(alone) == pytest.approx(far * alone.distance, rel=1e-3)


def test_zero_frames_are_refused(view):
    with pytest.raises(KaleidosceneError, match="at least one frame"):
        paths.orbit(view, 0)


def test_camera_path_survives_its_file(tmp_path, view):
    path = paths.spiral(view, 5)
    write_camera_path(tmp_path / "path.json", path)
    back = read_camera_path(tmp_path / "path.json")
    assert torch.equal(back.world_from_cam, path.world_from_cam)
    assert torch.equal(back.intrinsics, path.intrinsics)
    assert back.image_size == path.image_size


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"format": "other"}, "not a camera path"), ({"version": 9}, "version 9"), ({"frames": []}, "no frames")],
)
def test_bad_camera_paths_are_refused(tmp_path, view, change, reason):
    file = tmp_path / "path.json"
    write_camera_path(file, paths.orbit(view, 3))
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(KaleidosceneError, match=reason):
        read_camera_path(file)


def test_presets_take_parameters_by_text():
    view = paths.View.of(ring(3, (12, 16)), centre=torch.zeros(3), up=torch.tensor([0.0, 0.0, 1.0]))
    same = paths.orbit(view, 5, degrees=90.0, elevation=30.0)
    got = paths.preset("orbit:degrees=90,elevation=30", view, 5)
    assert torch.equal(got.world_from_cam, same.world_from_cam)
    left = paths.preset("move:direction=left,amount=0.2", view, 4)
    assert torch.equal(left.world_from_cam, paths.move(view, 4, direction="left", amount=0.2).world_from_cam)
    for text, message in {
        "orbit:degree=90": "did you mean 'degrees'",
        "orbit:degrees=far": "degrees must be a number, got 'far'",
        "orbt": "did you mean 'orbit'",
    }.items():
        with pytest.raises(KaleidosceneError, match=message):
            paths.preset(text, view, 5)


def test_cameras_on_a_sphere_look_at_its_middle_from_all_sides():
    view = paths.View.of(ring(4, seed=3), centre=torch.tensor([0.2, -0.1, 0.3]), up=torch.tensor([0.1, 1.0, 0.2]))
    cameras = paths.sphere(view, 40)
    offsets = cameras.centres - view.centre
    torch.testing.assert_close(offsets.norm(dim=-1), torch.full((40,), view.distance))
    torch.testing.assert_close((cameras.directions * offsets).sum(-1), -offsets.norm(dim=-1))
    unit = offsets / view.distance
    assert unit.mean(0).norm() < 0.05
    # Evenly spread: no direction is far from a camera, no two cameras are near.
    probes = torch.nn.functional.normalize(torch.randn(500, 3), dim=-1)
    assert torch.cdist(probes, unit).amin(1).max() < 0.5
    assert (torch.cdist(unit, unit) + 9 * torch.eye(40)).amin() > 0.3
    assert (cameras.world_from_cam[:, :3, 0] @ view.up).abs().max() < 1e-5  # held level
