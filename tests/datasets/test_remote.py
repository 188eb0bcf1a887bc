"""Shards behind an address: the same scenes as on disk, a bounded copy, stores that fail for a moment and for good."""

import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import fsspec
import pytest
import torch

from kaleidoscene.datasets import remote
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.remote import RemoteFolder, ShardCache, is_remote
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from tests.datasets.test_training_data import scenes, shards  # noqa: F401


@pytest.fixture
def cache(tmp_path):
    return ShardCache(folder=tmp_path / "cache", gigabytes=1.0)


@pytest.fixture
def in_memory(shards):  # noqa: F811
    """The shards in fsspec's memory, gone afterwards."""
    files = fsspec.filesystem("memory")
    files.mkdir("/bucket/shards")
    for path in shards.folder.iterdir():
        files.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    yield files
    files.rm("/bucket", recursive=True)


def same_scenes(one: ShardFolder, other: ShardFolder) -> None:
    assert len(one) == len(other) == 8 and one.fingerprint == other.fingerprint
    for number in (5, 0, 7):
        a, b = one.read(number, [3, 1], depth=True), other.read(number, [3, 1], depth=True)
        assert a.key == b.key and (a.rgba == b.rgba).all() and (a.depth == b.depth).all()
        assert torch.equal(a.cameras.world_from_cam, b.cameras.world_from_cam)


def test_an_address_is_no_path():
    assert is_remote("s3://bucket/x") and is_remote("gs://b") and is_remote("memory://a/b")
    assert not is_remote("a/b") and not is_remote(Path("s3://b")) and not is_remote("c:/x")


def test_shards_in_memory_and_by_a_local_address_are_those_on_disk(shards, in_memory, cache):  # noqa: F811
    same_scenes(ShardFolder("memory://bucket/shards", cache), shards)
    local = ShardFolder(f"file://{shards.folder}", cache)
    same_scenes(local, shards)
    assert local.name == f"file://{shards.folder}"


def test_only_drawn_shards_are_fetched_and_kept_ones_are_not_fetched_again(in_memory, cache, monkeypatch):
    fetched = []
    inner = RemoteFolder._download
    monkeypatch.setattr(RemoteFolder, "_download", lambda self, name, to: (fetched.append(name), inner(self, name, to)))
    folder = ShardFolder("memory://bucket/shards/", cache)
    assert not [name for name in fetched if name.endswith(".tar")]
    folder.read(1)
    folder.read(2)
    assert [name for name in fetched if name.endswith(".tar")] == ["shard-000000.tar"]
    fetched.clear()
    ShardFolder("memory://bucket/shards", cache).read(0)
    assert fetched == []  # a second start has all of it


def test_what_was_not_used_for_longest_makes_room(in_memory, tmp_path):
    size = in_memory.info("/bucket/shards/shard-000000.tar")["size"]
    cache = ShardCache(folder=tmp_path / "cache", gigabytes=1.2 * size / 1e9)
    folder = ShardFolder("memory://bucket/shards", cache)
    for scene in (0, 6, 3, 7):
        assert folder.read(scene).key == f"scene-{scene:03d}"
        assert sum(path.stat().st_size for path in cache.folder.glob("*/*.tar")) <= 1.2 * size
    assert [path.name for path in cache.folder.glob("*/*.tar")] == ["shard-000001.tar"]
    with pytest.raises(ValueError, match="gigabytes must be above 0"):
        ShardCache(gigabytes=0.0)


def test_shards_that_were_written_anew_are_fetched_anew(shards, in_memory, cache):  # noqa: F811
    before = ShardFolder("memory://bucket/shards", cache)
    before.read(5)
    write_shard(shards.folder / "shard-000001.tar", [scenes(n, views=4) for n in (9, 10)])
    for path in shards.folder.glob("shard-000001*"):
        in_memory.pipe_file(f"/bucket/shards/{path.name}", path.read_bytes())
    after = ShardFolder("memory://bucket/shards", cache)
    assert after.fingerprint != before.fingerprint and len(after) == 6 and after.read(5).key == "scene-010"


def test_batches_by_worker_processes_are_those_of_shards_on_disk(shards, cache):  # noqa: F811
    config = BatchConfig(batch_size=2, sampling=ViewSampling(views=4, masking="drop"))
    here = ViewBatches(shards, config).loader(range(3), workers=0)
    there = ViewBatches(ShardFolder(f"file://{shards.folder}", cache), config).loader(range(3), workers=2)
    for a, b in zip(here, there, strict=True):
        assert a.ids == b.ids and torch.equal(a.images, b.images)


def test_a_store_that_fails_for_a_moment_is_asked_again_and_one_that_fails_for_good_is_named(
    in_memory, cache, monkeypatch
):
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    inner, fails = RemoteFolder._download, [OSError("connection reset"), TimeoutError("slow")]

    def download(self, name, to):
        if name.endswith(".tar") and fails:
            to.write_bytes(b"a part of it")
            raise fails.pop()
        inner(self, name, to)

    monkeypatch.setattr(RemoteFolder, "_download", download)
    folder = ShardFolder("memory://bucket/shards", cache)
    assert folder.read(0).key == "scene-000" and not fails
    fails += [OSError("no route")] * 9
    with pytest.raises(KaleidosceneError, match=r"^memory://bucket/shards: shard-000001.tar cannot be read, tried 4"):
        folder.read(6)
    assert not list(cache.folder.glob("*/*shard-000001.tar*"))  # nothing of it is left


def test_a_copy_that_is_too_short_does_not_count(in_memory, cache, monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE", 0.001)
    folder = ShardFolder("memory://bucket/shards", cache)
    tar = in_memory.cat_file("/bucket/shards/shard-000000.tar")
    in_memory.pipe_file("/bucket/shards/shard-000000.tar", tar[:-700])
    with pytest.raises(KaleidosceneError, match="bytes came of"):
        folder.read(0)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("memory://nothing/here", "memory://nothing/here: no such folder"),
        ("gopher://bucket/x", "gopher://bucket/x: this kind of address cannot be read here"),
    ],
)
def test_addresses_that_lead_nowhere(cache, address, message):
    with pytest.raises(KaleidosceneError, match=message):
        ShardFolder(address, cache)


def test_a_folder_without_shards(cache):
    files = fsspec.filesystem("memory")
    files.pipe_file("/empty/readme.txt", b"nothing")
    with pytest.raises(KaleidosceneError, match="no shards here"):
        ShardFolder("memory://empty", cache)
    files.rm("/empty", recursive=True)


@pytest.fixture
def object_store(monkeypatch, tmp_path):
    """An S3 server on this machine, in a process of its own."""
    port = 8000 + hash(str(tmp_path)) % 1000
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{port}"
    for name, value in (("AWS_ACCESS_KEY_ID", "us"), ("AWS_SECRET_ACCESS_KEY", "us"), ("AWS_ENDPOINT_URL", address),
                        ("AWS_DEFAULT_REGION", "us-east-1"), ("AWS_EC2_METADATA_DISABLED", "true")):  # fmt: skip
        monkeypatch.setenv(name, value)
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield address
    server.terminate()
    server.wait(10)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the client library
def test_a_run_reads_from_an_object_store(object_store, shards, cache, tmp_path):  # noqa: F811
    import s3fs

    store = s3fs.S3FileSystem(endpoint_url=object_store)
    store.mkdir("scenes")
    for path in shards.folder.iterdir():
        store.put_file(str(path), f"scenes/deep/{path.name}")
    folder = ShardFolder("s3://scenes/deep", cache)
    same_scenes(folder, shards)
    config = BatchConfig(batch_size=2, sampling=ViewSampling(views=4, masking="drop"))
    shutil.rmtree(cache.folder)
    folder = ShardFolder("s3://scenes/deep", cache)
    batches = ViewBatches(folder, config).loader(range(2), workers=2)  # which fetch by themselves
    assert [views.ids for views in batches] == [
        views.ids for views in ViewBatches(shards, config).loader(range(2), workers=0)
    ]
    store.rm("scenes/deep/shard-000001.tar")
    shutil.rmtree(cache.folder)
    with pytest.raises(KaleidosceneError, match="the shard is missing or truncated"):
        ShardFolder("s3://scenes/deep", cache)
