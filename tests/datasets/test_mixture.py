"""Which scenes a run sees: once an epoch, by weight, the same however the run is cut and wherever it goes on."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.formats.registry import FORMATS
from kaleidoscene.cli.main import main
from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.pixel import PixelCodec
from kaleidoscene.datasets.batch_config import BatchConfig, Bucket, Share
from kaleidoscene.datasets.batches import Source, ViewBatches
from kaleidoscene.datasets.buckets import bucket_sizes, buckets_within
from kaleidoscene.datasets.mixture import Mixture, WeightedDraws
from kaleidoscene.datasets.published import MIXTURES, published_weights
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_index import ShardIndex
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from tests.conftest import tiny_config
from tests.datasets.test_training_data import scenes


@pytest.fixture
def sources(tmp_path):
    write_shard(tmp_path / "a" / "shard-000000.tar", [scenes(n) for n in range(12)])
    write_shard(tmp_path / "b" / "shard-000000.tar", [scenes(100 + n) for n in range(7)])
    return [Source(ShardFolder(tmp_path / "a"), 3.0), Source(ShardFolder(tmp_path / "b"), 1.0)]


def config(**changes):
    values = dict(batch_size=12, sampling=ViewSampling(views=4, masking="drop"), share_counts=2)
    return BatchConfig(**{**values, **changes})


def video(number, frames=9, size=(6, 10)):
    generator = np.random.default_rng(number)
    rgba = generator.integers(0, 255, (frames, *size, 4), dtype=np.uint8)
    rgba[..., 0] = np.arange(frames)[:, None, None] * 20  # the red channel tells the frame
    rgba[..., 3] = 255
    return StoredScene(f"clip-{number}", rgba, None, times=tuple(range(0, 2 * frames, 2)))


def test_sources_come_by_weight_and_scenes_once_an_epoch():
    mixture = Mixture([12, 7], [3.0, 1.0], seed=5)
    drawn = [mixture[place] for place in range(4000)]
    assert Counter(source for source, _ in drawn)[0] / 4000 == pytest.approx(0.75, abs=0.03)
    for source, size in ((0, 12), (1, 7)):
        mine = [scene for which, scene in drawn if which == source]
        for epoch in range(len(mine) // size):
            assert sorted(mine[epoch * size : (epoch + 1) * size]) == list(range(size))
    assert [mixture[place] for place in (3999, 0, 70_000, 17)] == [drawn[3999], drawn[0], mixture[70_000], drawn[17]]
    assert drawn != [Mixture([12, 7], [3.0, 1.0], seed=6)[place] for place in range(4000)]


def test_counts_before_a_place_are_those_of_the_draws():
    draws = WeightedDraws([1.0, 2.0, 0.0], 3)
    first = [draws[place] for place in range(70_000)]  # over a block's end
    for place in (0, 1, 65_535, 65_536, 65_537, 70_000):
        assert WeightedDraws([1.0, 2.0, 0.0], 3).before(place).tolist() == [first[:place].count(n) for n in range(3)]
    for weights in ([], [0.0], [1.0, -1.0], [float("nan")]):
        with pytest.raises(KaleidosceneError, match="Weights must be"):
            WeightedDraws(weights, 0)


@pytest.mark.parametrize(("ranks", "parts"), [(6, 1), (3, 2), (2, 3), (12, 1), (3, 4)])
def test_ranks_and_micro_batches_only_cut_the_batch(sources, ranks, parts):
    """The pieces of all ranks together are the batch of one process, scene for scene and pixel for pixel."""
    batches = ViewBatches(sources, config())
    for step in (0, 5):
        whole = [batches.part(step, Share(parts=6), part) for part in range(6)]
        assert {views.step for views in whole} == {step}
        expected = {n: image for views in whole for n, image in zip(views.numbers, views.images, strict=True)}
        pieces = [batches.part(step, Share(rank, ranks, parts), p) for rank in range(ranks) for p in range(parts)]
        found = {n: image for views in pieces for n, image in zip(views.numbers, views.images, strict=True)}
        assert found.keys() == expected.keys() == set(range(12 * step, 12 * step + 12))
        assert all(found[n].equal(expected[n]) for n in found)


def test_a_run_that_goes_on_sees_what_is_left(sources):
    """Mid-epoch, with other numbers of workers: nothing twice, nothing left out."""
    batches = ViewBatches(sources, config())
    share = Share(1, 2, 3)
    whole = [views.numbers for views in batches.loader(range(6), workers=0, share=share)]
    resumed = [views.numbers for views in ViewBatches(sources, config()).loader(range(4, 6), workers=2, share=share)]
    assert whole[12:] == resumed
    other = [views.numbers for views in batches.loader(range(6), workers=0, share=Share(0, 2, 3))]
    seen = sorted(number for numbers in whole + other for number in numbers)
    assert seen == list(range(6 * 12))


def test_batches_that_cannot_be_cut_are_refused(sources):
    batches = ViewBatches(sources, config())
    with pytest.raises(KaleidosceneError, match="must be a multiple of 5"):
        batches.loader(range(3), workers=0, share=Share(0, 5, 1))
    with pytest.raises(KaleidosceneError, match="share_counts"):
        batches.loader(range(3), workers=0, share=Share(0, 2, 1))


def test_every_bucket_has_its_size_batch_and_views(sources):
    buckets = (
        Bucket(image_size=(6, 6), batch_size=4, weight=3.0),
        Bucket(image_size=(3, 5), batch_size=8, views=3),
    )
    plain = config(buckets=buckets, share_counts=None, sampling=ViewSampling(views=4, masking="none", kind="fixed"))
    batches = ViewBatches(sources, plain)
    sizes, place = Counter(), 0
    for step in range(60):
        views = batches[step]
        assert views.numbers == tuple(range(place, place + len(views.images)))  # nothing twice, whatever the sizes
        place += len(views.images)
        shape = tuple(views.images.shape)
        assert shape[0] == {(6, 6): 4, (3, 5): 8}[shape[-2:]] and views.cameras is not None
        assert views.cameras.image_size == shape[-2:]
        assert views.images.shape[1] == (4 if shape[-1] == 6 else 3) or views.num_references == 0
        sizes[shape[-2:]] += 1
    assert sizes[6, 6] == pytest.approx(45, abs=12)


def test_cropping_keeps_rays(sources):
    """A pixel of the cropped and resampled image looks where the camera says: the middle of the old image stays."""
    cropped = ViewBatches(sources, config(share_counts=None, image_size=(6, 6), augmentation=Augmentation.none()))[0]
    full = ViewBatches(sources, config(share_counts=None, augmentation=Augmentation.none()))[0]
    torch.testing.assert_close(cropped.images, full.images[..., 2:8])
    torch.testing.assert_close(cropped.cameras.intrinsics[..., 0, 2], full.cameras.intrinsics[..., 0, 2] - 2)


def test_bucket_sizes_have_one_area_and_fit_a_token_budget():
    sizes = bucket_sizes(1024, (1.0, 4 / 5, 5 / 4, 16 / 9, 9 / 16), multiple=32)
    assert sizes == ((1024, 1024), (1152, 928), (928, 1152), (768, 1376), (1376, 768))
    for (height, width), ratio in zip(sizes, (1.0, 4 / 5, 5 / 4, 16 / 9, 9 / 16), strict=True):
        assert height * width == pytest.approx(1024**2, rel=0.03) and width / height == pytest.approx(ratio, rel=0.02)
    buckets = buckets_within(100_000, [(64, 64), (128, 96)], views=12, pixels_per_token=16, multiple=8)
    assert [bucket.batch_size for bucket in buckets] == [520, 168]  # 100000 / 192 and / 576, rounded down to eights
    with pytest.raises(KaleidosceneError, match="8 scenes of 12 views of 512x512 are 98304 tokens"):
        buckets_within(90_000, [(512, 512)], views=12, pixels_per_token=16, multiple=8)


def test_videos_carry_their_places_in_a_clip(tmp_path):
    write_shard(tmp_path / "shard-000000.tar", [video(n) for n in range(4)])
    folder = ShardFolder(tmp_path)
    assert folder.read(2, [3, 0]).times == (6, 0)
    plain = dict(sampling=ViewSampling(views=5, masking="none"), augmentation=Augmentation.none(), share_counts=None)
    views = ViewBatches(folder, config(batch_size=4, reference_dropout=0.0, **plain))[3]
    assert views.cameras is None and views.times is not None and bool(views.is_video.all())
    frames = (views.images[:, :, 0, 0, 0] * 255 / 20).round()
    for row, times in zip(frames, views.times, strict=True):
        assert sorted((times * 5).round().tolist()) == [0, 1, 2, 3, 4]  # n / T of a clip of V neighbouring frames
        torch.testing.assert_close(row - row.min(), (times * 5 - (times * 5).min()).round())


def test_videos_and_scenes_share_a_batch(tmp_path, sources):
    write_shard(tmp_path / "v" / "shard-000000.tar", [video(n) for n in range(6)])
    mixed = [sources[0], Source(ShardFolder(tmp_path / "v"), 3.0)]
    views = ViewBatches(mixed, config(share_counts=None))[0]
    assert 0 < views.is_video.sum() < 12 and views.times is not None and views.cameras is not None
    assert (views.times[~views.is_video] == 0).all()
    settings = KaleidoSettings(
        model=tiny_config(latent_channels=12), codec=CodecConfig(factor=2), image_size=(6, 10), scale_from="references"
    )
    task = KaleidoTask(settings, KaleidoLoss(), codec=PixelCodec(2))
    assert torch.isfinite(task.losses(views, 0)["loss"])  # cameras that stand for nothing have a scale too


def test_jpeg_views_are_decoded_at_the_size_that_is_needed(tmp_path):
    """A quarter of the pixels are read where these are enough, and the cameras follow."""
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    scene = scenes(0, size=(64, 96))
    rgba = np.repeat(np.repeat(ramp[None, None, :, None], 64, 1), 4, 3).repeat(5, 0)
    rgba[..., 3] = 255
    write_shard(tmp_path / "shard-000000.tar", [StoredScene("s", rgba, scene.cameras)], image_format="jpg")
    folder = ShardFolder(tmp_path)
    small, full = folder.read(0, [1], at_least=(16, 24)), folder.read(0, [1])
    assert small.rgba.shape == (1, 16, 24, 4) and full.rgba.shape == (1, 64, 96, 4)
    assert small.cameras.image_size == (16, 24)
    torch.testing.assert_close(small.cameras.intrinsics[..., :2, :], full.cameras.intrinsics[..., :2, :] / 4)
    area = np.asarray(Image.fromarray(full.rgba[0]).resize((24, 16), Image.Resampling.BOX))
    assert np.abs(small.rgba[0].astype(int) - area).max() <= 3
    assert folder.read(0, [1], at_least=(33, 24)).rgba.shape == (1, 64, 96, 4)


def spoil(folder, key):
    """Overwrite the views of one scene inside its shard."""
    index = ShardIndex(folder / "shard-000000.index.json")
    with (folder / "shard-000000.tar").open("r+b") as file:
        for name, (start, size, _) in index.members(index.keys.index(key)).items():
            if name.endswith(".png"):
                file.seek(start)
                file.write(b"\0" * size)


def test_damaged_scenes_stop_the_run_or_are_replaced_and_named(sources):
    spoil(sources[0].folder.folder, "scene-003")
    strict = ViewBatches(sources[:1], config(share_counts=None))
    with pytest.raises(KaleidosceneError, match="Damaged scene: .*scene-003"):
        strict[0]
    lenient = ViewBatches(sources[:1], config(share_counts=None, damaged_share=0.5))
    views = lenient[0]
    assert len(views.damaged) == 1 and "scene-003" in views.damaged[0]
    assert len(views.images) == 12 and "scene-003" not in views.ids
    assert lenient.allowed_damage(0) == 6 and lenient.allowed_damage(9) == 60
    again = ViewBatches(sources[:1], config(share_counts=None, damaged_share=0.5))[0]
    assert again.ids == views.ids and again.images.equal(views.images)


def test_published_weights_go_by_the_names_of_folders(tmp_path, capsys):
    """As 3DRAE's Table 7 prints them; what is not in it, and what has no reader here, is named."""
    found = published_weights("rae3d", ["s3://bucket/RE10K/", "/data/co3d", tmp_path / "arkitscenes"])
    assert found == (17.3, 7.1, 13.2)
    assert sum(one.weight for one in MIXTURES["rae3d"].values()) == pytest.approx(101.1)
    readers = {one.reader for one in MIXTURES["rae3d"].values()} - {None}
    assert readers <= FORMATS.keys() and len(readers) == 5
    for folders, said in (
        (["data/waymo"], "waymo has 6.3 % of the mixture rae3d, and no reader here makes shards of it"),
        (["data/co3"], "did you mean 'co3d'"), (["a/co3d", "b/co3d"], "named twice"),
    ):  # fmt: skip
        with pytest.raises(KaleidosceneError, match=said):
            published_weights("rae3d", folders)
    train = ["train", "rae3d-debug", "--out", str(tmp_path / "run"), "--mixture", "rae3d"]
    for more, said in (
        ([], "--mixture gives folders of --shards their weights"), (["--shards", "a/objaverse"], "Unknown set"),
        (["--shards", "a/co3d", "--weights", "1"], "and no --weights"),
    ):  # fmt: skip
        assert main([*train, *more]) == 1
        assert said in capsys.readouterr().err and not (tmp_path / "run" / "metrics.jsonl").exists()
