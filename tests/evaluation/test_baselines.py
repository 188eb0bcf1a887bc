"""Baselines by laws and by values, and the radiance field against a scene whose views are known."""

import math
from functools import partial

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.baselines import (
    BASELINES,
    WITH_DEPTH,
    BaselineRenderer,
    ReferenceViews,
    baseline_capabilities,
    field_view,
    make_baseline,
)
from kaleidoscene.evaluation.metrics.depth import depth_errors
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import camera_rays, unproject
from kaleidoscene.reconstruction.radiance_field import (
    FieldConfig,
    RadianceField,
    contract,
    fit_radiance_field,
    sample_edges,
)
from kaleidoscene.rendering.renderer import Renderer
from tests.conftest import ring

SIZE = (24, 32)


def ball_views(cameras: Cameras) -> torch.Tensor:
    """A ball of radius 0.6 in front of white, coloured by place: the truth is known everywhere."""
    return ball(cameras)[0]


def ball(cameras: Cameras) -> tuple[torch.Tensor, torch.Tensor]:
    """Its views, and its depth along the optical axes (0 beside it)."""
    images, depths = [], []
    for number in range(len(cameras)):
        origin, directions = camera_rays(cameras[number])
        along = (directions * origin).sum(-1)
        inside = along.square() - (origin.square().sum() - 0.36)
        depth = -along - inside.clamp_min(0).sqrt()
        place = origin + depth[..., None] * directions
        colour = (0.5 + 0.35 * torch.sin(4 * place)).movedim(-1, 0)
        images.append(torch.where(inside > 0, colour, torch.ones(3, 1, 1)))
        depths.append(torch.where(inside > 0, depth * (directions @ cameras[number].directions), 0.0))
    return torch.stack(images), torch.stack(depths)


def scene(references=8):
    cameras = ring(references + 4, SIZE, seed=3)
    return ball_views(cameras), cameras


def render(name, references, images, cameras):
    return rendered_by(make_baseline(name, SIZE), references, images, cameras)


def rendered_by(renderer, references, images, cameras):
    return rendering_by(renderer, references, images, cameras).images[0]


def rendering_by(renderer, references, images, cameras):
    made = renderer.encode(images[None, :references], cameras[:references].reshape(1, references))
    targets = cameras[references:]
    return renderer.render(made, targets.reshape(1, len(targets)), seeds=[0] * len(targets))


@pytest.mark.parametrize("name", sorted(set(BASELINES) - {"radiance-field"}))
def test_baselines_stand_behind_the_seam_and_do_not_look_at_other_targets(name):
    renderer = make_baseline(name, SIZE)
    assert isinstance(renderer, Renderer)
    assert renderer.capabilities.renders_depth == (name in WITH_DEPTH)
    images, cameras = scene()
    together = render(name, 8, images, cameras)
    made = renderer.encode(images[None, :8], cameras[:8].reshape(1, 8))
    alone = renderer.render(made, cameras[9:10].reshape(1, 1), seeds=[5]).images[0]
    torch.testing.assert_close(alone[0], together[1])
    assert together.shape == (4, 3, *SIZE) and bool(((together >= 0) & (together <= 1)).all())
    longer = renderer.extend(made, images[None, 8:9], cameras[8:9].reshape(1, 1), keep=[0, 3])
    assert longer.num_references == 3 and longer.images[2].equal(images[8]) and longer.nbytes > 0


@pytest.mark.parametrize("name", ["nearest", "blend", "plane-sweep"])
def test_at_the_camera_of_a_reference_there_is_that_reference(name):
    images, cameras = scene()
    renderer = make_baseline(name, SIZE)
    made = renderer.encode(images[None, :8], cameras[:8].reshape(1, 8))
    back = renderer.render(made, cameras[2:3].reshape(1, 1), seeds=[0]).images[0, 0]
    assert psnr(back, images[2]).item() > (30 if name == "plane-sweep" else 60)


def test_with_one_reference_all_that_do_not_move_images_are_equal():
    images, cameras = scene(1)
    for name in ("mean", "blend"):
        torch.testing.assert_close(render(name, 1, images, cameras), render("nearest", 1, images, cameras))


def test_the_mean_is_the_mean():
    images, cameras = scene()
    torch.testing.assert_close(render("mean", 8, images, cameras)[2], images[:8].mean(0))


def test_a_plane_is_found_by_the_sweep():
    """Cameras beside each other before a textured wall: a plane sweep sees it from another place."""
    poses = torch.eye(4).repeat(4, 1, 1)
    poses[:, 0, 3] = torch.tensor([-0.3, 0.0, 0.3, 0.12])
    poses[:, 2, 3] = -2.0
    cameras = Cameras.from_field_of_view(poses, 0.857, SIZE)
    images = []
    for number in range(4):
        origin, directions = camera_rays(cameras[number])
        place = origin + directions * ((0.7 - origin[2]) / directions[..., 2:])  # the wall is not at the middle
        images.append(0.5 + 0.4 * torch.sin(torch.stack([place[..., 0] * 9, place[..., 1] * 7, place[..., 0] * 4])))
    images = torch.stack(images)
    assert psnr(render("plane-sweep", 3, images, cameras), images[3:]).item() > 28
    assert psnr(render("nearest", 3, images, cameras), images[3:]).item() < 20
    swept = rendering_by(make_baseline("plane-sweep", SIZE), 3, images, cameras)
    assert swept.depths is not None and swept.depths.shape == (1, 1, *SIZE)
    sweep, known, target = make_baseline("plane-sweep", SIZE), cameras[:3].reshape(1, 3), cameras[3:].reshape(1, 1)
    plain = sweep.render(sweep.encode(images[None, :3], known), target, seeds=[0], depth=False)
    assert plain.depths is None and plain.images.equal(swept.images)
    inner = swept.depths[0, 0, 4:-4, 4:-4]
    # It stands 2.7 away; the middle, at 2, draws a little where disparities are fractions of a pixel.
    assert 2.3 < inner.median().item() < 2.9
    assert rendering_by(make_baseline("nearest", SIZE), 3, images, cameras).depths is None


def test_a_sweep_has_no_depth_where_no_reference_sees():
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 2, 3] = -2.0
    poses[:2, 0, 3] = torch.tensor([4.0, 4.2])  # far to the side: nothing of the left of the target
    cameras = Cameras.from_field_of_view(poses, 0.857, SIZE)
    depth = rendering_by(make_baseline("plane-sweep", SIZE), 2, torch.rand(3, 3, *SIZE), cameras).depths
    assert depth is not None and bool((depth[0, 0, :, :4] == 0).all())


def test_space_is_contracted_into_a_ball_of_radius_two():
    points = torch.randn(50, 3) * torch.logspace(-2, 3, 50)[:, None]
    mapped = contract(points)
    near = points.norm(dim=-1) <= 1
    assert mapped[near].equal(points[near])
    expected = 2 - 1 / points[~near].norm(dim=-1)
    torch.testing.assert_close(mapped[~near].norm(dim=-1), expected)
    torch.testing.assert_close(contract(torch.tensor([4.0, 0, 0])), torch.tensor([1.75, 0, 0]))


def test_samples_go_from_the_camera_through_the_ball_and_far_beyond():
    origins = torch.nn.functional.normalize(torch.randn(7, 3), dim=-1) * 2.0
    for jitter in (None, torch.Generator().manual_seed(0)):
        edges = sample_edges(60, 1.2, origins, jitter)
        assert edges.shape == (7, 61) and bool((edges.diff(dim=1) > 0).all())
        assert bool((edges[:, 0] < 1.0).all()) and bool((edges[:, 41] > 2.5).all()) and bool((edges[:, -1] > 30).all())


def test_the_quadrature_is_that_of_a_uniform_fog():
    """Through a fog of one density the share of white behind it is exp(-density length)."""
    field = RadianceField(16, 1.0)
    with torch.no_grad():
        field.grid[:, 0], field.grid[:, 1:] = 0.0, -50.0  # density 10 ln 2, black
    origins, directions = torch.tensor([[-2.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    edges = sample_edges(60, 1.0, origins, None)
    length = float(edges[0, -1] - edges[0, 0])
    seen, distance = field.shoot(origins, directions, 60)
    assert seen.max().item() == pytest.approx(math.exp(-10 * math.log(2) * length), abs=1e-6)
    # Half is stopped after 1 / 10, to within half a sample.
    assert distance.item() == pytest.approx(float(edges[0, 0]) + 0.1, abs=float(edges[0, 1] - edges[0, 0]))
    # All rays of a camera enter it equally far away; along the optical axis that is less towards the borders.
    camera = ring(1, SIZE, seed=2)
    _, depths = field.render(camera, 60)
    lengths = unproject(camera, torch.ones(1, *SIZE)) - camera.centres[:, None, None]
    torch.testing.assert_close(depths * lengths.norm(dim=-1), (depths * lengths.norm(dim=-1)).mean().expand_as(depths))
    assert depths.min() < 0.95 * depths.max()
    with torch.no_grad():
        field.grid[:, 0] = -9.0  # softplus(-9) = 1.234e-4
    seen, distance = field.shoot(origins, directions, 60)
    assert seen.max().item() == pytest.approx(math.exp(-10 * math.log1p(math.exp(-9)) * length), rel=1e-3)
    assert distance.item() == 0  # most of it passes


def test_empty_space_is_left_out_and_nothing_else_changes():
    field = RadianceField(24, 1.0)
    line = torch.linspace(-2, 2, 24)
    z, y, x = torch.meshgrid(line, line, line, indexing="ij")
    inside = (x - 0.8).square() + y.square() + (z + 0.5).square() < 0.3
    with torch.no_grad():
        field.grid.copy_(torch.randn(field.grid.shape, generator=torch.Generator().manual_seed(0)))
        field.grid[:, 0] = torch.where(inside, 1.0, -30.0)
        field.grid[:, 1:, ~inside] = 0.0
    origins = 2 * torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), dim=-1)
    directions = torch.nn.functional.normalize(torch.tensor([0.8, 0.0, -0.5]) - origins, dim=-1)
    found = []
    for _ in range(2):
        field.grid.grad = None
        seen, distance = field.shoot(origins, directions, 40)
        (seen.square().sum() + field.roughness()).backward()
        found.append((seen, distance, field.roughness(), field.grid.grad))
        field.find_empty()
    assert field.filled is not None and bool(field.filled[inside].all()) and field.filled.float().mean() < 0.3
    assert found[0][0].std() > 0.1
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, rtol=0, atol=1e-5)
    with torch.no_grad():
        field.grid[:, 0, 0, 0, 0] = 5.0  # far from all that was there: not looked at any more
    assert field.query(torch.full((1, 3), -5.0))[0].item() == 0
    fog = RadianceField(8, 1.0)
    fog.find_empty()
    assert fog.filled is None and fog.query(torch.zeros(1, 3))[0].item() > 0


@pytest.mark.slow
def test_a_field_fitted_to_some_views_shows_others():
    images, cameras = scene(12)
    config = FieldConfig(grids=(16, 32), steps=100, rays=512, samples=48)
    renderer = BaselineRenderer(partial(field_view, config=config), SIZE, baseline_capabilities("radiance-field"))
    rendering = rendering_by(renderer, 12, images, cameras)
    fitted, depths = rendering.images[0], rendering.depths
    copied = render("nearest", 12, images, cameras)
    ours, theirs = psnr(fitted, images[12:]).mean().item(), psnr(copied, images[12:]).mean().item()
    assert ours > 22 and ours > theirs + 4
    truth = ball(cameras)[1][12:]
    score = depth_errors(depths[0], truth, truth > 0)
    assert score.rel < 0.15 and score.a1 > 0.95


def test_fits_are_reproducible_and_stop_when_nothing_is_gained():
    images, cameras = scene(4)
    config = FieldConfig(grids=(8,), steps=20, rays=64, samples=12, check_every=5)
    first, second = (fit_radiance_field(images[:4], cameras[:4], config) for _ in range(2))
    assert first.grid.equal(second.grid)
    # Noise has nothing to tell of the pixels that are kept back: some looks, not 1000 steps.
    looks = []
    inner = RadianceField.shoot

    def counted(self, *arguments):
        looks.append(1)
        return inner(self, *arguments)

    RadianceField.shoot = counted
    try:
        fit_radiance_field(
            torch.rand(4, 3, *SIZE), cameras[:4], FieldConfig(grids=(8,), steps=1000, samples=12, check_every=5)
        )
    finally:
        RadianceField.shoot = inner
    assert len(looks) < 400


def test_unknown_baselines_are_named():
    with pytest.raises(KaleidosceneError, match="Unknown baseline 'plane': did you mean 'plane-sweep'"):
        make_baseline("plane", SIZE)
    views = ReferenceViews(torch.rand(2, 3, *SIZE), ring(2, SIZE))
    assert views.num_references == 2
