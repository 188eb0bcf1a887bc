import math

import pytest
import torch

from kaleidoscene.geometry.poses import (
    exp_se3,
    interpolate_poses,
    invert,
    log_se3,
    log_so3,
    look_at,
    random_rigid,
    random_rotation,
    rotation_about,
    rotation_angle,
    transform_points,
)

BATCHES = [(), (2,), (2, 3)]
UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


@pytest.mark.parametrize("batch", BATCHES)
def test_inverse_from_both_sides(batch):
    pose = random_rigid(*batch, dtype=torch.float64, translation=5.0)
    eye = torch.eye(4, dtype=torch.float64).expand_as(pose)
    torch.testing.assert_close(pose @ invert(pose), eye, rtol=0, atol=1e-12)
    torch.testing.assert_close(invert(pose) @ pose, eye, rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", BATCHES)
def test_exp_equals_the_matrix_exponential(batch):
    twist = torch.randn(*batch, 6, dtype=torch.float64)
    from kaleidoscene.geometry.poses import hat

    generator = torch.zeros(*batch, 4, 4, dtype=torch.float64)
    generator[..., :3, :3] = hat(twist[..., :3])
    generator[..., :3, 3] = twist[..., 3:]
    torch.testing.assert_close(exp_se3(twist), torch.linalg.matrix_exp(generator), rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-6, 1e-4, 0.5, 3.0])
def test_log_inverts_exp(size):
    direction = torch.nn.functional.normalize(torch.randn(7, 3, dtype=torch.float64), dim=-1)
    twist = torch.cat([size * direction, torch.randn(7, 3, dtype=torch.float64)], dim=-1)
    torch.testing.assert_close(log_se3(exp_se3(twist)), twist, rtol=0, atol=1e-8)


def test_log_of_a_half_turn_keeps_its_angle():
    half = rotation_about("y", torch.tensor([math.pi], dtype=torch.float64))
    assert log_so3(half).norm().item() == pytest.approx(math.pi, abs=1e-9)


def test_random_rotations_are_proper():
    rotation = random_rotation(50, dtype=torch.float64)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50, dtype=torch.float64))


def test_interpolation_meets_both_ends_and_halves_the_angle():
    start, end = random_rigid(2, 5, dtype=torch.float64)
    for fraction, expected in ((0.0, start), (1.0, end)):
        at = interpolate_poses(start, end, torch.full((5,), fraction, dtype=torch.float64))
        torch.testing.assert_close(at, expected, rtol=0, atol=1e-9)
    middle = interpolate_poses(start, end, torch.full((5,), 0.5, dtype=torch.float64))
    whole = rotation_angle(start[:, :3, :3], end[:, :3, :3])
    torch.testing.assert_close(rotation_angle(start[:, :3, :3], middle[:, :3, :3]), whole / 2)


def test_look_at_puts_the_target_on_the_axis_and_up_upwards():
    eye, target = torch.randn(2, 6, 3, dtype=torch.float64)
    pose = look_at(eye, target, UP)
    in_camera = transform_points(invert(pose), target[:, None])[:, 0]
    torch.testing.assert_close(in_camera[:, :2], torch.zeros(6, 2, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (in_camera[:, 2] > 0).all()
    assert ((pose[:, :3, 1] @ UP) < 0).all()  # y points down


@pytest.mark.parametrize("eye", [(0.0, 0.0, 2.0), (0.0, 0.0, -2.0)])
def test_look_at_along_the_up_axis_is_still_rigid(eye):
    pose = look_at(torch.tensor(eye), torch.zeros(3), UP.float())
    torch.testing.assert_close(pose[:3, :3] @ pose[:3, :3].mT, torch.eye(3))
    assert torch.linalg.det(pose[:3, :3]).item() == pytest.approx(1, abs=1e-6)
