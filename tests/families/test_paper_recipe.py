"""The paper's first stage in small: KL autoencoder, DINOv2 features, fp16, shared counts, async checkpoints."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from kaleidoscene.api import load
from kaleidoscene.cli.main import main
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.families.kaleido.recipes import RECIPES
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.training.run import RunOptions
from kaleidoscene.workflows.training import train
from tests.codecs.test_codecs import autoencoder  # noqa: F401
from tests.conftest import ring
from tests.datasets.test_mixture import video
from tests.encoders.test_dinov2 import folder as dino  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # the libraries' own
SIZE = (32, 48)


def small(vae, encoder):
    """Stage 1 with a network of two blocks; what tells it from other recipes stays."""
    stage = RECIPES["kaleido-small-video"]()
    network = replace(
        stage.settings.model, width=64, depth=2, kv_heads=1, hidden_width=96, condition_width=32, feature_channels=32
    )
    settings = replace(
        stage.settings, model=network, codec=replace(stage.settings.codec, source=str(vae)),
        feature_source=str(encoder), image_size=SIZE,
    )  # fmt: skip
    return replace(
        stage, settings=settings,
        data=replace(stage.data, batch_size=8, share_counts=2, sampling=ViewSampling(views=4)),
        train=replace(
            stage.train, steps=3, device="cpu", sharding="none", compile=False, workers=0, checkpoint_every=2,
            log_every=1,
        ),
    )  # fmt: skip


@pytest.mark.parametrize("ahead", [False, True])
def test_stage_1_trains_in_small_and_its_weights_render(tmp_path, autoencoder, dino, ahead):  # noqa: F811
    _, vae = autoencoder
    write_shard(tmp_path / "clips" / "shard-000000.tar", [video(n, size=SIZE) for n in range(9)])
    shards = tmp_path / "clips"
    if ahead:  # autoencoder and DINOv2 out of the loop
        arguments = ["convert", str(shards), str(tmp_path / "latents"), "--to", "latents"]
        arguments += ["--latents.autoencoder", str(vae), "--latents.features", str(dino)]
        assert main(arguments) == 0
        shards = tmp_path / "latents"
    recipe = small(vae, dino)
    last = train(recipe, RunOptions(out=tmp_path / "run", shards=(str(shards),))).checkpoint
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and all(0 < line["loss"] < 100 for line in lines)
    assert all("loss_scale" in line for line in lines)
    model = load(str(last))
    renderer = model.system.renderer
    assert isinstance(renderer, KaleidoRenderer)
    cameras = ring(5, SIZE, batch=(1,))
    scene = renderer.encode(torch.rand(1, 2, 3, *SIZE), cameras[:, :2])
    assert renderer.render(scene, cameras[:, 2:], seeds=[0, 1, 2]).images.shape == (1, 3, 3, *SIZE)


def test_the_command_line_says_where_autoencoder_and_features_lie(tmp_path, autoencoder, dino, capsys):  # noqa: F811
    _, vae = autoencoder
    command = ["train", "kaleido-small-video", "--out", str(tmp_path / "run"), "--train.device", "cpu"]
    assert main([*command, "--autoencoder", str(tmp_path / "none")]) == 1
    assert f"No autoencoder at '{tmp_path / 'none'}'" in capsys.readouterr().err
    command += ["--autoencoder", str(vae)]
    assert main([*command, "--features", str(tmp_path / "none")]) == 1
    assert f"No DINOv2 at '{tmp_path / 'none'}'" in capsys.readouterr().err
    assert main(["train", "kaleido-nano", "--out", str(tmp_path / "run"), "--autoencoder", str(vae)]) == 1
    assert "--autoencoder: this recipe works on pixels" in capsys.readouterr().err
    assert main(["train", "kaleido-nano", "--out", str(tmp_path / "run"), "--features", str(dino)]) == 1
    assert "--features: this recipe has no features" in capsys.readouterr().err


def test_weights_of_the_paper_recipes_are_found_as_the_hub_stores_them(tmp_path, autoencoder, dino):  # noqa: F811
    """In the hub's own cache, without a network: a folder of one repository, and a whole other one."""
    _, vae = autoencoder
    settings = RECIPES["kaleido-small-video"]().settings
    owner, name, inside = settings.codec.source.split("/")
    for repository, source, below in ((f"{owner}/{name}", vae, inside), (settings.feature_source, dino, "")):
        cached = tmp_path / "hub" / f"models--{repository.replace('/', '--')}"
        snapshot = cached / "snapshots" / ("0" * 40) / below
        snapshot.parent.mkdir(parents=True, exist_ok=True)
        source.rename(snapshot)
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40)
    script = (
        "from kaleidoscene.codecs.kl import KLCodec; from kaleidoscene.encoders.features import DinoV2\n"
        f"print(KLCodec.from_pretrained({settings.codec.source!r}).scale)\n"
        f"print(DinoV2.from_pretrained({settings.feature_source!r}, 16).channels)"
    )
    offline = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1.5305", "32"], done.stderr[-2000:]
