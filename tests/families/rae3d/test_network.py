"""Laws of the network of 3DRAE."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rae3d.config import EncoderConfig, Rae3dConfig
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.plan import decode_flops, encode_flops, parameters_of
from kaleidoscene.families.rae3d.recipes import rae3d_paper
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.geometry.poses import random_rotation, rigid
from kaleidoscene.geometry.rays import plucker_rays, unproject
from tests.conftest import ring
from tests.families.rae3d.tiny import SIZE, tiny_rae3d, tiny_rae3d_config

BOTH = pytest.mark.parametrize("decoder", ["full", "causal"])


def some_views(views=4, batch=2, size=SIZE):
    cameras = ring(views, size, seed=3, batch=(batch,))
    return torch.rand(batch, views, 3, *size), plucker_rays(cameras), torch.ones(batch, views, dtype=torch.bool)


def test_pixels_of_a_view_that_is_not_seen_have_no_influence():
    network = tiny_rae3d()
    images, rays, visible = some_views()
    visible[0, 1] = visible[1, 3] = False
    tokens = network.encode(images, rays, visible)
    other = images.clone()
    other[0, 1], other[1, 3] = torch.nan, torch.inf
    assert torch.equal(network.encode(other, rays, visible), tokens)
    # Its pose has, and so do pixels that are seen.
    moved = rays.clone()
    moved[0, 1] += 0.1
    assert not torch.allclose(network.encode(images, moved, visible)[0], tokens[0], atol=1e-3)
    seen = images.clone()
    seen[0, 2] = 1 - seen[0, 2]
    assert not torch.allclose(network.encode(seen, rays, visible)[0], tokens[0], atol=1e-3)
    assert torch.equal(network.encode(seen, rays, visible)[1], tokens[1])


def test_tokens_have_mean_zero_and_variance_one():
    network = tiny_rae3d()
    for views in (1, 5, 40):
        tokens = network.encode(*some_views(views))
        assert tokens.shape == (2, 7, 24)
        torch.testing.assert_close(tokens.mean(-1), torch.zeros(2, 7), rtol=0, atol=1e-5)
        torch.testing.assert_close(tokens.var(-1, unbiased=False), torch.ones(2, 7), rtol=0, atol=1e-3)


def test_the_order_of_views_does_not_matter():
    """The first one fixes the world, which is in the rays here."""
    network = tiny_rae3d().double()
    images, rays, visible = some_views(5)
    visible[0, 2] = False
    order = [3, 0, 4, 2, 1]
    ours = network.encode(images.double(), rays.double(), visible)
    theirs = network.encode(images[:, order].double(), rays[:, order].double(), visible[:, order])
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-10)


@BOTH
def test_views_are_decoded_one_by_one_or_together(decoder):
    network = tiny_rae3d(decoder=decoder).double()
    tokens = torch.randn(2, 7, 24, dtype=torch.float64)
    rays = some_views(5)[1].double()
    together = network.decode(tokens, rays)
    for number in range(5):
        alone = network.decode(tokens, rays[:, number : number + 1])
        for name in ("images", "points", "confidence"):
            torch.testing.assert_close(
                getattr(alone, name)[:, 0], getattr(together, name)[:, number], rtol=0, atol=1e-10
            )
    # And scenes by themselves.
    single = network.decode(tokens[1:], rays[1:])
    torch.testing.assert_close(single.points, together.points[1:], rtol=0, atol=1e-10)


def test_keys_and_values_of_latents_serve_as_a_mask_would():
    """The causal decoder against one sequence of latents and a view in which latents do not see the view."""
    network = tiny_rae3d(decoder="causal").double()
    latents, rays = torch.randn(2, 7, 24, dtype=torch.float64), torch.randn(2, 6, 24, dtype=torch.float64)
    mask = torch.ones(13, 13, dtype=torch.bool)
    mask[:7, 7:] = False
    x = torch.cat([latents, rays], dim=1)
    for block in network.images.blocks.blocks:
        x, _ = block(x, None, None, mask[None, None])
    expected = network.images.out(network.images.norm(x[:, 7:]))
    found, _ = network.images(latents, rays, (2, 3))
    patches = found.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 6, -1)
    torch.testing.assert_close(patches, 0.5 + 0.5 * expected, rtol=0, atol=1e-10)


@BOTH
def test_gradients_reach_latents_and_every_weight(decoder):
    network = tiny_rae3d(decoder=decoder)
    images, rays, visible = some_views()
    decoded = network(images, rays, visible, rays[:, :2], None, 0.1 * torch.randn(2, 7, 24))
    (decoded.images.square().mean() + decoded.points.square().mean() + decoded.confidence.mean()).backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


@pytest.mark.parametrize("size", [(56, 84), (140, 70), (98, 112)])
def test_any_size_of_whole_patches(size):
    config = tiny_rae3d_config(patch_size=14)
    network = Rae3d(config).eval()
    torch.manual_seed(0)
    torch.nn.init.normal_(network.latents)
    images, rays, visible = some_views(3, 1, size)
    decoded = network(images, rays, visible, rays[:, :1])
    assert decoded.images.shape == (1, 1, 3, *size) and decoded.points.shape == (1, 1, *size, 3)
    with pytest.raises(KaleidosceneError, match="no whole number of patches of 14 pixels"):
        network.decode(torch.zeros(1, 7, 24), torch.zeros(1, 1, 57, 84, 6))


def test_the_world_may_be_turned_moved_and_scaled():
    cameras = ring(5, SIZE, seed=1, batch=(2,)).to(torch.float64)
    inside = RelativeWorld.of(cameras[:, :3], cameras[:, 3:]).enter(cameras)
    turn = rigid(
        random_rotation(generator=torch.Generator().manual_seed(3), dtype=torch.float64),
        torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64),
    )
    poses = turn @ cameras.world_from_cam
    poses[..., :3, 3] *= 7.5
    other = type(cameras)(poses, cameras.intrinsics, SIZE)
    theirs = RelativeWorld.of(other[:, :3], other[:, 3:]).enter(other)
    torch.testing.assert_close(theirs.world_from_cam, inside.world_from_cam, rtol=0, atol=2e-6)
    eye = torch.eye(4, dtype=torch.float64).expand(2, 4, 4)
    torch.testing.assert_close(inside.world_from_cam[:, 0], eye, rtol=0, atol=2e-6)
    torch.testing.assert_close(inside.centres.norm(dim=-1).amax(1), torch.ones(2, dtype=torch.float64))


def test_points_find_back_to_the_given_world():
    cameras = ring(4, SIZE, seed=2, batch=(2,)).to(torch.float64)
    depth = 0.5 + torch.rand(2, 4, *SIZE, dtype=torch.float64)
    world = RelativeWorld.of(cameras)
    inside = unproject(world.enter(cameras), depth / world.scale[:, None, None, None])
    torch.testing.assert_close(world.leave_points(inside), unproject(cameras, depth), rtol=0, atol=2e-6)
    still = type(cameras)(cameras.world_from_cam[:, :1], cameras.intrinsics[:, :1], SIZE)
    assert torch.equal(RelativeWorld.of(still).scale, torch.ones(2, dtype=torch.float64))


def test_sizes_are_those_of_the_paper():
    """Neck 85M, each decoder 113M without its head, within half a percent (method C.2)."""
    with torch.device("meta"):
        network = Rae3d(rae3d_paper().settings.model)
    counts = {name: sum(p.numel() for p in part.parameters()) / 1e6 for name, part in network.named_children()}
    assert counts["neck"] == pytest.approx(85, rel=0.005)
    blocks = sum(p.numel() for p in network.points.blocks.parameters()) / 1e6
    assert blocks == pytest.approx(113, rel=0.005) and counts["images"] == pytest.approx(113.5, rel=0.005)


@BOTH
def test_operations_are_counted(decoder):
    config = Rae3dConfig(
        width=64, heads=4, patch_size=8, tokens=48, neck_depth=3, decoder_depth=4, decoder=decoder,
        encoder=EncoderConfig(kind="image"), point_layers=(0, 1, 2, 3),
    )  # fmt: skip
    with torch.device("meta"):
        network = Rae3d(config)
        size = (64, 96)
        images, rays = torch.empty(1, 3, 3, *size), torch.empty(1, 5, *size, 6)
        with FlopCounterMode(display=False) as counter:
            tokens = network.encode(images, rays[:, :3], torch.empty(1, 3, dtype=torch.bool))
        assert counter.get_total_flops() == pytest.approx(encode_flops(config, 3, size), rel=0.01)
        with FlopCounterMode(display=False) as counter:
            network.decode(tokens, rays)
        assert counter.get_total_flops() == pytest.approx(decode_flops(config, 5, size), rel=0.01)
        assert parameters_of(config) == sum(p.numel() for p in network.parameters())


def test_wrong_configurations_are_refused():
    for changes, said in (
        ({"width": 25}, "must be a multiple of heads"),
        ({"tokens": 0}, "must be at least 1"),
        ({"point_layers": (0, 2, 1, 4)}, "must rise"),
        ({"point_layers": (0, 1, 2, 5)}, r"lie in 0..4"),
    ):
        with pytest.raises(ValueError, match=said):
            tiny_rae3d_config(**changes)
    frozen = Rae3d(tiny_rae3d_config(encoder=EncoderConfig(kind="dinov2")))
    with pytest.raises(ValueError, match="no encoder of its own"):
        frozen.encode(*some_views())


def test_features_of_a_view_that_is_not_seen_have_no_influence():
    network = tiny_rae3d(encoder=EncoderConfig(kind="dinov2"))
    images, rays, visible = some_views()
    features = torch.randn(2, 4, 6, 24)
    visible[0, 1] = False
    tokens = network.encode(images, rays, visible, features)
    features[0, 1] = torch.nan
    assert torch.equal(network.encode(images, rays, visible, features), tokens)
    features[0, 2] = torch.randn(6, 24)
    assert not torch.allclose(network.encode(images, rays, visible, features)[0], tokens[0], atol=1e-3)
