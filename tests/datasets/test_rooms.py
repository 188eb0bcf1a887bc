"""Synthetic places: closed, cameras free, lenses within their range, worlds where captures have them."""

import json
import math

import numpy as np
import pytest
import torch

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.synthetic.prerender import SceneMaker, SyntheticScenes
from kaleidoscene.datasets.synthetic.procedural import random_object
from kaleidoscene.datasets.synthetic.rooms import moved_to_focus, random_room, sample_inside
from kaleidoscene.datasets.synthetic.viewpoints import FIELD_OF_VIEW, random_angles, sample_viewpoints
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point
from kaleidoscene.geometry.poses import look_at
from tests import own_captures

SIZE = (24, 36)


def places(**changes) -> SceneMaker:
    try:
        return SceneMaker(SyntheticScenes(image_size=SIZE, views=5, room_share=1.0, **changes))
    except KaleidosceneError as error:
        pytest.skip(str(error))


def angles_of(cameras: Cameras) -> torch.Tensor:
    return torch.rad2deg(2 * torch.atan(0.5 * SIZE[0] / cameras.intrinsics[:, 1, 1]))


@pytest.mark.parametrize("seed", range(6))
def test_cameras_stand_free_inside_the_room(seed):
    draw = np.random.default_rng(seed)
    room = random_room(random_object(seed), draw, [])
    assert (room.inside[0] < room.taken[0][0] + 1e-6).all() and (room.inside[1] > room.taken[0][1]).all()
    assert room.inside[0, 2] == pytest.approx(room.taken[0][0, 2]), "it stands on the ground"
    cameras = sample_inside(room, torch.full((9,), FIELD_OF_VIEW, dtype=torch.float64), SIZE, draw)
    assert all(room.is_free(place) for place in cameras.centres.double().numpy())
    parts, moved = moved_to_focus(room.parts, cameras)
    torch.testing.assert_close(focus_point(moved.to(torch.float64)), torch.zeros(3).double(), rtol=0, atol=1e-4)
    shift = moved.centres - cameras.centres
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-5)
    for before, after in zip(room.parts, parts, strict=True):
        assert np.allclose(after.vertices - before.vertices, shift[0].numpy(), atol=1e-5)


def test_a_place_within_walls_or_furniture_is_not_free():
    room = random_room(random_object(3), np.random.default_rng(8), [])
    assert not room.is_free(room.inside[1] + 0.1) and not room.is_free(room.inside[0] + 0.1)
    for low, high in room.taken:
        assert not room.is_free((low + high) / 2)


@pytest.mark.parametrize("seed", [1, 2])
def test_rooms_are_closed_and_scenes_repeat(seed):
    maker = places(seed=seed, depth=True)
    one, again = maker.make(4), maker.make(4)
    assert np.array_equal(one.rgba, again.rgba) and (one.rgba[..., 3] == 255).all()
    assert one.depth is not None and (one.depth > 0).all()
    assert not np.array_equal(one.rgba, maker.make(5).rgba)
    maker.rasteriser.release()


def test_lenses_lie_in_their_range_and_some_scenes_mix_them():
    g = torch.Generator().manual_seed(0)
    drawn = [torch.rad2deg(random_angles((30.0, 90.0), 4, g)) for _ in range(200)]
    assert all(30 <= float(a.min()) and float(a.max()) <= 90 for a in drawn)
    mixed = sum(len(a.unique()) > 1 for a in drawn)
    assert 25 < mixed < 80 and len(torch.cat(drawn).unique()) > 200
    assert random_angles(None, 3, g).unique().tolist() == [FIELD_OF_VIEW]


def test_objects_keep_their_size_under_other_lenses():
    """Within bounds: twice the focal length, at most 1.6 times the distance."""
    g = torch.Generator().manual_seed(1)
    angles = torch.deg2rad(torch.tensor([26.0, 49.1, 90.0], dtype=torch.float64))
    cameras = sample_viewpoints("eschernet", 3, SIZE, g, angles)
    torch.testing.assert_close(angles_of(cameras).double(), torch.rad2deg(angles), rtol=1e-5, atol=0)
    size = cameras.intrinsics[:, 1, 1] / cameras.centres.norm(dim=-1) / SIZE[0]
    assert float(size.max() / size.min()) < 2.2


def test_middles_off_the_image_come_with_lenses(monkeypatch):
    monkeypatch.setattr("kaleidoscene.datasets.synthetic.prerender._OFF_CENTRE", 1.0)
    maker = places(lenses=(40.0, 60.0), seed=3)
    scene = maker.make(0)
    assert scene.cameras is not None
    middle = scene.cameras.intrinsics[:, :2, 2] / torch.tensor([SIZE[1], SIZE[0]])
    assert ((middle - 0.5).abs() <= 0.1).all() and (middle - 0.5).abs().max() > 0.01
    maker.rasteriser.release()


def test_cameras_that_look_the_same_way_have_their_middle_as_origin():
    eyes = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 2.0]])
    poses = look_at(eyes, eyes + torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0]))
    _, moved = moved_to_focus([], Cameras.from_field_of_view(poses, math.radians(50), SIZE))
    torch.testing.assert_close(moved.centres.mean(0), torch.zeros(3), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (dict(room_share=1.2), "room_share"),
        (dict(lenses=(60.0, 40.0)), "lenses must be two angles from 5 to 120 degrees, the lesser first"),
        (dict(lenses=(1.0, 40.0)), "lenses must be two angles"),
        (dict(clips=True, room_share=0.5), "clips are films of objects by one lens"),
        (dict(clips=True, lenses=(40.0, 50.0)), "clips are films of objects by one lens"),
    ],
)
def test_impossible_places_are_refused(changes, reason):
    with pytest.raises(ValueError, match=reason):
        SyntheticScenes(**changes)


def test_captures_of_meshes_in_rooms(tmp_path):
    """One rasteriser at a time: with two of them, a view was a corner of its image."""
    places().rasteriser.release()
    (tmp_path / "meshes").mkdir()
    own_captures.object_file(tmp_path / "meshes" / "thing.glb")
    command = ["synthesize", str(tmp_path / "out"), "--captures", "--scenes.meshes", str(tmp_path / "meshes")]
    command += ["--scenes.image-size", "24", "36", "--scenes.depth"]
    assert main([*command, "--scenes.room-share", "1", "--scenes.lenses", "40", "70"]) == 0
    folder = tmp_path / "out" / "thing"
    assert json.loads((folder / "transforms.json").read_text())["scene_centred"] == "scene"
    capture = read_capture(folder)
    assert len(capture) == 25 and capture.cameras.image_size == SIZE
    angles = angles_of(capture.cameras)
    assert float(angles.min()) > 39 and float(angles.max()) < 71
    assert (capture.depths() > 0).all(), "walls everywhere"
