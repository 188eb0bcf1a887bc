"""Up from level cameras: exact without noise, near with it, and not made up where nothing tells it."""

import math

import pytest
import torch

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import exp_se3, invert, look_at, random_rotation, rigid, rotation_angle
from kaleidoscene.geometry.upright import level_up, rotation_between


def rig(generator: torch.Generator, views: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Level cameras around the origin in the world of the first one, and the true up there."""
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    azimuth = 2 * math.pi * torch.rand(views, generator=generator, dtype=torch.float64)
    elevation = math.radians(60) * (2 * torch.rand(views, generator=generator, dtype=torch.float64) - 1)
    eye = torch.stack([elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1)
    poses = look_at(2 * eye, torch.zeros_like(eye), up)
    turn = rigid(random_rotation(generator=generator, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))
    first = turn @ invert(poses[0])
    return first @ poses, first[:3, :3] @ up


def cameras_of(poses: torch.Tensor) -> Cameras:
    return Cameras.from_field_of_view(poses, 0.8, (24, 40))


def test_two_hundred_rigs_without_noise():
    generator = torch.Generator().manual_seed(0)
    for number in range(200):
        poses, up = rig(generator, 2 + number % 7)
        found = level_up(cameras_of(poses))
        if found is None:  # a few of two cameras have x axes within five degrees
            axes = poses[:, :3, 0]
            assert len(poses) == 2 and abs(float(axes[0] @ axes[1])) > math.cos(math.radians(5.1)), number
            continue
        assert float(found @ up) > 1 - 1e-9, number


def test_two_hundred_rigs_whose_cameras_are_two_degrees_off():
    generator = torch.Generator().manual_seed(1)
    angles = []
    for _ in range(200):
        poses, up = rig(generator, 6)
        twist = torch.zeros(6, 6, dtype=torch.float64)
        twist[1:, :3] = math.radians(2) * torch.randn(5, 3, generator=generator, dtype=torch.float64) / math.sqrt(3)
        found = level_up(cameras_of(poses @ exp_se3(twist)))
        assert found is not None
        angles.append(math.degrees(math.acos(min(1.0, float(found @ up)))))
    angles.sort()
    assert angles[100] < 1.5 and angles[190] < 6


def test_cameras_that_do_not_tell():
    poses, _ = rig(torch.Generator().manual_seed(2), 3)
    assert level_up(cameras_of(poses[:1])) is None
    nod = torch.zeros(3, 6, dtype=torch.float64)
    nod[:, 0] = torch.tensor([0.0, 0.3, -0.4])
    assert level_up(cameras_of(poses[0] @ exp_se3(nod))) is None


def test_cameras_that_look_alike_do_not_tell_and_none_mirrors_the_world():
    """Within a few degrees of each other, the errors of estimated cameras are all that their x axes say."""
    generator = torch.Generator().manual_seed(3)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)

    def beside(degrees: float) -> torch.Tensor:
        azimuth = torch.deg2rad(degrees * torch.linspace(-1, 1, 5, dtype=torch.float64))
        eye = torch.stack([azimuth.cos(), azimuth.sin(), torch.zeros_like(azimuth)], dim=-1)
        return look_at(2 * eye, torch.zeros_like(eye), up)

    twist = torch.zeros(5, 6, dtype=torch.float64)
    twist[:, :3] = math.radians(1) * torch.randn(5, 3, generator=generator, dtype=torch.float64)
    assert level_up(cameras_of(beside(2) @ exp_se3(twist))) is None
    told = level_up(cameras_of(beside(20)))
    assert told is not None and float(told @ up) > 1 - 1e-9
    # Straight down, turned about the axis: up is the axis, whichever way, and has a length.
    turns = torch.zeros(3, 6, dtype=torch.float64)
    turns[:, 2] = torch.tensor([0.0, 2.0, 4.0])
    down = level_up(cameras_of(beside(0)[0] @ exp_se3(turns)))
    assert down is not None and float(down.norm()) == pytest.approx(1)


def test_the_smallest_rotation_between_directions():
    draw = torch.Generator().manual_seed(0)
    eye = torch.eye(3, dtype=torch.float64)
    for _ in range(50):
        a, b = torch.randn(2, 3, generator=draw, dtype=torch.float64)
        turn = rotation_between(a, b)
        torch.testing.assert_close(turn @ (a / a.norm()), b / b.norm(), rtol=0, atol=1e-12)
        torch.testing.assert_close(turn @ turn.T, eye, rtol=0, atol=1e-12)
        assert turn.det() == pytest.approx(1, abs=1e-12)
        angle = rotation_angle(turn, eye)
        assert float(angle) == pytest.approx(float(torch.arccos((a @ b) / a.norm() / b.norm())), abs=1e-6)
        torch.testing.assert_close(rotation_between(a, -a) @ a, -a, rtol=0, atol=1e-12)
        assert rotation_between(a, -a).det() == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(rotation_between(a, a), eye)
