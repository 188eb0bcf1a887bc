"""View sampling, augmentation, shards and batches."""

import errno
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from anyview.data.batches import BatchConfig, ViewBatches
from anyview.data.images import resize_image
from anyview.data.sampling import ViewSampling
from anyview.data.shard_index import ShardIndex
from anyview.data.shards import ShardFolder, StoredScene, write_shard
from anyview.data.transforms import Augmentation, augment, mirror_world
from anyview.errors import AnyViewError
from anyview.geometry.rays import project
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


def test_shards_give_back_what_was_written(shards):
    assert len(shards) == 8 and shards.num_views(3) == 5
    back, original = shards.read(6, [4, 1], depth=True), scenes(6)
    assert back.key == "scene-006"
    np.testing.assert_array_equal(back.rgba, original.rgba[[4, 1]])
    assert torch.equal(back.cameras.world_from_cam, original.cameras.world_from_cam[[4, 1]])
    np.testing.assert_allclose(back.depth, original.depth[[4, 1]], atol=3 / 65535)


def test_shards_are_plain_tars_in_webdataset_layout(shards):
    import tarfile

    with tarfile.open(shards.folder / "shard-000000.tar") as tar:
        names = tar.getnames()
    assert names[:3] == ["scene-000.scene.json", "scene-000.000.png", "scene-000.000.depth.png"]


def test_a_shard_without_index_does_not_count(shards):
    (shards.folder / "shard-000001.index.json").unlink()
    assert len(ShardFolder(shards.folder)) == 4
    (shards.folder / "shard-000000.index.json").unlink()
    with pytest.raises(AnyViewError, match="no shards here"):
        ShardFolder(shards.folder)


def test_a_catalogue_stands_for_the_indices_it_was_made_of(shards, monkeypatch):
    """A second start reads none of them, and one that has changed is read again."""
    from anyview.data import shards as module

    read = []
    inner = module.ShardIndex
    monkeypatch.setattr(module, "ShardIndex", lambda path: (read.append(path.name), inner(path))[1])
    again = ShardFolder(shards.folder)
    assert not read and again.fingerprint == shards.fingerprint and len(again) == 8 and again.fewest_views == 5
    assert again.key(5) == "scene-005" and read == ["shard-000001.index.json"]
    write_shard(shards.folder / "shard-000001.tar", [scenes(n, views=4) for n in (9, 10)])
    read.clear()
    changed = ShardFolder(shards.folder)
    assert read == ["shard-000001.index.json"] and len(changed) == 6 and changed.fewest_views == 4
    (shards.folder / "catalogue.json").write_text('{"version": 1, "shards": {"shard-000000.index.json": 3}}')
    assert ShardFolder(shards.folder).fingerprint == changed.fingerprint != shards.fingerprint
    (shards.folder / "catalogue.json").unlink()
    (shards.folder / "catalogue.json").mkdir()  # cannot be written: every start reads the indices
    with pytest.warns(UserWarning, match="catalogue.json cannot be written .*every start reads all indices"):
        assert ShardFolder(shards.folder).fingerprint == changed.fingerprint
    assert sorted(path.name for path in shards.folder.iterdir() if "partial" in path.name) == []


def test_shards_on_a_read_only_file_system_are_read(shards, monkeypatch):
    """Where even removing what is not there is refused."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    (shards.folder / "catalogue.json").unlink()
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match="Read-only file system"):
        assert ShardFolder(shards.folder).fingerprint == shards.fingerprint


def test_an_index_of_the_first_version_reads_like_one_of_today(shards):
    """One line for all scenes, at first without their numbers of views; and both kinds side by side."""
    path = shards.folder / "shard-000000.index.json"
    now = ShardIndex(path)
    places = [now.members(n) for n in range(len(now.keys))]
    members = {f"{key}.{name}": at for key, at_of in zip(now.keys, places, strict=True) for name, at in at_of.items()}
    before = {"format_version": 1, "keys": now.keys, "members": members}
    path.write_text(json.dumps(before))
    old = ShardIndex(path)
    assert (old.keys, old.stock, old.end) == (now.keys, now.stock, now.end) and old.stock[0].views == 5
    assert [old.members(n) for n in range(len(now.keys))] == places
    again = ShardFolder(shards.folder)
    for scene in range(8):
        np.testing.assert_array_equal(again.read(scene, [3]).rgba, scenes(scene).rgba[[3]])
    for version in (3, None):
        path.write_text(json.dumps({**before, "format_version": version}))
        with pytest.raises(AnyViewError, match=f"shard format {version}, expected 2"):
            ShardIndex(path)


def test_names_with_dots_keep_their_members(tmp_path):
    """WebDataset ends a key at its first dot; ours are read by the names they were written under."""
    named = [replace(scenes(n), key=key) for n, key in enumerate(("a.b", "a", "a.b.c"))]
    write_shard(tmp_path / "shard-000000.tar", named)
    folder = ShardFolder(tmp_path)
    for n, scene in enumerate(named):
        assert folder.key(n) == scene.key and sorted(folder._locate(n)[1].members(n))[0] == "000.depth.png"
        np.testing.assert_array_equal(folder.read(n, [2, 0]).rgba, scene.rgba[[2, 0]])


def test_the_indices_that_were_used_last_are_kept(tmp_path, monkeypatch):
    from anyview.data import shards as module

    monkeypatch.setattr(module, "_KEPT_INDICES", 2)
    for n in range(3):
        write_shard(tmp_path / f"shard-00000{n}.tar", [scenes(n)])
    folder, read = ShardFolder(tmp_path), []
    inner = module.ShardIndex
    monkeypatch.setattr(module, "ShardIndex", lambda path: (read.append(int(path.name[6:12])), inner(path))[1])
    for scene in (0, 1, 0, 2, 0, 1):
        folder.key(scene)
    assert read == [0, 1, 2, 1]


def test_indices_without_scenes_and_links_to_nothing_are_refused_by_name(shards):
    tar = shards.folder / "shard-000001.tar"
    tar.unlink()
    tar.symlink_to(shards.folder / "gone.tar")
    with pytest.raises(AnyViewError, match="shard-000001.tar: the shard is missing or truncated"):
        ShardFolder(shards.folder)
    empty = {"format_version": 1, "keys": [], "views": [], "members": {}}
    (shards.folder / "shard-000000.index.json").write_text(json.dumps(empty))
    with pytest.raises(AnyViewError, match="shard-000000.index.json: an index without scenes"):
        ShardFolder(shards.folder)


def test_the_fingerprint_of_shards_is_that_of_their_contents(tmp_path):
    """Pixels that change change it, although names, counts and places of all members are what they were."""

    def folder(grey):
        scene = StoredScene("a", np.full((4, 6, 9, 4), grey, np.uint8), ring(4, (6, 9)))
        write_shard(tmp_path / str(grey) / "shard-000000.tar", [scene])
        members = ShardIndex(tmp_path / str(grey) / "shard-000000.index.json").members(0)
        return members, ShardFolder(tmp_path / str(grey)).fingerprint

    places, first = folder(7)
    alike = [mark for grey in range(8, 40) for where, mark in [folder(grey)] if where == places]
    assert alike and first not in alike
    assert folder(7) == (places, first)
    with pytest.raises(AnyViewError, match="nothing: no folder of shards that can be read"):
        ShardFolder(tmp_path / "nothing")


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
    with pytest.raises(AnyViewError, match="8 scenes, a batch needs 9"):
        ViewBatches(shards, batch_config(batch_size=9))
    with pytest.raises(AnyViewError, match="5 views, training needs 6"):
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


def test_damaged_shards_are_named(shards):
    tar = shards.folder / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(AnyViewError, match="shard-000001.tar: the shard is missing or truncated"):
        ShardFolder(shards.folder)
    (shards.folder / "shard-000000.index.json").write_text("{")
    with pytest.raises(AnyViewError, match="not a readable index"):
        ShardFolder(shards.folder)
