"""Fusing views of a sphere, whose every point, normal and colour is known."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.geometry.rays import camera_rays, unproject
from kaleidoscene.geometry.trajectories import sphere
from kaleidoscene.geometry.view import View
from kaleidoscene.reconstruction.drawing import draw_points
from kaleidoscene.reconstruction.fusion import FusionConfig, PointViews, fuse, object_pixels, pixel_width, recoloured
from kaleidoscene.reconstruction.surface import SurfacePoints

SIZE, RADIUS = (48, 60), 0.4
UP = torch.tensor([0.0, 0.0, 1.0])
ALL = FusionConfig(new_quantile=0.0, source_quantile=0.0, new_erosion=0.0, source_erosion=0.0, cell=0.0)


def colour_of(points):
    """Of a place on the sphere, never white."""
    return 0.4 + 0.5 * points / RADIUS * 0.8


def views_of_a_sphere(cameras: Cameras, *, colour=colour_of) -> PointViews:
    origins, directions = camera_rays(cameras)
    o = origins[:, None, None]
    b = (o * directions).sum(-1)
    inside = b.square() - (o.square().sum(-1) - RADIUS**2)
    hit = inside > 0
    along = -b - inside.clamp_min(0).sqrt()
    points = (o + directions * along[..., None]) * hit[..., None]
    depth = along * (directions * cameras.directions[:, None, None]).sum(-1) * hit
    images = torch.where(hit[..., None], colour(points), 1.0).movedim(-1, 1)
    return PointViews(images, depth, points, torch.where(hit, 5.0 + points[..., 0], 1.0), cameras)


def around(count: int) -> Cameras:
    eye = torch.tensor([0.0, -1.5, 0.9])
    start = Cameras.from_field_of_view(look_at(eye, torch.zeros(3), UP), 0.7, SIZE)
    return sphere(View(start, torch.zeros(3), UP), count)


def test_the_cloud_is_the_sphere():
    sources, new = views_of_a_sphere(around(3)), views_of_a_sphere(around(10))
    cloud = fuse(sources, new, replace(ALL, cell=0.7))
    assert len(cloud) > 2000
    assert (cloud.positions.norm(dim=-1) - RADIUS).abs().max() < 2e-3  # means of a cell lie within the sphere
    cosine = (cloud.normals * cloud.positions).sum(-1) / cloud.positions.norm(dim=-1)
    assert cosine.min() > 0.9 and cosine.mean() > 0.999
    torch.testing.assert_close(cloud.colours, colour_of(cloud.positions), rtol=0, atol=0.05)
    # No hole: every direction has a point nearby.
    directions = torch.nn.functional.normalize(torch.randn(300, 3), dim=-1) * RADIUS
    assert torch.cdist(directions, cloud.positions).amin(1).max() < 4 * pixel_width(sources.cameras)


def test_points_take_the_colours_of_sources_that_see_them():
    """New views are painted grey: what a source sees is coloured as there, the rest stays grey."""
    sources = views_of_a_sphere(around(1))
    grey = views_of_a_sphere(around(6), colour=lambda points: torch.full_like(points, 0.25))
    plain = fuse(sources, grey, replace(ALL, source_colours=False))
    cloud = fuse(sources, grey, ALL)
    own = fuse(sources, None, ALL)
    assert (plain.colours[len(own) :] == 0.25).all()
    new = SurfacePoints(*(x[len(own) :] for x in (cloud.positions, cloud.normals, cloud.colours, cloud.confidence)))
    taken = (new.colours != 0.25).any(-1)
    facing = ((sources.cameras.centres[0] - new.positions) * new.positions).sum(-1) > 0
    assert taken[~facing].sum() == 0
    inner = ((sources.cameras.centres[0] - new.positions) * new.positions).sum(-1) > 0.3
    assert taken[inner].float().mean() > 0.98
    torch.testing.assert_close(new.colours[taken], colour_of(new.positions[taken]), rtol=0, atol=0.06)


def test_the_source_that_sees_a_point_most_squarely_colours_it():
    sources = views_of_a_sphere(around(2))
    red, green = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.8, 0.1])
    shown = (sources.depths > 0)[:, None]
    painted = torch.where(shown, torch.stack([red, green])[:, :, None, None], 1.0)
    grey = views_of_a_sphere(around(9), colour=lambda points: torch.full_like(points, 0.25))
    cloud, own = fuse(replace(sources, images=painted), grey, ALL), fuse(sources, None, ALL)
    points, colours = cloud.positions[len(own) :], cloud.colours[len(own) :]
    facing = [((centre - points) * points).sum(-1) for centre in sources.cameras.centres]
    for ours, theirs, colour in ((*facing, red), (*facing[::-1], green)):
        sure = (ours > 0.32) & (ours > theirs + 0.05)
        assert sure.sum() > 50
        torch.testing.assert_close(colours[sure], colour.expand(int(sure.sum()), 3), rtol=0, atol=1e-5)


def test_what_stands_behind_something_is_not_seen():
    """A wall before the camera, and points on it, behind it and in front of it."""
    camera = Cameras.from_field_of_view(look_at(torch.tensor([0.0, -2.0, 0.0]), torch.zeros(3), UP), 0.7, SIZE)
    cameras = camera.reshape(1)
    depths = torch.full((1, *SIZE), 2.0)
    wall = PointViews(torch.full((1, 3, *SIZE), 0.5), depths, unproject(cameras, depths), depths, cameras)
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, -0.5, 0.0]])
    toward = torch.tensor([[0.0, -1.0, 0.0]]).expand(3, 3)
    cloud = SurfacePoints(points, toward, torch.zeros(3, 3), torch.ones(3))
    assert torch.equal(recoloured(cloud, wall, 0.03).colours[:, 0], torch.tensor([0.5, 0.0, 0.0]))
    away = SurfacePoints(points, -toward, torch.zeros(3, 3), torch.ones(3))
    assert not recoloured(away, wall, 0.03).colours.any()


def test_filters_drop_what_they_say():
    views = views_of_a_sphere(around(2))
    shown = views.depths > 0
    every = object_pixels(views, 0.0, 0.0, 12 / 255)
    assert torch.equal(every, shown)
    white = replace(views, images=torch.where((views.points[..., 0] > 0)[:, None], 1.0, views.images))
    assert torch.equal(object_pixels(white, 0.0, 0.0, 12 / 255), shown & (views.points[..., 0] <= 0))
    unsure = object_pixels(views, 0.1, 0.0, 12 / 255)
    for number in range(2):
        share = unsure[number].sum() / shown[number].sum()
        assert share == pytest.approx(0.9, abs=0.01)
        dropped = shown[number] & ~unsure[number]
        assert views.confidence[number][dropped].max() <= views.confidence[number][unsure[number]].min()
    # 13 of 256 pixels are 2.4 of 48: a square of 3.
    inner = object_pixels(views, 0.0, 13 / 256, 12 / 255)
    outside = torch.nn.functional.max_pool2d((~shown).float()[:, None], 3, 1, 1)[:, 0] > 0
    assert torch.equal(inner, shown & ~outside)


def test_the_order_of_the_filters_is_that_of_the_release():
    """What is unsure takes its neighbours with it in new views; of sources the unsure ones of the inner pixels go."""
    views = views_of_a_sphere(around(1))
    shown = views.depths > 0
    rows, cols = shown[0].nonzero().T
    middle = (int(rows.float().mean()), int(cols.float().mean()))
    confidence = torch.full_like(views.confidence, 2.0)
    confidence[0, middle[0], middle[1]] = 1.0
    views = replace(views, confidence=confidence)
    share, side = 0.5 / int(shown.sum()), 13 / 256
    new = object_pixels(views, share, side, 12 / 255)
    source = object_pixels(views, share, side, 12 / 255, erode_first=True)
    around_it = new[0, middle[0] - 1 : middle[0] + 2, middle[1] - 1 : middle[1] + 2]
    assert not around_it.any() and int((source & ~new).sum()) == 8
    assert not source[0, middle[0], middle[1]]


def test_a_picture_without_object_is_refused():
    views = views_of_a_sphere(around(2))
    nothing = replace(views, images=torch.ones_like(views.images))
    with pytest.raises(KaleidosceneError, match="white all over"):
        fuse(nothing, None, ALL)
    broken = replace(views, points=torch.full_like(views.points, torch.nan))
    with pytest.raises(KaleidosceneError, match="No pixel shows an object"):
        fuse(broken, None, ALL)
    with pytest.raises(KaleidosceneError, match=r"source_quantile is a share.*got 1"):
        FusionConfig(source_quantile=1.0)
    with pytest.raises(KaleidosceneError, match=r"tolerance must be at least 0, got nan"):
        FusionConfig(tolerance=float("nan"))
    # Whatever a model paints at new views, photographs of nothing are of nothing.
    white = replace(views_of_a_sphere(around(2)), images=torch.ones(2, 3, *SIZE))
    with pytest.raises(KaleidosceneError, match="white all over"):
        fuse(white, views_of_a_sphere(around(3)), FusionConfig())


def test_a_drawing_shows_the_nearest_points():
    """The drawn cloud of a sphere is what a camera sees of the sphere."""
    cloud = fuse(views_of_a_sphere(around(24)), None, ALL)
    camera = around(7)
    truth = views_of_a_sphere(camera)
    for number in range(7):
        drawn = draw_points(cloud, camera[number], size=1.5 * pixel_width(camera))
        inner = object_pixels(truth, 0.0, 13 / 256, 12 / 255)[number]
        torch.testing.assert_close(drawn[:, inner], truth.images[number][:, inner], rtol=0, atol=0.12)
        assert (drawn[:, 0, 0] == 1).all()
        lit = draw_points(cloud, camera[number], size=1.5 * pixel_width(camera), lit=True)
        assert lit[0, inner].min() > 0.1 and lit[0, inner].max() < 0.95


def test_squares_are_as_large_as_they_say():
    camera = Cameras.from_field_of_view(look_at(torch.tensor([0.0, -2.0, 0.0]), torch.zeros(3), UP), 0.7, (41, 53))
    one = SurfacePoints(torch.zeros(1, 3), UP[None], torch.zeros(1, 3), torch.ones(1))
    for side in (1, 3, 7):
        size = side * 2.0 / float(camera.intrinsics[1, 1])
        black = draw_points(one, camera, size=size * 1.001)[0] == 0
        assert black.sum() == side**2 and black[20, 26]
    behind = SurfacePoints(torch.tensor([[0.0, -3.0, 0.0]]), UP[None], torch.zeros(1, 3), torch.ones(1))
    assert (draw_points(behind, camera, size=0.1) == 1).all()
