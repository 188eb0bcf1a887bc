"""Triangles on a plane: which pixels they cover, and what a camera sees of a mesh."""

import math

import pytest
import torch

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.geometry.rays import camera_rays, unproject
from kaleidoscene.reconstruction.triangles import between_corners, covered, seen_from
from tests.reconstruction.solids import ball

UP = torch.tensor([0.0, 0.0, 1.0])


def camera(eye, image_size=(36, 52)) -> Cameras:
    poses = look_at(torch.tensor([eye]), torch.zeros(1, 3), UP)
    return Cameras.from_field_of_view(poses, 0.8, image_size)[0]


def test_pixels_are_those_whose_centre_lies_inside():
    """Against a loop over all pixels, with triangles of either winding, partly outside, and without an area."""
    h, w = 17, 23
    corners = 30 * torch.rand(40, 3, 2, generator=torch.Generator().manual_seed(2)) - 4
    corners[7] = torch.tensor([[1.0, 1], [5, 5], [9, 9]])
    corners[8, 1, 0] = torch.nan
    found = {(int(f), int(p)) for part in covered(corners, (h, w)) for f, p in zip(part.face, part.pixel, strict=True)}
    expected = set()
    for number, (a, b, c) in enumerate(corners.double().tolist()):
        for row in range(h):
            for column in range(w):
                x, y = column + 0.5, row + 0.5
                sides = [(q[0] - p[0]) * (y - p[1]) - (q[1] - p[1]) * (x - p[0]) for p, q in ((a, b), (b, c), (c, a))]
                area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
                if area and all(side / area >= 0 for side in sides):
                    expected.add((number, row * w + column))
    assert found == expected and len(found) > 500


def test_shares_tell_the_place_in_the_triangle():
    corners = torch.tensor([[[1.0, 2.0], [19.0, 4.0], [6.0, 14.0]]])
    (part,) = covered(corners, (16, 21))
    places = (corners[part.face] * part.share[..., None]).sum(1)
    centres = torch.stack([part.pixel % 21, part.pixel // 21], dim=-1) + 0.5
    torch.testing.assert_close(places, centres.float(), rtol=0, atol=1e-5)
    torch.testing.assert_close(part.share.sum(-1), torch.ones(len(part.share)))


def test_parts_that_fit_the_memory_are_the_whole(monkeypatch):
    corners = 40 * torch.rand(30, 3, 2, generator=torch.Generator().manual_seed(3))
    (whole,) = covered(corners, (31, 37))
    monkeypatch.setattr("kaleidoscene.reconstruction.triangles._AT_ONCE", 100)
    parts = list(covered(corners, (31, 37)))
    assert len(parts) > 10
    for name in ("pixel", "face", "share"):
        assert torch.cat([getattr(part, name) for part in parts]).equal(getattr(whole, name))


def test_depth_and_places_are_exact_on_a_slanted_plane():
    """Depth is not even in the image, its inverse is; what corners have is even on the surface."""
    view = camera([1.2, -0.7, 1.6])
    square = torch.tensor([[-0.4, -0.5, 0.0], [0.6, -0.4, 0], [0.5, 0.5, 0], [-0.5, 0.4, 0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    seen = seen_from(square, faces, view)
    there = seen.face >= 0
    centre, directions = camera_rays(view)
    distance = -centre[2] / directions[..., 2]
    true = distance * (directions @ view.directions)
    assert there.float().mean() > 0.1
    torch.testing.assert_close(seen.depth[there], true[there], rtol=1e-5, atol=1e-5)
    assert bool((seen.depth[~there] == 0).all())
    places = between_corners(square, faces, seen.face[there], seen.share[there])
    torch.testing.assert_close(places, unproject(view, seen.depth)[there], rtol=0, atol=1e-5)


@pytest.mark.parametrize("flip", [False, True])
def test_the_nearest_of_several_surfaces_is_seen(flip):
    vertices, faces = ball(0.5, 24)
    behind = vertices - torch.tensor([1.5, 0.0, 0.0])
    sets = [vertices, behind][:: -1 if flip else 1]
    both = torch.cat(sets), torch.cat([faces, faces + len(vertices)])
    view = camera([3.0, 0.0, 0.0], (40, 61))
    alone, together = seen_from(vertices, faces, view), seen_from(*both, view)
    torch.testing.assert_close(together.depth, torch.where(alone.depth > 0, alone.depth, together.depth))
    assert math.isclose(float(alone.depth[20, 30]), 2.5, abs_tol=0.01)


def test_triangles_behind_the_camera_are_not_seen():
    vertices, faces = ball(0.3, 12)
    view = camera([3.0, 0.0, 0.0])
    assert bool((seen_from(vertices + torch.tensor([6.0, 0.0, 0.0]), faces, view).face == -1).all())
