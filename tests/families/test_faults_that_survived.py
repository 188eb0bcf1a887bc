"""Faults that were once put into the code and that no test noticed; each of these fails with one of them."""

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.scenes import prepare_scene
from kaleidoscene.datasets.shard_index import Stock
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.batch_positions import normalised, positions_of
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.recipes.ablations import ablation_recipes, nano_scale
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.scene import scale_of_all
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from kaleidoscene.families.kaleido.video import continue_video
from kaleidoscene.flow.timesteps import TimestepSampler
from kaleidoscene.geometry.alignment import umeyama
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import FARTHEST_TARGET, SceneNormalisation
from kaleidoscene.geometry.poses import random_rigid
from kaleidoscene.nn.gta import Frequencies, view_transforms
from kaleidoscene.nn.kv_cache import KVCache
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.windows import Windows
from tests.conftest import CAUSAL, randomised, ring, tiny_config, tiny_renderer

SIZE = (16, 24)


def test_targets_get_the_null_features_and_nothing_else():
    model = randomised(Kaleido(tiny_config(feature_channels=5)))
    embedder = model.embedder
    patches, features = torch.randn(2, 4, 24, 48), torch.randn(2, 4, 24, 5)
    is_target = torch.tensor([False, False, True, True])
    tangents = torch.zeros(2, 4, 24, 2)
    out = embedder(patches, features, is_target, tangents)
    other = features.clone()
    other[:, 2:] += 3.0
    assert embedder(patches, other, is_target, tangents).equal(out)
    null = embedder.null_feature.expand(2, 4, 24, 5)
    mixed = torch.cat([features[:, :2], null[:, 2:]], 1)
    assert embedder(patches, mixed, torch.zeros(4, dtype=torch.bool), tangents)[:, 2:].shape == out[:, 2:].shape
    role = embedder.role.weight
    plain = embedder(patches, mixed, torch.zeros(4, dtype=torch.bool), tangents)[:, 2:] - role[0] + role[1]
    torch.testing.assert_close(plain, out[:, 2:])


def test_a_clip_turns_once_in_its_length():
    """theta_t = 2 pi n / T: the first band of octaves turns by a quarter in a quarter of the clip."""
    times = torch.tensor([[0.0, 0.25]])
    found = view_transforms(ViewPositions.from_times(times), 8, time_frequencies=Frequencies())
    quarter = found.query[0, 1, :2, :2]
    torch.testing.assert_close(quarter.abs(), torch.tensor([[0.0, 1.0], [1.0, 0.0]]), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.query[0, 0], torch.eye(8))


class _Colours:
    """Features that tell the images apart."""

    def __call__(self, images):
        return images.mean((-2, -1))[:, :, None].expand(-1, -1, 24, -1)


def test_the_renderer_gives_the_features_of_its_references_to_the_network():
    plain = tiny_renderer(feature_channels=3, steps=1, guidance=1.0)
    renderer = KaleidoRenderer(plain.model, plain.settings, plain.parts.codec, _Colours())
    images, cameras = torch.rand(1, 2, 3, *SIZE), ring(4, SIZE, batch=(1,))
    scene = renderer.encode(images, cameras[:, :2])
    torch.testing.assert_close(scene.features[0, :, 0], images[0].mean((-2, -1)))
    without = replace(scene, features=torch.zeros_like(scene.features))
    one, other = (renderer.render(s, cameras[:, 2:], seeds=[0, 1]).images for s in (scene, without))
    assert (one - other).abs().max() > 1e-4


def test_the_papers_scale_counts_references_as_well_as_targets():
    references, targets = ring(3, SIZE, batch=(1,)), ring(2, SIZE, seed=1, batch=(1,))
    far = references.world_from_cam.clone()
    far[:, 1, :3, 3] *= 5
    origin = torch.zeros(1, 3)
    far = replace(references, world_from_cam=far)
    assert scale_of_all(far, targets, origin).scale.item() == pytest.approx(far.centres[0, 1].norm().item())
    assert scale_of_all(targets, far, origin).scale.item() == pytest.approx(far.centres[0, 1].norm().item())


@pytest.mark.parametrize("use_cache", [True, False])
def test_scenes_of_a_batch_keep_their_order_when_targets_are_rendered_alone(use_cache):
    """Two scenes at once, every target for itself: each is the one of its own scene."""
    renderer = tiny_renderer(**CAUSAL, steps=1, guidance=1.0, use_cache=use_cache)
    images, cameras = torch.rand(2, 2, 3, *SIZE), ring(5, SIZE, batch=(2,))
    both = renderer.render(
        renderer.encode(images, cameras[:, :2]), cameras[:, 2:], seeds=[0, 1, 2], independent=True
    ).images
    for scene in range(2):
        at = slice(scene, scene + 1)
        made = renderer.encode(images[at], cameras[at, :2])
        for target in range(3):
            # The noise of a seed is drawn for the whole batch: one step of data from noise differs, the scene does not.
            alone = renderer.render(made, cameras[at, 2 + target : 3 + target], seeds=[target], independent=True).images
            if scene == 0:
                torch.testing.assert_close(both[at, target : target + 1], alone, rtol=0, atol=1e-4)
    swapped = renderer.render(
        renderer.encode(images.flip(0), Cameras(cameras.world_from_cam.flip(0)[:, :2],
                                                cameras.intrinsics.flip(0)[:, :2], SIZE)),
        Cameras(cameras.world_from_cam.flip(0)[:, 2:], cameras.intrinsics.flip(0)[:, 2:], SIZE),
        seeds=[0, 1, 2], independent=True,
    ).images  # fmt: skip
    assert (swapped[1] - both[1]).abs().max() > 1e-4


def test_a_cache_is_expanded_scene_by_scene():
    cache = KVCache(torch.arange(6.0).view(1, 2, 1, 1, 1, 3), torch.arange(6.0).view(1, 2, 1, 1, 1, 3), 1)
    assert cache.expand(2).keys[0, :, 0, 0, 0, 0].tolist() == [0.0, 0.0, 3.0, 3.0]


def test_a_video_is_continued_with_guidance():
    frames = torch.rand(1, 3, 3, *SIZE)
    plain, guided = (tiny_renderer(steps=2, guidance=scale) for scale in (1.0, 2.5))
    made = [continue_video(renderer, frames, 2, clip=8, seeds=[4, 5]) for renderer in (plain, guided)]
    assert (made[0] - made[1]).abs().max() > 1e-4


def test_logit_normal_times_are_shifted_too():
    generator = torch.Generator().manual_seed(0)
    times = TimestepSampler(distribution="logit_normal", shift=3.0).sample(20_000, generator)
    assert times.median().item() == pytest.approx(0.75, abs=0.02)  # m(1/2, 3)


def test_scenes_of_a_mixed_batch_keep_their_lens():
    cameras = Cameras.stack([ring(2, SIZE), Cameras.from_field_of_view(ring(2, SIZE).world_from_cam, 0.4, SIZE)])
    views = Views(
        images=torch.rand(2, 2, 3, *SIZE), cameras=cameras, times=torch.tensor([[0.0, 0.5], [0.0, 0.0]]),
        is_video=torch.tensor([True, False]), num_references=1,
    )  # fmt: skip
    positions = positions_of(views, "references")
    expected = cameras.intrinsics[1, 0, 1, 1] / SIZE[0]
    torch.testing.assert_close(positions.lens[1, 0, 1], expected)
    assert positions.lens[0, 0, 1] != expected  # a video has the nominal one


def test_unknown_names_are_refused_where_they_are_given():
    """In a process of its own: here types are checked before the code is asked."""
    script = """
import torch
from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.scenes import prepare_scene
from kaleidoscene.datasets.shard_index import Stock
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.datasets.views import Views
from kaleidoscene.families.kaleido.config import EncodingConfig, KaleidoConfig
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.flow.timesteps import TimestepSampler
from kaleidoscene.nn.gta import Frequencies
from kaleidoscene.training.config import TrainConfig
for make, said in (
    (lambda: TimestepSampler(distribution="bogus"), "Unknown distribution"),
    (lambda: Schedule(kind="linear-quadratic"), "did you mean 'linear_quadratic'?"),
    (lambda: Frequencies(kind="octaves"), "did you mean 'octave'?"),
    (lambda: EncodingConfig(pose="gtaa"), "did you mean 'gta'?"),
    (lambda: EncodingConfig(time_frequencies=Frequencies(kind="rope")), "cannot be 'rope'"),
    (lambda: KaleidoConfig(width=64, depth=1, kv_heads=1, modulation="ful"), "did you mean 'full'?"),
    (lambda: TrainConfig(sharding="fsdp2"), "did you mean 'fsdp'?"),
    (lambda: Views(images=torch.rand(1, 2, 3, 4, 6), cameras=None, times=torch.zeros(1, 2), num_references=1,
                   is_video=torch.ones(1, dtype=torch.bool), mask=torch.ones(1, 2, 4, 5)), "mask is (1, 2, 4, 5)"),
):
    try:
        make()
    except ValueError as error:
        assert said in str(error), error
    else:
        raise AssertionError(said)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_baselines_of_the_ablation_transform_no_values():
    recipes = ablation_recipes(nano_scale(), features=False)
    for name, expected in (("baseline", False), ("swiglu-gqa", False), ("plucker", False), ("gta", True)):
        assert recipes[name].settings.model.encoding.transform_values is expected, name


def test_without_a_timestep_nothing_depends_on_it():
    model = randomised(Kaleido(tiny_config(modulation="none")))
    latents, positions = torch.randn(1, 3, 48, 4, 6), ViewPositions.from_poses(random_rigid(1, 3))
    assert model(latents, torch.tensor([0.1]), positions, 1).equal(model(latents, torch.tensor([0.9]), positions, 1))


@pytest.mark.parametrize("changes", [{}, CAUSAL, dict(window=2, registers=2), dict(ray_bias=True)])
def test_the_world_frame_does_not_matter_to_ten_digits(changes):
    """Geometry keeps the precision it is given: in fp64 the law holds to 1e-10."""
    model = randomised(Kaleido(tiny_config(**changes))).double()
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, 48, 4, 6, dtype=torch.float64, generator=generator)
    poses = random_rigid(2, 4, dtype=torch.float64, generator=generator, translation=0.5)
    # About the scene's origin, which rays are counted from.
    turn = random_rigid(dtype=torch.float64, generator=generator, translation=0.0 if "ray_bias" in changes else 1.0)
    t = torch.tensor([0.3, 0.8], dtype=torch.float64)
    before = model(latents, t, ViewPositions.from_poses(poses), 2)
    after = model(latents, t, ViewPositions.from_poses(poses @ turn), 2)
    assert before.dtype == torch.float64
    torch.testing.assert_close(after, before, rtol=0, atol=1e-10)


def _track(step: tuple[float, float, float], count: int) -> Cameras:
    poses = torch.eye(4).repeat(1, count, 1, 1)
    poses[..., :3, 3] = torch.tensor(step) * (torch.arange(count) - count // 2)[:, None]
    return Cameras.from_field_of_view(poses, 0.857, SIZE)


@pytest.mark.parametrize("step", [(0.5, 0.0, 0.0), (0.0, 0.0, 0.5)], ids=["parallel track", "forward"])
@pytest.mark.parametrize("changes", [{}, CAUSAL])
def test_a_reference_at_the_origin_bounds_no_scene_away(step, changes):
    """The only reference stands in the middle of the track: targets stay within a bound, and chunks change nothing."""
    cameras, renderer = _track(step, 9), tiny_renderer(**changes, steps=1, guidance=1.0)
    scene = renderer.encode(torch.rand(1, 1, 3, *SIZE), cameras[:, 4:5])
    targets = cameras[:, [0, 8]]
    ready = renderer.expect(scene, targets)
    norms = ready.normalisation.normalise(targets).centres.norm(dim=-1)
    assert norms.max().item() == pytest.approx(FARTHEST_TARGET)
    together = renderer.render(ready, targets, seeds=[0, 1], independent=True).images
    alone = renderer.render(ready, targets[:, 1:], seeds=[1], independent=True).images
    torch.testing.assert_close(together[:, 1:], alone, rtol=0, atol=1e-4)
    assert together.isfinite().all()
    still = SceneNormalisation.from_references(cameras[:, 4:5], cameras[:, 4:5], torch.zeros(1, 3))
    assert still.scale.item() == 1


def test_scenes_without_references_keep_the_scale_of_those_that_were_dropped():
    """What guidance trains is what it meets in sampling."""
    cameras = ring(5, SIZE, batch=(2,))
    common = dict(times=None, is_video=torch.zeros(2, dtype=torch.bool))
    whole = Views(images=torch.rand(2, 5, 3, *SIZE), cameras=cameras, num_references=2, **common)
    dropped = Views(
        images=whole.images[:, 2:], cameras=cameras[:, 2:], num_references=0, dropped_cameras=cameras[:, :2], **common
    )
    for scale_from in ("references", "all"):
        torch.testing.assert_close(
            normalised(dropped, scale_from).centres, normalised(whole, scale_from).centres[:, 2:]
        )


def test_references_of_another_size_are_refused():
    renderer = tiny_renderer(**CAUSAL)
    with pytest.raises(KaleidosceneError, match="their cameras are of images of 16x23"):
        renderer.encode(torch.rand(1, 2, 3, *SIZE), ring(2, (16, 23), batch=(1,)))
    assert math.isfinite(renderer.encode(torch.rand(1, 2, 3, *SIZE), ring(2, SIZE, batch=(1,))).nbytes)


def test_rays_of_positions_are_those_of_the_pinhole():
    """Focal lengths and principal points of their own along both sides of an oblong image."""
    at = ring(3, SIZE, batch=(2,))
    matrices = at.intrinsics.clone()
    matrices[..., 0, 0], matrices[..., 1, 1], matrices[..., 0, 2], matrices[..., 1, 2] = 31.0, 17.0, 10.5, 9.0
    tangents = ViewPositions.from_cameras(replace(at, intrinsics=matrices)).tangents(SIZE).reshape(2, 3, *SIZE, 2)
    torch.testing.assert_close(tangents[1, 2, 4, 7], torch.tensor([(7.5 - 10.5) / 31, (4.5 - 9) / 17]))


@pytest.mark.parametrize("grid", [(5, 7), (4, 8)])
def test_windows_that_were_cut_are_joined(grid):
    windows = Windows(grid, 4)
    x = torch.randn(2, 3, grid[0] * grid[1], 5, 6)
    cut = windows.cut(x)
    assert cut.shape[2] * cut.shape[3] >= grid[0] * grid[1]
    assert windows.join(cut).equal(x)
    # The first window holds the first columns of the first rows.
    wi, wj = windows.window
    first = x.unflatten(2, grid)[:, :, :wi, :wj].flatten(2, 3)
    assert cut[:, :, 0].equal(first)


def test_a_loss_weighs_as_much_as_it_has_targets():
    settings = KaleidoSettings(model=tiny_config(), codec=CodecConfig(factor=4), image_size=SIZE)
    task = KaleidoTask(settings, KaleidoLoss(), codec=PixelCodec(4))
    batch = Views(
        images=torch.rand(2, 5, 3, *SIZE), cameras=ring(5, SIZE, batch=(2,)), times=None,
        is_video=torch.zeros(2, dtype=torch.bool), num_references=2,
    )  # fmt: skip
    assert task.weight(batch) == 2 * 3
    present = torch.tensor([[True, False, True, True, False], [True, True, False, True, True]])
    assert task.weight(replace(batch, present=present)) == 2 + 2


def test_points_that_lie_on_a_line_but_for_rounding_align_nothing():
    along = torch.tensor([[-1.0], [0.3], [0.9], [2.0]], dtype=torch.float64)
    line = along @ torch.tensor([[0.3, -0.7, 0.2]], dtype=torch.float64)
    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.raises(KaleidosceneError, match="the points lie on one line"):
        umeyama(line, line + 1e-16 * noise)
    assert umeyama(line + 1e-3 * noise, line + 1e-3 * noise).scale.item() == pytest.approx(1)


def test_of_references_and_targets_that_may_be_shown_every_number_is_as_likely():
    """In batches whose scenes hide views of their own: from one to all of them."""
    sampling, generator = ViewSampling(views=7, kind="fixed", masking="scene"), torch.Generator().manual_seed(0)
    n, m, present = sampling.sample_batch(3000, generator)
    assert (n, m) == (3, 4) and present is not None
    for shown, most in ((present[:, :n].sum(1), n), (present[:, n:].sum(1), m)):
        counts = torch.bincount(shown, minlength=most + 1)[1:].float() / 3000
        torch.testing.assert_close(counts, torch.full((most,), 1 / most), rtol=0, atol=0.03)


def test_a_clip_may_begin_anywhere_in_its_video():
    """Seven neighbouring frames of nine begin at the first, second or third; times are places in the clip."""
    began = set()

    def read(order):
        began.add(min(order))
        assert max(order) - min(order) == 6 and len(order) == 7
        return StoredScene("clip", np.zeros((7, 4, 6, 4), np.uint8), None, times=tuple(order))

    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        scene = prepare_scene(read, Stock(9, True), 7, 7, None, Augmentation.none(), generator)
        assert scene.times is not None and scene.times.sort().values.equal(torch.arange(7) / 7)
    assert began == {0, 1, 2}
