"""Normals of point maps, thinning, erosion."""

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at, random_rotation
from kaleidoscene.geometry.rays import camera_rays
from kaleidoscene.reconstruction.surface import SurfacePoints, eroded, normals_of

SIZE = (13, 21)
Z = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def some_points(count=500, seed=0) -> SurfacePoints:
    draw = torch.Generator().manual_seed(seed)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=draw), dim=-1)
    return SurfacePoints(
        torch.rand(count, 3, generator=draw), normals, torch.rand(count, 3, generator=draw),
        torch.rand(count, generator=draw),
    )  # fmt: skip


def test_normals_of_a_plane_are_its_own_whichever_side_is_looked_at():
    normal = torch.nn.functional.normalize(torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64), dim=0)
    for side in (1.0, -1.0):
        eye = side * torch.tensor([0.5, 0.4, 2.0], dtype=torch.float64)
        cameras = Cameras.from_field_of_view(look_at(eye, torch.zeros_like(eye), Z + 0.1), 0.8, SIZE)
        origin, directions = camera_rays(cameras)
        points = origin - directions * ((origin @ normal) / (directions @ normal))[..., None]
        known = torch.ones(SIZE, dtype=torch.bool)
        known[4, 7] = False
        found, there = normals_of(points, known, origin)
        torch.testing.assert_close(found[there], (side * normal).expand(int(there.sum()), 3), rtol=0, atol=1e-9)
        assert there.sum() == known.sum()


def test_pixels_without_neighbours_have_no_normal():
    known = torch.zeros(SIZE, dtype=torch.bool)
    known[3, 5] = known[3, 6] = True  # neighbours along one axis only
    _, there = normals_of(torch.randn(*SIZE, 3), known, torch.zeros(3))
    assert not there.any()


def test_normals_do_not_reach_over_the_border_of_the_image():
    """The first and the last column are no neighbours."""
    known = torch.zeros(SIZE, dtype=torch.bool)
    known[2:4, 0] = known[2:4, -1] = True
    _, there = normals_of(torch.randn(*SIZE, 3), known, torch.zeros(3))
    assert not there.any()


def test_thinning_keeps_one_mean_a_cell():
    cloud, cell = some_points(), 0.25
    thin = cloud.thinned(cell)
    low = cloud.positions.amin(0)
    cells = ((cloud.positions - low) / cell).floor().long().tolist()
    expected = {}
    for number, place in enumerate(map(tuple, cells)):
        expected.setdefault(place, []).append(number)
    assert len(thin) == len(expected)
    found = {tuple(((p - low) / cell).floor().long().tolist()): n for n, p in enumerate(thin.positions)}
    assert found.keys() == expected.keys()
    for place, numbers in expected.items():
        weight, n = cloud.confidence[numbers, None], found[place]
        for ours, theirs in ((thin.positions, cloud.positions), (thin.colours, cloud.colours)):
            torch.testing.assert_close(ours[n], (theirs[numbers] * weight).sum(0) / weight.sum())
        assert thin.confidence[n] == cloud.confidence[numbers].max()
    torch.testing.assert_close(thin.normals.norm(dim=-1), torch.ones(len(thin)))


def test_thinning_does_not_depend_on_the_order_of_points():
    cloud = some_points()
    order = torch.randperm(len(cloud), generator=torch.Generator().manual_seed(1))
    turned = SurfacePoints(*(x[order] for x in (cloud.positions, cloud.normals, cloud.colours, cloud.confidence)))
    torch.testing.assert_close(turned.thinned(0.3).positions, cloud.thinned(0.3).positions)


def test_cells_that_cannot_be_are_refused():
    cloud = some_points()
    for cell, said in ((0.0, "positive side"), (-1.0, "positive side"), (1e-9, "too small")):
        with pytest.raises(KaleidosceneError, match=said):
            cloud.thinned(cell)
    nothing = SurfacePoints(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0))
    assert len(nothing.thinned(0.1)) == 0


@pytest.mark.parametrize("side", [1, 3, 5])
def test_erosion_against_the_slow_way(side):
    mask = torch.rand(2, *SIZE, generator=torch.Generator().manual_seed(side)) < 0.9
    found, reach = eroded(mask, side), side // 2
    for view in range(2):
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                near = mask[view, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
                assert found[view, y, x] == near.all()
    with pytest.raises(KaleidosceneError, match="odd and positive, got 4"):
        eroded(mask, 4)


def test_points_turn_with_the_world():
    """Normals of a turned point map are turned."""
    turn = random_rotation(generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    points = torch.randn(*SIZE, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    known, eye = torch.ones(SIZE, dtype=torch.bool), torch.tensor([3.0, 1.0, 2.0], dtype=torch.float64)
    ours, _ = normals_of(points, known, eye)
    theirs, _ = normals_of(points @ turn.T, known, turn @ eye)
    torch.testing.assert_close(theirs, ours @ turn.T, rtol=0, atol=1e-9)
