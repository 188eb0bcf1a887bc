"""Laws of latents that stand for places."""

import math
import runpy
from dataclasses import replace

import pytest
import torch

from kaleidoscene.families.checkpoints import write_checkpoint
from kaleidoscene.families.rae3d.checkpoint import describe
from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.places import SHARPEST, Nearness, lattice, points_outside, rays_inside, sharpness
from kaleidoscene.families.rae3d.recipes import rae3d_debug
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.system import load_system
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import random_rotation, rigid, rotation_about
from kaleidoscene.geometry.rays import plucker_rays
from tests.conftest import REPOSITORY, randomised, ring
from tests.families.rae3d.tiny import SIZE, tiny_rae3d, tiny_rae3d_settings

BOTH = pytest.mark.parametrize("decoder", ["full", "causal"])


def some_views(views=4, batch=2):
    """Images, rays, which are seen and the bounds, in fp64."""
    cameras = ring(views, SIZE, seed=3, batch=(batch,)).to(torch.float64)
    world = RelativeWorld.of(cameras)
    images = torch.rand(batch, views, 3, *SIZE, dtype=torch.float64)
    return images, plucker_rays(world.enter(cameras)), torch.ones(batch, views, dtype=torch.bool), world.bounds


def encoded(network, images, rays, visible, bounds):
    return network.encode(images, rays, visible, None, bounds)


@pytest.mark.parametrize("count", [1, 7, 64, 200])
def test_places_fill_the_cube(count):
    places = lattice(count)
    assert places.shape == (count, 3) and places.abs().max() < 1
    if count >= 64:
        octants = (places > 0).long() @ torch.tensor([1, 2, 4])
        assert torch.bincount(octants, minlength=8).min() >= 0.5 * count / 8
        apart = torch.cdist(places, places) + 9 * torch.eye(count)
        assert apart.min() > 0.5 * 2 / count ** (1 / 3)


def test_the_first_head_is_without_and_the_last_is_the_sharpest():
    assert sharpness(4).tolist() == pytest.approx([0, 1, SHARPEST**0.5, SHARPEST])
    with pytest.raises(ValueError, match="at least two heads"):
        Rae3dConfig(width=24, heads=1, located=True)


def test_distances_are_those_of_the_rays_in_the_middle_of_tokens():
    """Against the distance of a point from a line as it is taught; patches of one pixel, so that means are the rays."""
    generator = torch.Generator().manual_seed(5)
    origin, direction = torch.randn(2, 3, 2, 2, 4, 3, generator=generator, dtype=torch.float64).unbind(0)
    rays = torch.cat([direction, torch.linalg.cross(origin, direction)], dim=-1)  # of any length
    near = Nearness.of(5, rays, 1, 3)
    unit = torch.nn.functional.normalize(direction, dim=-1).reshape(6, 8, 1, 3)
    towards = near.places - origin.reshape(6, 8, 1, 3)
    expected = (towards - (towards * unit).sum(-1, keepdim=True) * unit).square().sum(-1)
    torch.testing.assert_close(near.squares, expected)
    whole = near.together(3).of_all
    assert whole.shape == (3, 3, 5 + 16, 5 + 16) and not whole[:, 0].any() and not whole[:, :, 5:, 5:].any()
    torch.testing.assert_close(whole, whole.mT)
    torch.testing.assert_close(whole[1, 2, 5 + 8 :, :5], -SHARPEST * expected[3])
    torch.testing.assert_close(whole[0, 1, 1, 4], -(near.places[1] - near.places[4]).square().sum())
    torch.testing.assert_close(near.of_tokens[3, :, :, :5], whole[1, :, 5 + 8 :, :5])
    torch.testing.assert_close(near.of_latents[0], whole[0, :, :5, :5])


def test_tokens_of_several_pixels_have_their_mean_ray():
    cameras = ring(3, SIZE, seed=4, batch=(1,)).to(torch.float64)
    squares = Nearness.of(7, plucker_rays(cameras), 8, 2).squares
    middle = plucker_rays(replace(cameras, image_size=SIZE))[:, :, 3:5, 11:13].mean((2, 3))  # of the second token
    towards = lattice(7).double() - cameras.centres[0][:, None]
    unit = torch.nn.functional.normalize(middle[0, :, None, :3], dim=-1)
    expected = (towards - (towards * unit).sum(-1, keepdim=True) * unit).square().sum(-1)
    torch.testing.assert_close(squares[:, 1], expected, rtol=0, atol=0.03)


def test_the_cube_is_a_world_of_its_own():
    cameras = ring(3, SIZE, seed=4, batch=(2,)).to(torch.float64)
    bounds = torch.tensor([[0.2, -0.3, 1.4, 0.5], [0.0, 0.1, 0.9, 2.0]], dtype=torch.float64)
    middle, half = bounds[:, None, :3], bounds[:, None, 3:]
    poses = cameras.world_from_cam.clone()
    poses[..., :3, 3] = (poses[..., :3, 3] - middle) / half
    moved = replace(cameras, world_from_cam=poses)
    torch.testing.assert_close(rays_inside(plucker_rays(cameras), bounds), plucker_rays(moved))
    points = torch.randn(2, 3, *SIZE, 3, dtype=torch.float64)
    back = (points_outside(points, bounds) - middle[:, :, None, None]) / half[:, :, None, None]
    torch.testing.assert_close(back, points)


def test_the_cube_stands_where_cameras_look():
    cameras = ring(5, SIZE, seed=1, batch=(2,)).to(torch.float64)
    world = RelativeWorld.of(cameras[:, :2], cameras[:, 2:])
    middle = world.leave_points(world.bounds[:, None, :3])[:, 0]
    assert middle.norm(dim=-1).max() < 0.03  # the origin, but for the pull of the point ahead
    distance = cameras.centres.norm(dim=-1).mean(1)
    torch.testing.assert_close(world.bounds[:, 3] * world.scale, 0.3 * distance, rtol=0.01, atol=0)
    still = Cameras(cameras.world_from_cam[:, :1].repeat(1, 3, 1, 1), cameras.intrinsics[:, :3], SIZE)
    ahead = torch.tensor([[0.0, 0.0, 1.0, 0.3]], dtype=torch.float64).expand(2, -1)
    torch.testing.assert_close(RelativeWorld.of(still).bounds, ahead, rtol=0, atol=1e-3)  # parallel axes


def test_the_cube_stands_ahead_of_cameras_whose_axes_part():
    """Axes that part meet behind; the cube is where they look, and what stands there is no background."""
    for degrees in (1.0, 3.0, 40.0):
        poses = torch.eye(4, dtype=torch.float64).repeat(1, 3, 1, 1)
        for number, turn in enumerate((-1, 0, 1)):
            angle = torch.tensor(math.radians(turn * degrees), dtype=torch.float64)
            poses[0, number, :3, :3] = rotation_about("y", angle)
            poses[0, number, 0, 3] = 0.5 * turn
        cameras = Cameras.from_field_of_view(poses, 0.857, SIZE)
        world = RelativeWorld.of(cameras)
        inside, bounds = world.enter(cameras), world.bounds[0]
        ahead = ((bounds[:3] - inside.centres[0]) * inside.directions[0]).sum(-1)
        assert ahead.min() > 0.3 and bounds[3] > 0


def test_references_and_targets_may_have_other_precisions():
    cameras = ring(4, SIZE, seed=1, batch=(2,))
    single, double = cameras[:, :2], cameras[:, 2:].to(torch.float64)
    exact = RelativeWorld.of(cameras[:, :2].to(torch.float64), double).bounds
    torch.testing.assert_close(RelativeWorld.of(single, double).bounds, exact, rtol=0, atol=1e-5)


@BOTH
def test_laws_of_the_network_hold_with_places(decoder):
    network = tiny_rae3d(decoder=decoder, located=True).double()
    images, rays, visible, bounds = some_views(5)
    visible[0, 1] = False
    tokens = encoded(network, images, rays, visible, bounds)
    blind = images.clone()
    blind[0, 1] = torch.nan
    assert torch.equal(encoded(network, blind, rays, visible, bounds), tokens)
    order = [3, 0, 4, 2, 1]
    turned = encoded(network, images[:, order], rays[:, order], visible[:, order], bounds)
    torch.testing.assert_close(turned, tokens, rtol=0, atol=1e-10)
    single = encoded(network, images[1:], rays[1:], visible[1:], bounds[1:])
    torch.testing.assert_close(single, tokens[1:], rtol=0, atol=1e-10)
    together = network.decode(tokens, rays, bounds)
    alone = network.decode(tokens[1:], rays[1:, 2:3], bounds[1:])
    for name in ("images", "points", "confidence"):
        torch.testing.assert_close(getattr(alone, name)[0, 0], getattr(together, name)[1, 2], rtol=0, atol=1e-10)


@BOTH
def test_places_matter_and_bounds_are_asked_for(decoder):
    network = tiny_rae3d(decoder=decoder, located=True).double()
    images, rays, visible, bounds = some_views()
    tokens = encoded(network, images, rays, visible, bounds)
    plain = tiny_rae3d(decoder=decoder).double()
    inside = rays_inside(rays, bounds)
    assert not torch.allclose(plain.encode(images, inside, visible), tokens, atol=1e-3)
    ours, theirs = network.decode(tokens, rays, bounds), plain.decode(tokens, inside)
    assert not torch.allclose(ours.images, theirs.images, atol=1e-3)
    with pytest.raises(ValueError, match="bounds must be given"):
        network.encode(images, rays, visible)
    with pytest.raises(ValueError, match="bounds must be given"):
        network.decode(tokens, rays)


@BOTH
def test_gradients_reach_every_weight(decoder):
    network = tiny_rae3d(decoder=decoder, located=True).double()
    images, rays, visible, bounds = some_views()
    decoded = network(images, rays, visible, rays[:, :2], None, None, bounds)
    (decoded.images.square().mean() + decoded.points.square().mean() + decoded.confidence.mean()).backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_the_given_world_may_be_turned_moved_and_scaled():
    renderer = Rae3dRenderer(tiny_rae3d(located=True), tiny_rae3d_settings(located=True))
    cameras, images = ring(5, SIZE, seed=2, batch=(1,)), torch.rand(1, 2, 3, *SIZE)
    turn = rigid(random_rotation(generator=torch.Generator().manual_seed(3)), torch.tensor([3.0, -1.0, 2.0]))
    poses = turn @ cameras.world_from_cam
    poses[..., :3, 3] *= 4.0
    found = []
    for given in (cameras, replace(cameras, world_from_cam=poses)):
        scene = renderer.expect(renderer.encode(images, given[:, :2]), given[:, 2:])
        found.append(renderer.render(scene, given[:, 2:], seeds=[0] * 3))
    torch.testing.assert_close(found[1].images, found[0].images, rtol=0, atol=1e-4)
    torch.testing.assert_close(found[1].depths, 4 * found[0].depths, rtol=1e-3, atol=1e-3)


def test_points_near_the_first_camera_are_background():
    network = tiny_rae3d(located=True)
    torch.nn.init.zeros_(network.points.head.out.weight)
    torch.nn.init.zeros_(network.points.head.out.bias)
    renderer = Rae3dRenderer(network, replace(tiny_rae3d_settings(located=True), background="white"))
    cameras = ring(3, SIZE, batch=(1,))
    scene = renderer.expect(renderer.encode(torch.rand(1, 2, 3, *SIZE), cameras[:, :2]), cameras[:, 2:])
    assert renderer.render(scene, cameras[:, 2:], seeds=[0]).depths.all()  # the middle of the cube
    middle, half = scene.world.bounds[0, :3], scene.world.bounds[0, 3]
    first = -middle / half  # the first camera, in the world of the cube
    network.points.head.out.bias.data[:3] = first.sign() * first.abs().log1p()
    assert not renderer.render(scene, cameras[:, 2:], seeds=[0]).depths.any()
    half_way = first / 2  # nearer than any object; of places it may be something
    network.points.head.out.bias.data[:3] = half_way.sign() * half_way.abs().log1p()
    assert not renderer.render(scene, cameras[:, :1], seeds=[0]).depths.any()
    anywhere = Rae3dRenderer(network, tiny_rae3d_settings(located=True))
    assert anywhere.render(scene, cameras[:, :1], seeds=[0]).depths.all()


def test_more_tokens_begin_where_the_nearest_is(tmp_path, monkeypatch):
    """The weights of an example to go on from: old tokens stay, each new one is next to a copy."""
    config = replace(rae3d_debug().settings.model, tokens=12)
    network, settings = randomised(Rae3d(config)), replace(rae3d_debug().settings, model=config)
    write_checkpoint(tmp_path / "few", describe(settings), dict(network.state_dict()))

    def run(*argv):
        monkeypatch.setattr("sys.argv", ["11_more_tokens", *map(str, argv)])
        runpy.run_path(str(REPOSITORY / "examples" / "11_more_tokens.py"), run_name="__main__")

    run(tmp_path / "few", tmp_path / "many", "--tokens", 19, "--without", "points")
    many = load_system(tmp_path / "many").autoencoder.model
    assert many.config.tokens == 19 and many.points is None
    before, after = network.latents.detach(), many.latents.detach()
    assert after[:12].equal(before)
    nearest = torch.cdist(lattice(19)[12:], lattice(12)).argmin(1)
    off = (after[12:] - before[nearest]).square().mean().sqrt()
    assert 0.05 * before.std() < off < 0.2 * before.std()
    for argv, said in (
        ((tmp_path / "few", tmp_path / "other", "--tokens", 12), "has 12 tokens already"),
        ((tmp_path / "few", tmp_path / "many", "--tokens", 19), "is there already"),
        (("default", tmp_path / "other", "--tokens", 19), "expected a 3DRAE with located tokens"),
        ((tmp_path / "many", tmp_path / "other", "--tokens", 20, "--without", "points"), "has no points to leave out"),
    ):
        with pytest.raises(SystemExit, match=said):
            run(*argv)
    assert not (tmp_path / "other").exists()
