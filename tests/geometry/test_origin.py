"""Where the middle of a scene is taken to be."""

import math

import pytest
import torch

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point, mean_centre
from kaleidoscene.geometry.origin import SeenDepths, scene_origin
from kaleidoscene.geometry.poses import random_rotation
from tests.conftest import ring

SIZE, VIEWS, NEAR, FAR = (18, 26), 7, 9.0, 30.0
BOUNDS = [(NEAR, FAR)] * VIEWS


def walk(spread: float) -> Cameras:
    """Side steps of a camera that looks along z, whose axes meet ``1 / spread`` ahead (behind, if it is negative)."""
    poses = torch.eye(4, dtype=torch.float64).repeat(VIEWS, 1, 1)
    poses[:, 0, 3] = torch.linspace(-1, 1, VIEWS)
    for pose in poses:
        forward = pose.new_tensor([-spread * float(pose[0, 3]), 0.0, 1.0])
        forward, down = forward / forward.norm(), pose.new_tensor([0.0, 1.0, 0.0])
        pose[:3, :3] = torch.stack([torch.linalg.cross(down, forward), down, forward], 1)
    return Cameras.from_field_of_view(poses, 0.9, SIZE)


def cloud(seed: int = 1) -> torch.Tensor:
    """Points ahead, evenly in disparity."""
    random = torch.rand(4000, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    depth = 1 / (1 / FAR + (1 / NEAR - 1 / FAR) * random[:, 2])
    return torch.stack([*((random[:, :2] - 0.5) * 0.8 * depth[:, None]).T, depth], 1)


@pytest.mark.parametrize("spread", [-0.002, 0.0, 0.004])
def test_axes_that_meet_where_nothing_is_give_way_to_what_is_seen(spread):
    cameras, middle = walk(spread), 2 / (1 / NEAR + 1 / FAR)
    torch.testing.assert_close(SeenDepths.between(BOUNDS).middle, torch.full((VIEWS,), middle, dtype=torch.float64))
    for known in ({"bounds": BOUNDS}, {"points": cloud()}):
        found = scene_origin(cameras, **known)
        assert found[2] == pytest.approx(middle, rel=0.05) and found[:2].norm() < 0.3


def test_where_they_look_stays_if_anything_is_there_or_nothing_is_known():
    cameras = walk(1 / 14)
    assert scene_origin(cameras, bounds=BOUNDS).equal(focus_point(cameras))
    assert scene_origin(cameras, points=cloud()).equal(focus_point(cameras))
    assert scene_origin(walk(0.002)).equal(focus_point(walk(0.002)))
    assert scene_origin(walk(0.0)).equal(mean_centre(walk(0.0)))


def test_where_axes_meet_at_an_angle_they_have_the_last_word():
    """An object that structure from motion found nothing on, before a wall with all of the points."""
    around = ring(9, SIZE)
    wall = torch.randn(400, 3) * 0.3 + 6 * around.directions[:1]
    assert scene_origin(around, points=wall).equal(focus_point(around))
    wide = walk(0.3)  # 17 degrees at the ends
    assert scene_origin(wide, bounds=BOUNDS).equal(focus_point(wide))


@pytest.mark.parametrize("pair", [(0.0, 1.0), (0.0, 0.0), (1.0, -1.0), (5.0, 2.0), (1.0, math.inf), (math.nan, 3.0)])
def test_bounds_that_are_none_say_nothing(pair):
    """Converters that do not know any write such."""
    cameras = walk(-0.002)
    assert not SeenDepths.between([pair] * 3).middle.isfinite().any()
    assert scene_origin(cameras, bounds=[pair] * VIEWS).equal(focus_point(cameras))
    some = [pair] * 3 + BOUNDS[3:]
    assert scene_origin(cameras, bounds=some)[2] == pytest.approx(13.8, rel=0.05), "the others do"
    assert scene_origin(cameras, bounds=[pair] * 4 + BOUNDS[4:]).equal(focus_point(cameras)), "too few"


def test_it_moves_with_the_world():
    generator = torch.Generator().manual_seed(3)
    turn = random_rotation(generator=generator, dtype=torch.float64)
    offset, scale = torch.tensor([4.0, -7.0, 2.0], dtype=torch.float64), 2.5
    for cameras in (walk(-0.002), walk(1 / 14)):
        points, poses = cloud(), cameras.world_from_cam.clone()
        before = scene_origin(cameras, points=points)
        poses[:, :3, :3] = turn @ poses[:, :3, :3]
        poses[:, :3, 3] = scale * cameras.centres @ turn.T + offset
        moved = Cameras(poses, cameras.intrinsics, SIZE)
        after = scene_origin(moved, points=scale * points @ turn.T + offset)
        torch.testing.assert_close(after, scale * turn @ before + offset, rtol=0, atol=1e-5)


def test_views_that_see_few_points_say_nothing():
    cameras, points = walk(-0.002), cloud()
    poses = cameras.world_from_cam.clone()
    poses[:3, :3, 2] *= -1
    poses[:3, :3, 0] *= -1  # three of them look back
    turned = Cameras(poses, cameras.intrinsics, SIZE)
    assert SeenDepths.of_points(turned, points).near.isnan().tolist() == [True] * 3 + [False] * 4
    ahead = scene_origin(turned, points=points) - turned.centres.mean(0)
    assert ahead[2] == pytest.approx(13.8, rel=0.1), "axes are parallel, whichever way they look"
    few = SeenDepths.of_points(cameras, points[:9])
    assert few.middle.isnan().all() and scene_origin(cameras, points=points[:9]).equal(focus_point(cameras))
    assert scene_origin(cameras, points=points[:0]).equal(focus_point(cameras))
