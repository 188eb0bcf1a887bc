"""View sampling, augmentation and batches."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.transforms import Augmentation, augment, mirror_world
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.rays import project
from kaleidoscene.images.pixels import resize_image
from tests.conftest import ring


def counts(sampling, draws=20_000):
    generator = torch.Generator().manual_seed(0)
    return [sampling.sample(generator) for _ in range(draws)]


def test_exponential_sampling_halves_with_every_reference():
    found = (
        torch.bincount(torch.tensor([c.references for c in counts(ViewSampling(masking="none"))]), minlength=12)
        / 20_000
    )
    weights = 0.5 ** torch.arange(1, 12.0)
    expected = torch.cat([torch.zeros(1), weights / weights.sum()])
    torch.testing.assert_close(found, expected, rtol=0, atol=0.012)
    assert expected[1].item() == pytest.approx(0.5002, abs=1e-4)


def test_masking_has_the_stated_marginals():
    """P(n = 1), P(2), P(3) and the mean of m for V = 12 (method A.7)."""
    drawn = counts(ViewSampling(masking="drop"))
    n = torch.bincount(torch.tensor([c.visible_references for c in drawn]), minlength=12) / len(drawn)
    torch.testing.assert_close(n[1:4], torch.tensor([0.693, 0.193, 0.068]), rtol=0, atol=0.012)
    mean = sum(c.visible_targets for c in drawn) / len(drawn)
    assert mean == pytest.approx(5.5, abs=0.15)
    assert {c.visible_targets for c in drawn} == set(range(1, 12))


def test_fixed_and_uniform_sampling():
    assert {c.references for c in counts(ViewSampling(kind="fixed"), 50)} == {6}
    found = (
        torch.bincount(torch.tensor([c.references for c in counts(ViewSampling(kind="uniform"))]), minlength=12)
        / 20_000
    )
    torch.testing.assert_close(found[1:], torch.full((11,), 1 / 11), rtol=0, atol=0.01)


def test_a_fixed_number_of_targets_beside_any_number_of_references():
    """RnG's one to six sources and three targets; nothing is left to chance but the sources."""
    drawn = counts(ViewSampling(views=9, kind="uniform", masking="none", max_targets=3), 12_000)
    assert {(c.targets, c.visible_targets) for c in drawn} == {(3, 3)}
    n = torch.bincount(torch.tensor([c.visible_references for c in drawn]), minlength=8) / len(drawn)
    torch.testing.assert_close(n[1:7], torch.full((6,), 1 / 6), rtol=0, atol=0.015)
    assert float(n[[0, 7]].sum()) == 0
    sampling = ViewSampling(views=9, kind="uniform", masking="none", max_targets=3)
    assert sampling.mean_views() == pytest.approx(6.5, abs=0.1)
    for wrong in (0, 9):
        with pytest.raises(ValueError, match="max_targets must be from 1 to below 9 views"):
            replace(sampling, max_targets=wrong)


def test_scene_masks_keep_one_reference_and_one_target_at_least_and_differ():
    generator = torch.Generator().manual_seed(1)
    different = 0
    for _ in range(50):
        n, m, present = ViewSampling(views=7, masking="scene").sample_batch(5, generator)
        assert n + m == 7 and present is not None
        assert present[:, :n].any(1).all() and present[:, n:].any(1).all()
        different += int(present.unique(dim=0).shape[0] > 1)
    assert different > 30


@pytest.mark.parametrize("seed", range(5))
def test_a_mirrored_world_sees_mirrored_images(seed):
    cameras = ring(4, (10, 16), seed=seed)
    cameras.intrinsics[:, 0, 2] += 1.5  # a principal point off the middle must change sides
    points = 0.3 * torch.randn(4, 6, 3)
    before, depth = project(cameras, points)
    after, depth_after = project(mirror_world(cameras), points * torch.tensor([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(after[..., 0], 16 - before[..., 0], rtol=0, atol=1e-4)
    torch.testing.assert_close(after[..., 1], before[..., 1], rtol=0, atol=1e-4)
    torch.testing.assert_close(depth_after, depth)


def test_augmentation_is_one_for_all_views_and_none_is_none():
    rgba = torch.rand(3, 4, 10, 16)
    cameras = ring(3, (10, 16))
    plain, same, mirrored = augment(rgba, cameras, Augmentation.none(), torch.Generator().manual_seed(0))
    assert not mirrored and same is cameras
    torch.testing.assert_close(plain, rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:])
    equal = rgba[:1].expand(3, -1, -1, -1)
    for seed in range(10):
        images, _, _ = augment(equal, cameras, Augmentation(), torch.Generator().manual_seed(seed))
        assert images[0].equal(images[2])


def scenes(number, views=5, size=(6, 10)):
    generator = np.random.default_rng(number)
    rgba = generator.integers(0, 256, (views, *size, 4), dtype=np.uint8)
    depth = generator.random((views, *size), dtype=np.float32) * 3
    return StoredScene(f"scene-{number:03d}", rgba, ring(views, size, seed=number), depth)


@pytest.fixture
def shards(tmp_path):
    for shard in range(2):
        write_shard(tmp_path / f"shard-{shard:06d}.tar", [scenes(4 * shard + n) for n in range(4)])
    return ShardFolder(tmp_path)


def batch_config(**changes):
    values = dict(batch_size=3, sampling=ViewSampling(views=4, masking="drop"), reference_dropout=0.3)
    return BatchConfig(**{**values, **changes})


def test_a_batch_is_a_function_of_its_step(shards):
    first, second = ViewBatches(shards, batch_config()), ViewBatches(shards, batch_config())
    for step in (7, 0, 3):
        a, b = first[step], second[step]
        assert a.ids == b.ids and a.num_references == b.num_references
        assert a.images.equal(b.images)
    assert not first[1].images.shape == first[2].images.shape or not first[1].images.equal(first[2].images)
    assert first[0].ids != ViewBatches(shards, batch_config(seed=1))[0].ids


def test_every_scene_comes_once_an_epoch(shards):
    batches = ViewBatches(shards, batch_config(batch_size=4))
    for epoch in range(3):
        assert sorted(batches[2 * epoch].ids + batches[2 * epoch + 1].ids) == [f"scene-{n:03d}" for n in range(8)]


def test_references_are_dropped_at_the_stated_rate(shards):
    batches = ViewBatches(shards, batch_config(batch_size=1))
    share = sum(batches[step].num_references == 0 for step in range(300)) / 300
    assert share == pytest.approx(0.3, abs=0.08)


def test_workers_make_the_same_batches(shards):
    batches = ViewBatches(shards, batch_config())
    here = [batch.images for batch in batches.loader(range(2, 6), workers=0)]
    there = [batch.images for batch in batches.loader(range(2, 6), workers=2)]
    assert all(a.equal(b) for a, b in zip(here, there, strict=True))


def test_batches_at_another_size_carry_their_cameras(shards):
    small = ViewBatches(shards, batch_config(image_size=(3, 5)))[0]
    full = ViewBatches(shards, batch_config())[0]
    torch.testing.assert_close(small.images, resize_image(full.images, (3, 5)))
    assert small.cameras is not None and full.cameras is not None
    torch.testing.assert_close(small.cameras.intrinsics[..., :2, :], full.cameras.intrinsics[..., :2, :] / 2)


def test_too_few_scenes_or_views_are_refused(shards):
    with pytest.raises(KaleidosceneError, match="8 scenes, a batch needs 9"):
        ViewBatches(shards, batch_config(batch_size=9))
    with pytest.raises(KaleidosceneError, match="5 views, training needs 6"):
        ViewBatches(shards, batch_config(sampling=ViewSampling(views=6)))
    with pytest.raises(ValueError, match="at least 2"):
        ViewSampling(views=1)
    assert math.isclose(ViewSampling().rate, math.log(2))


def test_masks_and_depth_follow_their_images(shards):
    """Mirrored with the image, and still true to the cameras: depth is that of the stored view."""
    mirror = Augmentation(permute_colours=0.0, gamma=0.0, mirror=1.0, random_background=0.0)
    plain = ViewBatches(shards, batch_config(depth=True, augmentation=Augmentation.none()))[2]
    flipped = ViewBatches(shards, batch_config(depth=True, augmentation=mirror))[2]
    assert plain.ids == flipped.ids and plain.depth is not None and flipped.depth is not None
    torch.testing.assert_close(flipped.depth, plain.depth.flip(-1))
    torch.testing.assert_close(flipped.mask, plain.mask.flip(-1))
    torch.testing.assert_close(flipped.images, plain.images.flip(-1))
