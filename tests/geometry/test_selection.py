"""Choosing references: laws of each way, on cameras where the answer is known."""

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.geometry.selection import SELECTIONS, evenly_spaced, select_views
from tests.conftest import ring


def circle(angles):
    angle = torch.deg2rad(torch.tensor(angles, dtype=torch.float32))
    eye = 2 * torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 0.3)], -1)
    poses = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.from_field_of_view(poses, 0.8, (12, 16))


@pytest.mark.parametrize("kind", sorted(SELECTIONS))
def test_indices_are_distinct_ascending_and_do_not_depend_on_frame_or_scale(kind):
    cameras, targets = ring(17, seed=2), ring(5, seed=3)
    chosen = select_views(kind, cameras, 6, targets)
    assert len(set(chosen)) == 6 and chosen == sorted(chosen) and 0 <= chosen[0] and chosen[-1] < 17
    turn = look_at(torch.tensor([3.0, -1.0, 2.0]), torch.tensor([0.5, 0.2, -0.1]), torch.tensor([0.0, 0.0, 1.0]))

    def moved(c):
        poses = turn @ c.world_from_cam
        poses[:, :3, 3] = 7 * poses[:, :3, 3]
        return Cameras(poses, c.intrinsics, c.image_size)

    again = select_views(kind, moved(cameras), 6, moved(targets))
    if kind == "nearest":
        assert again == chosen
    assert select_views(kind, cameras, 17, targets) == list(range(17))


def test_spread_takes_opposite_sides():
    chosen = select_views("spread", circle([0, 5, 10, 90, 95, 180, 185, 270, 275]), 4)
    sides = {0: 0, 1: 0, 2: 0, 3: 1, 4: 1, 5: 2, 6: 2, 7: 3, 8: 3}
    assert {sides[n] for n in chosen} == {0, 1, 2, 3}


def test_kmeans_takes_one_of_each_cluster():
    chosen = select_views("kmeans", circle([0, 4, 8, 120, 124, 128, 240, 244, 248]), 3)
    assert chosen == [1, 4, 7]  # and the middle one of each


def test_nearest_takes_what_lies_beside_the_targets():
    cameras = circle([0, 40, 80, 120, 160, 200, 240, 280, 320])
    assert select_views("nearest", cameras, 2, circle([78, 83, 201])) == [2, 5]
    with pytest.raises(KaleidosceneError, match="need targets"):
        select_views("nearest", cameras, 2)


def test_more_than_there_are_is_refused():
    with pytest.raises(KaleidosceneError, match="5 references were asked for, there are 3"):
        select_views("spread", ring(3), 5)


def test_evenly_spaced_places_have_both_ends():
    for views in range(1, 12):
        for count in range(1, 14):
            places = evenly_spaced(views, count)
            assert len(set(places)) == len(places) == min(views, count) and places == sorted(places)
            assert places[0] == 0 and (count == 1 or places[-1] == views - 1)
