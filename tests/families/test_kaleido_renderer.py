"""Rendering with random weights: caching, chunking, guidance, determinism."""

from dataclasses import replace

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.rendering.ordering import RenderPlan, render_in_order
from tests.conftest import CAUSAL, ring, tiny_renderer

REFS, TARGETS = 3, 5


def scene_inputs(seed=0):
    cameras = ring(REFS + TARGETS, seed=seed)
    images = torch.rand(1, REFS, 3, 16, 24, generator=torch.Generator().manual_seed(seed))
    return images, cameras[:REFS].reshape(1, REFS), cameras[REFS:].reshape(1, TARGETS)


def render(renderer, seeds=range(TARGETS), **kwargs):
    images, references, targets = scene_inputs()
    return renderer.render(renderer.encode(images, references), targets, seeds=list(seeds), **kwargs).images


@pytest.mark.parametrize("depths", [0, 9])
@pytest.mark.parametrize("guidance", [1.0, 1.5])
@pytest.mark.parametrize("independent", [False, True])
def test_cached_equals_uncached_over_a_whole_sampling_run(guidance, independent, depths):
    changes = dict(**CAUSAL, guidance=guidance, reprojection_depths=depths)
    cached = render(tiny_renderer(**changes), independent=independent)
    plain = render(tiny_renderer(**changes, use_cache=False), independent=independent)
    torch.testing.assert_close(cached, plain, rtol=0, atol=1e-4)  # observed 4e-6
    assert cached.std() > 0.05


def test_a_bidirectional_model_refuses_a_cached_renderer():
    with pytest.raises(KaleidosceneError, match="no exact reference cache"):
        tiny_renderer(use_cache=True)


@pytest.mark.parametrize("changes", [{}, CAUSAL])
def test_the_same_seed_gives_the_same_images_and_another_does_not(changes):
    renderer = tiny_renderer(**changes)
    assert render(renderer).equal(render(renderer))
    assert (render(renderer, seeds=range(5, 10)) - render(renderer)).abs().max() > 1e-3
    large = range(20_250_101_123_456 * 1_000_003, 20_250_101_123_456 * 1_000_003 + 5)  # more than 64 bits
    assert render(renderer, seeds=large).isfinite().all()


@pytest.mark.parametrize("changes", [{}, CAUSAL])
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_independent_targets_do_not_depend_on_the_chunking(changes, chunk):
    renderer = tiny_renderer(**changes)
    images, references, targets = scene_inputs()
    scene = renderer.encode(images, references)
    results = []
    for size in (None, chunk):
        plan = RenderPlan(mode="independent", chunk=size)
        chunks = render_in_order(renderer, scene, references[0], targets[0], plan, seed=3)
        results.append(torch.cat([c.images for c in chunks]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-4)


def test_joint_targets_do_see_each_other():
    renderer = tiny_renderer(**CAUSAL)
    assert (render(renderer) - render(renderer, independent=True)).abs().max() > 1e-3


def test_the_world_frame_does_not_change_the_pictures():
    renderer = tiny_renderer(**CAUSAL)
    images, references, targets = scene_inputs()
    before = render(renderer)
    turn = random_rigid(translation=0.0)  # the origin stays: it is part of the scene (open choice E3)

    def moved(cameras: Cameras) -> Cameras:
        return replace(cameras, world_from_cam=turn @ cameras.world_from_cam)

    scene = renderer.encode(images, moved(references))
    after = renderer.render(scene, moved(targets), seeds=list(range(TARGETS))).images
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3)


def test_the_unit_of_the_world_does_not_change_the_pictures():
    renderer = tiny_renderer(**CAUSAL)
    images, references, targets = scene_inputs()

    def scaled(cameras: Cameras) -> Cameras:
        poses = cameras.world_from_cam.clone()
        poses[..., :3, 3] *= 37.0
        return replace(cameras, world_from_cam=poses)

    scene = renderer.encode(images, scaled(references))
    after = renderer.render(scene, scaled(targets), seeds=list(range(TARGETS))).images
    torch.testing.assert_close(after, render(renderer), rtol=0, atol=1e-4)


def test_guidance_zero_ignores_the_references():
    renderer = tiny_renderer(**CAUSAL, guidance=0.0)
    images, references, targets = scene_inputs()
    one = renderer.render(renderer.encode(images, references), targets, seeds=list(range(TARGETS))).images
    other = renderer.render(renderer.encode(1 - images, references), targets, seeds=list(range(TARGETS))).images
    assert one.equal(other)


@pytest.mark.parametrize("changes", [{}, CAUSAL])
@pytest.mark.parametrize("order", ["trajectory", "nearest"])
def test_autoregressive_rendering_visits_every_target_once_with_bounded_references(changes, order):
    renderer = tiny_renderer(**changes, steps=1, guidance=1.0)
    images, references, targets = scene_inputs()
    seen = []
    original = renderer.render

    def spy(scene, cameras, **kwargs):
        seen.append(scene.num_references)
        return original(scene, cameras, **kwargs)

    renderer.render = spy
    plan = RenderPlan(mode="autoregressive", chunk=1, order=order, max_references=5)
    scene = renderer.encode(images, references)
    chunks = list(render_in_order(renderer, scene, references[0], targets[0], plan, seed=0))
    assert sorted(i for c in chunks for i in c.indices) == list(range(TARGETS))
    assert seen == [3, 4, 5, 5, 5]


@pytest.mark.parametrize("mode", ["independent", "autoregressive"])
def test_a_scale_from_all_views_is_that_of_all_chunks(mode):
    """One scale for the whole request: chunks of one, the farthest target in the last, give what one call gives."""
    images, references, targets = scene_inputs()
    far = targets.world_from_cam.clone()
    far[:, -1, :3, 3] *= 3
    targets = replace(targets, world_from_cam=far)
    renderer, seen = tiny_renderer(steps=1, guidance=1.0, scale_from="all"), []
    original = renderer.render

    def spy(scene, cameras, **kwargs):
        seen.append(scene.normalisation.scale)
        return original(scene, cameras, **kwargs)

    renderer.render = spy
    scene, out = renderer.encode(images, references), {}
    for chunk in (1, TARGETS):
        plan = RenderPlan(mode=mode, chunk=chunk, max_references=9)
        chunks = list(render_in_order(renderer, scene, references[0], targets[0], plan, seed=0))
        out[chunk] = torch.cat([c.images for c in chunks])
    assert len(seen) == TARGETS + 1 and all(scale.equal(seen[0]) for scale in seen)
    assert not seen[0].equal(scene.normalisation.scale)
    if mode == "independent":
        torch.testing.assert_close(out[1], out[TARGETS], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("order", "depths"), [("trajectory", 0), ("nearest", 0), ("nearest", 9)])
def test_autoregressive_cached_equals_uncached(order, depths):
    """Over a whole run in which references come and go."""
    images, references, targets = scene_inputs()
    results = []
    for use_cache in (True, False):
        renderer = tiny_renderer(**CAUSAL, use_cache=use_cache, steps=2, reprojection_depths=depths)
        plan = RenderPlan(mode="autoregressive", chunk=1, order=order, max_references=5)
        scene = renderer.encode(images, references)
        chunks = list(render_in_order(renderer, scene, references[0], targets[0], plan, seed=0))
        results.append(torch.cat([c.images for c in chunks]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-3)


def test_the_papers_scale_takes_targets_in():
    """scale_from='all': moving a target away changes how the others look; from references it does not."""
    images, references, targets = scene_inputs()
    far = targets.world_from_cam.clone()
    far[:, -1, :3, 3] *= 3
    changed = {}
    for scale_from in ("references", "all"):
        renderer = tiny_renderer(steps=1, guidance=1.0, scale_from=scale_from)
        scene = renderer.encode(images, references)
        one = renderer.render(scene, targets, seeds=[0] * TARGETS, independent=False).images
        other = renderer.render(scene, replace(targets, world_from_cam=far), seeds=[0] * TARGETS).images
        alone = renderer.render(scene, targets[:, :1], seeds=[0]).images
        changed[scale_from] = (one[:, 0] - other[:, 0]).abs().max()
        assert torch.isfinite(alone).all()
    assert changed["all"] > 1e-4


def test_zero_targets_and_wrong_seeds_are_refused():
    renderer = tiny_renderer(**CAUSAL)
    images, references, targets = scene_inputs()
    scene = renderer.encode(images, references)
    with pytest.raises(KaleidosceneError, match="zero targets"):
        renderer.render(scene, targets[:, :0], seeds=[])
    with pytest.raises(KaleidosceneError, match="5 targets need as many seeds, got 2"):
        renderer.render(scene, targets, seeds=[0, 1])
    with pytest.raises(KaleidosceneError, match="do not match in number"):
        renderer.encode(images, references[:, :2])
    with pytest.raises(KaleidosceneError, match="zero targets"):
        list(render_in_order(renderer, scene, references[0], targets[0, :0], RenderPlan(), seed=0))
