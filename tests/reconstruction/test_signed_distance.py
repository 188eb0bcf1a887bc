"""A surface from images alone: opacity, the hull it is begun from, and a ball that is found again."""

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.reconstruction.hull import Box, agreeing, box_of, visual_hull
from kaleidoscene.reconstruction.pictures import Pictures, Rays, silhouettes
from kaleidoscene.reconstruction.signed_distance import SurfaceField, SurfaceFieldConfig, _opaque, fit_surface
from tests.reconstruction.solids import colour_of, pictures_of_ball

CENTRE = torch.tensor([0.2, -0.1, 0.3])


def seen(count=14, size=(40, 52), radius=0.5):
    images, cameras = pictures_of_ball(radius, size, count, CENTRE)
    return Pictures(images, silhouettes(images, 0.1), cameras, torch.ones(count))


def test_what_is_stopped_is_told_by_the_ends_of_a_ray():
    """Along distances that only fall, the opacities telescope: what passes is the ratio of the logistics at the ends;
    where distances rise again nothing is stopped."""
    falling = torch.linspace(4, -3, 9).expand(2, 9)
    weights = _opaque(falling, 1.5)
    ends = (1.5 * falling[:, [0, -1]]).sigmoid()
    torch.testing.assert_close(1 - weights.sum(1), ends[:, 1] / ends[:, 0], rtol=0, atol=1e-4)
    assert float(weights.amax()) == weights[0, 4] or float(weights.amax()) == weights[0, 5]  # about the surface
    assert _opaque(falling.flip(1), 1.5).abs().max() == 0


def test_rays_enter_and_leave_a_box_where_they_should():
    box = Box(torch.tensor([-1.0, -2.0, 0.0]), 0.5, (4, 8, 2))
    origins = torch.tensor([[-3.0, 0.0, 0.5], [0.0, 0.0, 3.0], [-3.0, 5.0, 0.5]])
    ways = torch.tensor([[1.0, 0, 0], [0, 0, -1], [1, 0, 0]])
    near, far = box.crossed(origins, ways)
    torch.testing.assert_close(near[:2], torch.tensor([2.0, 2.0]))
    torch.testing.assert_close(far[:2], torch.tensor([4.0, 3.0]))
    assert near[2] > far[2]
    corners = box.finer(2).corners()
    assert corners.shape == (5, 17, 9, 3) and corners[-1, -1, -1].tolist() == [1.0, 2.0, 1.0]
    assert corners[0, 0, 1].tolist() == [-0.75, -2.0, 0.0]


def test_the_hull_of_a_ball_is_about_it():
    some = seen(30)
    box = box_of(some.masks, some.cameras, 1.0, 24)
    assert bool((box.low < CENTRE - 0.5).all()) and bool((box.low + box.extent > CENTRE + 0.5).all())
    assert float(box.extent.amax()) < 1.35
    hull = visual_hull(some.masks, some.cameras, box, 1.0) * box.cell
    true = (box.corners() - CENTRE).norm(dim=-1) - 0.5
    assert (hull - true).abs().max() < 2.5 * box.cell
    # Beside the ball some views look past it, in its middle none.
    beside = CENTRE + torch.tensor([[0.8, 0.0, 0.0], [0.0, 0.0, 0.0]])
    shares = agreeing(some.masks, some.cameras, beside).tolist()
    assert 0 < shares[0] < 0.5 and shares[1] == 1
    # Views that do not have it in their image have no say.
    outside = CENTRE + torch.tensor([[1.1, 0.0, 0.0]])
    assert agreeing(torch.ones_like(some.masks), some.cameras, outside).tolist() == [1.0]
    with pytest.raises(KaleidosceneError, match="have nothing in common"):
        box_of(0 * some.masks, some.cameras, 0.9, 24)


def test_rays_are_those_of_the_pictures_that_meet_the_box():
    some, box = seen(3), Box(CENTRE - 0.6, 0.1, (12, 12, 12))
    rays = Rays.of(some, box)
    assert 0 < len(rays.near) < some.masks.numel() and bool((rays.far > rays.near).all())
    assert float(rays.masks.sum()) == float(some.masks.sum())  # no ray of the object is left out


@pytest.mark.slow
def test_a_ball_is_found_again():
    config = SurfaceFieldConfig(resolution=36, steps=60, rays=1024, samples=24)
    some = seen()
    field = fit_surface(some, config)
    mesh = field.mesh(0.05)
    radii = (mesh.vertices - CENTRE).norm(dim=-1)
    cell = field.box.cell
    assert (radii - 0.5).abs().mean() < 0.35 * cell and radii.std() < 0.5 * cell, (radii.mean(), radii.std(), cell)
    outwards = torch.nn.functional.normalize(mesh.vertices - CENTRE, dim=-1)
    assert (outwards * mesh.normals).sum(-1).mean() > 0.97
    distance, colour = field.query(mesh.vertices)
    assert distance.abs().max() < 0.05  # marching cubes cut where it is zero
    assert (colour - colour_of(outwards)).abs().mean() < 0.05
    again = fit_surface(some, config)
    assert again.distance.equal(field.distance)  # by the seed


def test_views_that_count_little_pull_little():
    """Half of the views show a ball in another colour; with next to no weight they change nothing."""
    good, blue = seen(10), torch.tensor([0.1, 0.2, 0.9])
    other = torch.where(good.masks[:, None] > 0, blue.view(3, 1, 1), 1.0)
    config = SurfaceFieldConfig(resolution=24, steps=40, rays=512, samples=16)

    def from_blue(weight):
        both = Pictures(
            torch.cat([good.images, other]), good.masks.repeat(2, 1, 1),
            type(good.cameras).concatenate([good.cameras, good.cameras]),
            torch.cat([torch.ones(10), torch.full((10,), weight)]),
        )  # fmt: skip
        field = fit_surface(both, config)
        vertices = field.mesh(0.05).vertices
        true = colour_of(torch.nn.functional.normalize(vertices - CENTRE, dim=-1))
        return float((field.query(vertices)[1] - true).detach().abs().mean())

    assert from_blue(0.01) < 0.05
    assert from_blue(1.0) > 0.1


def test_finer_grids_are_the_same_surface():
    box = Box(torch.zeros(3), 0.25, (3, 4, 5))
    places = box.corners()
    field = SurfaceField(box, (places.sum(-1) - 1.5) / box.cell, places.movedim(-1, 0).contiguous())
    finer = field.refined(box.finer(3), box.finer(2))
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([0.75, 1.0, 1.25])
    for one in (field, finer):
        distance, colour = one.query(points)
        torch.testing.assert_close(distance * one.box.cell, points.sum(-1) - 1.5, rtol=0, atol=1e-5)
        torch.testing.assert_close(colour, points.sigmoid(), rtol=0, atol=1e-5)
    eikonal, curvature = (term.item() for term in finer.irregularity(torch.Generator().manual_seed(1)))
    assert eikonal == pytest.approx((3**0.5 - 1) ** 2, abs=1e-4) and curvature < 1e-6
