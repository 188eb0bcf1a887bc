"""How much of new views references show: laws, and cameras for which the answer is known."""

import math

import torch

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.coverage import coverage
from kaleidoscene.geometry.poses import look_at, random_rigid

UP, MIDDLE = torch.tensor([0.0, 0.0, 1.0]), torch.zeros(3)


def around(*degrees: float, distance: float = 2.0, angle: float = 0.8, size=(20, 30)) -> Cameras:
    turn = torch.deg2rad(torch.tensor(degrees))
    eyes = distance * torch.stack([turn.cos(), turn.sin(), torch.zeros_like(turn)], -1)
    return Cameras.from_field_of_view(look_at(eyes, torch.zeros_like(eyes), UP), angle, size)


def test_a_view_shows_itself_and_nothing_from_behind():
    shown = coverage(around(0, 40), around(0, 40, 180, 290), MIDDLE)
    torch.testing.assert_close(shown[:2], torch.ones(2))
    assert float(shown[2]) == 0 and float(coverage(around(0), around(290), MIDDLE)[0]) < 0.3


def test_it_falls_with_the_angle_and_rises_with_every_reference():
    targets = around(10, 25, 45, 60, 80)
    one = coverage(around(0), targets, MIDDLE)
    assert (one.diff() < 0).all() and 0.8 < float(one[0]) <= 1
    more = coverage(around(0, 90), targets, MIDDLE)
    assert (more >= one - 1e-6).all() and float(more[-1]) > float(one[-1]) + 0.5
    torch.testing.assert_close(coverage(around(90, 0), targets, MIDDLE), more)


def test_half_of_a_wider_view_lies_beyond_a_narrow_reference():
    """At twice the tangent a quarter of the area is inside, on a plane of places that both look at squarely."""
    wide, narrow = around(0, angle=1.2, size=(36, 36)), around(0, angle=2 * math.atan(math.tan(0.6) / 3), size=(36, 36))
    share = float(coverage(narrow, wide, MIDDLE)[0])
    assert abs(share - 1 / 9) < 0.02  # 3 of 9 places along each side
    assert float(coverage(wide, narrow, MIDDLE)[0]) > 0.99


def test_the_world_frame_does_not_matter_and_nor_does_its_unit():
    references, targets = around(0, 50), around(20, 70, 120)
    move = random_rigid(generator=torch.Generator().manual_seed(2))
    before = coverage(references, targets, MIDDLE)

    def moved(cameras: Cameras) -> Cameras:
        poses = cameras.world_from_cam.clone()
        poses[:, :3, 3] *= 7.0
        return Cameras(move @ poses, cameras.intrinsics, cameras.image_size)

    torch.testing.assert_close(coverage(moved(references), moved(targets), move[:3, 3]), before, rtol=0, atol=1e-4)


def test_views_that_look_away_from_the_middle_are_no_error():
    eyes = torch.tensor([[2.0, 0.0, 0.0]])
    away = Cameras.from_field_of_view(look_at(eyes, torch.tensor([[5.0, 0.0, 0.0]]), UP), 0.8, (20, 30))
    assert float(coverage(around(0), away, MIDDLE)[0]) < 1e-6
    torch.testing.assert_close(coverage(away, away, MIDDLE), torch.ones(1))


def test_many_targets_are_looked_at_in_parts(monkeypatch):
    targets = around(*range(0, 110, 10))
    whole = coverage(around(0, 50), targets, MIDDLE)
    monkeypatch.setattr("kaleidoscene.geometry.coverage._AT_ONCE", 4)
    torch.testing.assert_close(coverage(around(0, 50), targets, MIDDLE), whole)
