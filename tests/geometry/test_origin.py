"""Where the middle of a scene is taken to be."""

import pytest
import torch

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point, mean_centre
from kaleidoscene.geometry.origin import SeenDepths, scene_origin
from kaleidoscene.geometry.poses import random_rotation
from tests.conftest import ring

SIZE, VIEWS, NEAR, FAR = (18, 26), 7, 9.0, 30.0


def walk(spread: float, seed: int = 0) -> Cameras:
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


@pytest.mark.parametrize("spread", [-0.002, 0.0, 0.004, 1.0])
def test_axes_that_meet_where_nothing_is_give_way_to_what_is_seen(spread):
    cameras = walk(spread)
    middle = 2 / (1 / NEAR + 1 / FAR)
    bounds = SeenDepths.between([(NEAR, FAR)] * VIEWS)
    torch.testing.assert_close(bounds.middle, torch.full((VIEWS,), middle, dtype=torch.float64))
    by_points = SeenDepths.of_points(cameras, cloud())
    assert by_points is not None
    for seen in (bounds, by_points) if spread < 1 else (bounds,):  # at once across, no camera sees all points
        found = scene_origin(cameras, seen)
        assert found[2] == pytest.approx(middle, rel=0.35 if spread == 1 else 0.05) and found[:2].norm() < 0.3


def test_where_they_look_stays_if_anything_is_there():
    cameras = walk(1 / 14)
    for seen in (SeenDepths.between([(NEAR, FAR)] * VIEWS), SeenDepths.of_points(cameras, cloud())):
        assert scene_origin(cameras, seen).equal(focus_point(cameras))
    assert scene_origin(walk(0.002), None).equal(focus_point(walk(0.002))), "nothing else is known"
    assert scene_origin(walk(0.0), None).equal(mean_centre(walk(0.0)))
    around = ring(5, SIZE)
    far = SeenDepths.of_points(around, torch.randn(400, 3) + torch.tensor([0.0, 0.0, 1e4]))
    assert far is None and scene_origin(around, far).equal(focus_point(around)), "nobody sees a point"


def test_it_moves_with_the_world():
    generator = torch.Generator().manual_seed(3)
    turn = random_rotation(generator=generator, dtype=torch.float64)
    offset, scale = torch.tensor([4.0, -7.0, 2.0], dtype=torch.float64), 2.5
    for cameras in (walk(-0.002), walk(1 / 14)):
        points, poses = cloud(), cameras.world_from_cam.clone()
        before = scene_origin(cameras, SeenDepths.of_points(cameras, points))
        poses[:, :3, :3] = turn @ poses[:, :3, :3]
        poses[:, :3, 3] = scale * cameras.centres @ turn.T + offset
        moved = Cameras(poses, cameras.intrinsics, SIZE)
        after = scene_origin(moved, SeenDepths.of_points(moved, scale * points @ turn.T + offset))
        torch.testing.assert_close(after, scale * turn @ before + offset, rtol=0, atol=1e-5)


def test_views_that_see_few_points_say_nothing():
    cameras, points = walk(-0.002), cloud()
    poses = cameras.world_from_cam.clone()
    poses[:3, :3, 2] *= -1
    poses[:3, :3, 0] *= -1  # three of them look back
    seen = SeenDepths.of_points(Cameras(poses, cameras.intrinsics, SIZE), points)
    assert seen is not None and seen.near.isnan().tolist() == [True] * 3 + [False] * 4
    assert scene_origin(Cameras(poses, cameras.intrinsics, SIZE), seen)[2] == pytest.approx(13.8, rel=0.1)
