"""Latents made ahead give the training what the autoencoder in the loop would have given."""

import json
from dataclasses import replace

import pytest
import torch

from kaleidoscene.cli.main import main
from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.encoders.features import DinoV2
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from tests.codecs.test_codecs import autoencoder  # noqa: F401
from tests.conftest import randomised, tiny_config
from tests.datasets.test_training_data import scenes
from tests.encoders.test_dinov2 import folder as dino  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=["latents alone", "and features"])
def folders(request, tmp_path, autoencoder, dino):  # noqa: F811
    _, source = autoencoder
    write_shard(
        tmp_path / "views" / "shard-000000.tar", [replace(scenes(n, size=(16, 24)), depth=None) for n in range(5)]
    )
    arguments = ["convert", str(tmp_path / "views"), str(tmp_path / "latents"), "--to", "latents"]
    arguments += ["--latents.autoencoder", str(source), "--latents.scenes-per-shard", "2"]
    arguments += ["--latents.patch-size", "1"]
    with_features = request.param == "and features"
    arguments += ["--latents.features", str(dino)] if with_features else []
    assert main(arguments) == 0
    return tmp_path, source, arguments, dino if with_features else None


def test_the_loss_is_that_of_the_autoencoder_in_the_loop(folders):
    tmp_path, source, _, features = folders
    codec = make_codec(CodecConfig(kind="kl", source=str(source)))
    network = tiny_config(latent_channels=16, patch_size=1, feature_channels=32 if features else 0)
    settings = KaleidoSettings(
        model=network, codec=CodecConfig(kind="kl", source=str(source)), image_size=(16, 24), scale_from="all",
        feature_source=str(features or ""),
    )  # fmt: skip
    encoder = DinoV2.from_pretrained(str(features), 8) if features else None
    task = KaleidoTask(settings, KaleidoLoss(), codec=codec, features=encoder)
    randomised(task.model)
    config = BatchConfig(batch_size=3, sampling=ViewSampling(views=4), augmentation=Augmentation.none())
    live, ahead = (ViewBatches(ShardFolder(tmp_path / name), config) for name in ("views", "latents"))
    for step in range(3):
        views = ahead[step]
        assert views.latents is not None and views.images.shape[-2:] == (0, 0) and views.ids == live[step].ids
        if features:  # of every view its own: those of another would change the loss far less than they should
            own = encoder(live[step].images)
            torch.testing.assert_close(views.features, own, rtol=0.05, atol=0.05)
            others = (own - own.roll(1, 1)).abs().mean()
            assert others > 10 * (own - views.features).abs().mean()
        expected, found = task.losses(live[step], 4)["loss"].item(), task.losses(views, 4)["loss"].item()
        assert found == pytest.approx(expected, rel=3e-3)  # stored in half precision


def test_what_does_not_fit_is_refused(folders, capsys):
    tmp_path, _, arguments, _ = folders
    augmented = ViewBatches(
        ShardFolder(tmp_path / "latents"), BatchConfig(batch_size=2, sampling=ViewSampling(views=4))
    )
    with pytest.raises(KaleidosceneError, match="cannot be augmented"):
        augmented[0]
    config = BatchConfig(
        batch_size=2, sampling=ViewSampling(views=4), augmentation=Augmentation.none(), image_size=(8, 12)
    )
    with pytest.raises(KaleidosceneError, match="made at 16x24, training needs 8x12"):
        ViewBatches(ShardFolder(tmp_path / "latents"), config)[0]
    assert main(arguments) == 0  # a second time: nothing to do
    assert main([*arguments, "--latents.scenes-per-shard", "3"]) == 1
    assert "begun with other shards or options" in capsys.readouterr().err
    assert main([*arguments[:5]]) == 1
    assert "--latents.autoencoder" in capsys.readouterr().err
    tar = tmp_path / "views" / "shard-000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"IHDR", b"IHDX"))
    assert main([*arguments[:2], str(tmp_path / "again"), *arguments[3:]]) == 1
    assert "views: scene scene-000 is damaged" in capsys.readouterr().err
    note = json.loads((tmp_path / "latents" / "latents.json").read_text())
    assert note["of"] == ShardFolder(tmp_path / "views").fingerprint
    assert torch.isfinite(torch.tensor(ShardFolder(tmp_path / "latents").read(4).latents.mean)).all()
