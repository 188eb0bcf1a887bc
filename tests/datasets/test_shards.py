"""Shards and their indices."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from kaleidoscene.datasets.shard_index import ShardIndex
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import DAMAGE, ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.errors import KaleidosceneError
from tests.conftest import ring
from tests.datasets.test_training_data import scenes, shards  # noqa: F401


def test_shards_give_back_what_was_written(shards):  # noqa: F811
    assert len(shards) == 8 and shards.num_views(3) == 5
    back, original = shards.read(6, [4, 1], depth=True), scenes(6)
    assert back.key == "scene-006"
    np.testing.assert_array_equal(back.rgba, original.rgba[[4, 1]])
    assert torch.equal(back.cameras.world_from_cam, original.cameras.world_from_cam[[4, 1]])
    np.testing.assert_allclose(back.depth, original.depth[[4, 1]], atol=3 / 65535)


def test_scenes_without_depth_have_none_that_is_known(tmp_path):
    stored = replace(scenes(3), depth=None)
    write_shard(tmp_path / "shard-000000.tar", [stored])
    depth = ShardFolder(tmp_path).read(0, [2, 0], depth=True).depth
    assert depth.shape == (2, *stored.rgba.shape[1:3]) and not depth.any()


def test_shards_are_plain_tars_in_webdataset_layout(shards):  # noqa: F811
    import tarfile

    with tarfile.open(shards.folder / "shard-000000.tar") as tar:
        names = tar.getnames()
    assert names[:3] == ["scene-000.scene.json", "scene-000.000.png", "scene-000.000.depth.png"]


def test_a_shard_without_index_does_not_count(shards):  # noqa: F811
    (shards.folder / "shard-000001.index.json").unlink()
    assert len(ShardFolder(shards.folder)) == 4
    (shards.folder / "shard-000000.index.json").unlink()
    with pytest.raises(KaleidosceneError, match="no shards here"):
        ShardFolder(shards.folder)


def test_a_catalogue_stands_for_the_indices_it_was_made_of(shards, monkeypatch):  # noqa: F811
    """A second start reads none of them, and one that has changed is read again."""
    from kaleidoscene.datasets import shards as module

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


def test_shards_on_a_read_only_file_system_are_read(shards, monkeypatch):  # noqa: F811
    """Where even removing what is not there is refused."""

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    (shards.folder / "catalogue.json").unlink()
    monkeypatch.setattr(Path, "write_text", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.warns(UserWarning, match="Read-only file system"):
        assert ShardFolder(shards.folder).fingerprint == shards.fingerprint


def test_an_index_of_the_first_version_reads_like_one_of_today(shards):  # noqa: F811
    """One line for all scenes, at first without their numbers of views; and both kinds side by side."""
    path = shards.folder / "shard-000000.index.json"
    now = ShardIndex(path)
    places = [now.members(n) for n in range(len(now.keys))]
    places = [{name: (start, size, None) for name, (start, size, _) in of.items()} for of in places]
    members = {f"{key}.{name}": at[:2] for key, of in zip(now.keys, places, strict=True) for name, at in of.items()}
    before = {"format_version": 1, "keys": now.keys, "members": members}
    path.write_text(json.dumps(before))
    old = ShardIndex(path)
    assert (old.keys, old.stock, old.end) == (now.keys, now.stock, now.end) and old.stock[0].views == 5
    assert [old.members(n) for n in range(len(now.keys))] == places
    again = ShardFolder(shards.folder)
    for scene in range(8):
        np.testing.assert_array_equal(again.read(scene, [3]).rgba, scenes(scene).rgba[[3]])
    path.write_text(json.dumps({**before, "keys": now.keys[::-1]}))
    with pytest.raises(KaleidosceneError, match="not a readable index"):
        ShardIndex(path)
    for version in (4, None):
        path.write_text(json.dumps({**before, "format_version": version}))
        with pytest.raises(KaleidosceneError, match=f"shard format {version}, expected 3"):
            ShardIndex(path)


def test_an_index_that_is_cut_is_refused_and_a_damaged_line_costs_its_scene(shards):  # noqa: F811
    path = shards.folder / "shard-000000.index.json"
    whole = path.read_bytes()
    header, *lines = whole.splitlines(keepends=True)
    for cut in (whole[:-1], header, header[:-9]):
        path.write_bytes(cut)
        with pytest.raises(KaleidosceneError, match="shard-000000.index.json: not a readable index"):
            ShardFolder(shards.folder)
    for junk in (b"null", b'{"a": 1}', b"{"):
        path.write_bytes(b"".join([header, lines[0], junk.ljust(len(lines[1]) - 1) + b"\n", *lines[2:]]))
        folder = ShardFolder(shards.folder)
        with pytest.raises(DAMAGE):
            folder.read(1)
        np.testing.assert_array_equal(folder.read(2).rgba, scenes(2).rgba)


def test_names_with_dots_keep_their_members(tmp_path):
    """WebDataset ends a key at its first dot; ours are read by the names they were written under."""
    named = [replace(scenes(n), key=key) for n, key in enumerate(("a.b", "a", "a.b.c"))]
    write_shard(tmp_path / "shard-000000.tar", named)
    folder = ShardFolder(tmp_path)
    for n, scene in enumerate(named):
        assert folder.key(n) == scene.key and sorted(folder._locate(n)[1].members(n))[0] == "000.depth.png"
        np.testing.assert_array_equal(folder.read(n, [2, 0]).rgba, scene.rgba[[2, 0]])


def test_the_indices_that_were_used_last_are_kept(tmp_path, monkeypatch):
    from kaleidoscene.datasets import shards as module

    monkeypatch.setattr(module, "_KEPT_INDICES", 2)
    for n in range(3):
        write_shard(tmp_path / f"shard-00000{n}.tar", [scenes(n)])
    folder, read = ShardFolder(tmp_path), []
    inner = module.ShardIndex
    monkeypatch.setattr(module, "ShardIndex", lambda path: (read.append(int(path.name[6:12])), inner(path))[1])
    for scene in (0, 1, 0, 2, 0, 1):
        folder.key(scene)
    assert read == [0, 1, 2, 1]


def test_indices_without_scenes_and_links_to_nothing_are_refused_by_name(shards):  # noqa: F811
    tar = shards.folder / "shard-000001.tar"
    tar.unlink()
    tar.symlink_to(shards.folder / "gone.tar")
    with pytest.raises(KaleidosceneError, match="shard-000001.tar: the shard is missing or truncated"):
        ShardFolder(shards.folder)
    empty = {"format_version": 1, "keys": [], "views": [], "members": {}}
    (shards.folder / "shard-000000.index.json").write_text(json.dumps(empty))
    with pytest.raises(KaleidosceneError, match="shard-000000.index.json: an index without scenes"):
        ShardFolder(shards.folder)


def test_the_fingerprint_of_shards_is_that_of_their_contents(tmp_path):
    """Pixels that change change it, although names, counts and places of all members are what they were."""

    def folder(grey):
        scene = StoredScene("a", np.full((4, 6, 9, 4), grey, np.uint8), ring(4, (6, 9)))
        write_shard(tmp_path / str(grey) / "shard-000000.tar", [scene])
        members = ShardIndex(tmp_path / str(grey) / "shard-000000.index.json").members(0)
        members = {name: place[:2] for name, place in members.items()}
        return members, ShardFolder(tmp_path / str(grey)).fingerprint

    places, first = folder(7)
    alike = [mark for grey in range(8, 40) for where, mark in [folder(grey)] if where == places]
    assert alike and first not in alike
    assert folder(7) == (places, first)
    with pytest.raises(KaleidosceneError, match="nothing: no folder of shards that can be read"):
        ShardFolder(tmp_path / "nothing")


def test_damaged_shards_are_named(shards):  # noqa: F811
    tar = shards.folder / "shard-000001.tar"
    tar.write_bytes(tar.read_bytes()[:1000])
    with pytest.raises(KaleidosceneError, match="shard-000001.tar: the shard is missing or truncated"):
        ShardFolder(shards.folder)
    (shards.folder / "shard-000000.index.json").write_text("{")
    with pytest.raises(KaleidosceneError, match="not a readable index"):
        ShardFolder(shards.folder)
