"""Laws of the network of RnG, and its operations at the paper's size."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.config import EncoderConfig, RngConfig
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.plan import cache_bytes, parameters_of, source_flops, target_flops
from kaleidoscene.nn.dpt import DPTConfig
from tests.families.rng.tiny import SIZE, tiny_config, tiny_network

FIELDS = ("colours", "points", "confidence")


def inputs(batch=2, sources=3, targets=4, size=SIZE, dtype=torch.float64):
    generator = torch.Generator().manual_seed(batch + sources)
    images = torch.rand(batch, sources, 3, *size, generator=generator, dtype=dtype)
    return images, torch.randn(batch, targets, *size, 6, generator=generator, dtype=dtype)


def assert_same(ours, theirs, **tolerance):
    for name in FIELDS:
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), **tolerance)


def test_two_calls_are_the_masked_one_in_values_and_gradients():
    """Sources once and targets from their keys and values, against eq. 2 and 3 as they are written."""
    network = tiny_network().double()
    images, rays = inputs()
    found = []
    for slow in (False, True):
        network.zero_grad()
        sources = network.encode(images)
        cameras = sources.cameras[:, :, None].expand(-1, -1, 4, -1, -1).flatten(1, 2)
        if slow:
            cameras, dense = network.joint(network.with_tokens(sources, images), rays)
        else:
            dense = network.render(sources, rays)
        total = sum(getattr(dense, name).square().sum() for name in FIELDS) + cameras.square().sum()
        total.backward()
        gradients = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
        found.append((cameras, dense, gradients))
    (fast_cameras, fast, fast_gradients), (cameras, dense, gradients) = found
    torch.testing.assert_close(fast_cameras, cameras, rtol=1e-10, atol=1e-12)
    assert_same(fast, dense, rtol=1e-10, atol=1e-12)
    assert fast_gradients.keys() == gradients.keys() == dict(network.named_parameters()).keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(fast_gradients[name], gradient, rtol=1e-8, atol=1e-9)


def test_full_attention_lets_sources_see_targets():
    """The ablated variant: other targets change what cameras would be; its weights are those of the causal one."""
    images, rays = inputs(batch=1)
    full = tiny_network(attention="full").double()
    causal = tiny_network().double()
    causal.load_state_dict(full.state_dict())
    sources = full.encode(images)
    cameras, dense = full.joint(sources, rays)
    assert not cameras[:, 0].allclose(cameras[:, 1])
    assert_same(full.render(sources, rays), dense)
    assert not causal.render(causal.encode(images), rays).colours.allclose(dense.colours)


def test_targets_do_not_see_each_other():
    network = tiny_network().double()
    images, rays = inputs()
    sources = network.encode(images)
    together = network.render(sources, rays)
    for number in range(rays.shape[1]):
        alone = network.render(sources, rays[:, number : number + 1])
        for name in FIELDS:
            torch.testing.assert_close(getattr(alone, name)[:, 0], getattr(together, name)[:, number])


def test_scenes_of_a_batch_do_not_see_each_other():
    network = tiny_network().double()
    images, rays = inputs()
    both = network(images, rays)[1]
    for scene in range(2):
        alone = network(images[scene : scene + 1], rays[scene : scene + 1])[1]
        for name in FIELDS:
            torch.testing.assert_close(getattr(alone, name)[0], getattr(both, name)[scene])


def test_order_of_the_other_sources_does_not_matter():
    """The first one fixes the world; permuting the rest permutes cameras and leaves targets as they are."""
    network = tiny_network().double()
    images, rays = inputs(sources=4)
    order = [0, 3, 1, 2]
    sources, moved = network.encode(images), network.encode(images[:, order])
    torch.testing.assert_close(moved.cameras, sources.cameras[:, :, order])
    assert_same(network.render(sources, rays), network.render(moved, rays))
    first_moved = network.encode(images[:, [1, 0, 2, 3]])
    assert not first_moved.cameras[:, :, [1, 0, 2, 3]].allclose(sources.cameras)


def test_targets_of_other_sizes_than_sources():
    network = tiny_network()
    images, _ = inputs(dtype=torch.float32)
    rays = torch.randn(2, 3, 40, 8, 6)
    dense = network(images, rays)[1]
    assert dense.colours.shape == (2, 3, 3, 40, 8) and dense.points.shape == (2, 3, 40, 8, 3)
    assert dense.confidence.min() >= 1 and 0 <= dense.colours.min() <= dense.colours.max() <= 1
    with pytest.raises(KaleidosceneError, match="12x24 are no whole number of patches of 8"):
        network.render(network.encode(images), torch.randn(2, 3, 12, 24, 6))


def test_an_estimate_does_not_teach_the_one_it_corrects():
    """What is known is cut off: the first estimate has no gradient from the second (method B.6)."""
    head = tiny_network().camera_head
    tokens = torch.randn(1, 3, 48)
    for go, reached in ((0, True), (1, False)):
        head.zero_grad()
        head(tokens)[go].square().sum().backward()
        assert bool(head.nothing_yet.grad is not None and head.nothing_yet.grad.abs().sum() > 0) == reached


def test_rays_enter_as_the_paper_has_them():
    """Moments first, then directions, patch by patch (method B.2)."""
    embedder = tiny_network().embedder
    rays = torch.randn(1, 1, *SIZE, 6)
    weight = torch.zeros_like(embedder.rays.weight)
    weight[0, 0], weight[1, 3 * 64] = 1, 1  # the first pixel's moment and direction along x
    embedder.rays.weight.data = weight
    tokens = embedder.targets(rays)[0, 0, 3:]
    torch.testing.assert_close(tokens[4, :2], torch.stack([rays[0, 0, 8, 8, 3], rays[0, 0, 8, 8, 0]]))


def test_without_a_camera_head():
    network = tiny_network(camera=None)
    images, rays = inputs(dtype=torch.float32)
    sources, _ = network(images, rays)
    assert sources.cameras is None and "camera head" not in network.units()


def test_features_go_where_they_are_looked_at():
    """A network with an encoder of its own would pass them over in silence."""
    images, _ = inputs(batch=1, dtype=torch.float32)
    features = torch.rand(1, 3, 6, 24)
    with pytest.raises(ValueError, match="into no other"):
        tiny_network().encode(images, features)
    frozen = tiny_network(encoder=EncoderConfig(kind="dinov2"))
    assert frozen.encode(images, features).num_views == 3
    with pytest.raises(ValueError, match="into no other"):
        frozen.encode(images)


def test_wrong_configurations_are_refused():
    with pytest.raises(ValueError, match="multiples of 4, and fused 12 one of 8"):
        DPTConfig(fused=12)
    with pytest.raises(ValueError, match="multiple of 4 channels for each of 3 heads"):
        tiny_config(width=30)
    with pytest.raises(ValueError, match=r"dense_layers must rise and lie in 0\.\.4"):
        tiny_config(dense_layers=(0, 2, 3, 5))


def test_operations_and_cache_at_the_papers_size():
    """2.293 TFLOP for a target of 256 px from the cache of four sources, keys and values of 405 MB in bf16 (B.9).

    The paper's 12.249 TFLOP without the cache have four passes of DINOv2 ViT-L in them: 24 blocks on 1029 tokens.
    """
    config, size = RngConfig(), (256, 256)
    with torch.device("meta"), torch.no_grad():
        network = Rng(config).requires_grad_(False)
        images, features = torch.empty(1, 4, 3, *size), torch.empty(1, 4, 1024, 1024)
        with FlopCounterMode(display=False) as encoding:
            sources = network.encode(images, features)
        with FlopCounterMode(display=False) as rendering:
            network.render(sources, torch.empty(1, 1, *size, 6))
    encoding, rendering = encoding.get_total_flops(), rendering.get_total_flops()
    assert rendering == pytest.approx(2.293e12, rel=1e-3)
    dinov2 = 4 * 24 * 1029 * (2 * 12 * 1024**2 + 4 * 1029 * 1024)
    assert encoding + rendering + dinov2 == pytest.approx(12.249e12, rel=1e-3)
    assert source_flops(config, 4, size) == pytest.approx(encoding, rel=1e-6)
    assert target_flops(config, 4, size) == pytest.approx(rendering, rel=1e-6)
    assert sources.nbytes == cache_bytes(config, 4, size) and cache_bytes(config, 4, size, 2) == 404_619_264
    assert parameters_of(config) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("attention", ["causal", "full"])
def test_operations_of_a_small_network_are_counted_too(attention):
    config, size = tiny_config(attention=attention), (24, 40)
    with torch.device("meta"):  # where no fused kernel hides its products from the counter
        network = Rng(config).requires_grad_(False)
        with FlopCounterMode(display=False) as encoding:
            sources = network.encode(torch.empty(1, 3, 3, *size))
        with FlopCounterMode(display=False) as rendering:
            network.render(sources, torch.empty(1, 2, *size, 6))
    assert source_flops(config, 3, size) == encoding.get_total_flops()
    assert 2 * target_flops(config, 3, size) == rendering.get_total_flops()
