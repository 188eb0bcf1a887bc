"""Runs that are asked to stop, lose a checkpoint, or were begun by an earlier version."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback

import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from kaleidoscene.cli.main import main
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.checkpoint import load_model
from kaleidoscene.training import trainer as module
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from tests.conftest import REPOSITORY
from tests.datasets.test_training_data import scenes
from tests.training.test_trainer import losses, make_trainer, records, shards  # noqa: F401

OLD_RUN = REPOSITORY / "tests" / "training" / "old_run"


def start(shards, run, *options):  # noqa: F811
    command = [
        sys.executable,
        "-m",
        "kaleidoscene",
        "train",
        "kaleido-debug",
        "--out",
        str(run),
        "--shards",
        str(shards),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, "--train.checkpoint-every", "1000", *options], env=environment, cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_steps(run, count):
    for _ in range(600):
        log = run / "metrics.jsonl"
        if log.is_file() and len(log.read_text().splitlines()) >= count:
            return
        time.sleep(0.1)
    raise AssertionError("the run does not get on")


@pytest.fixture(scope="module")
def large_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    write_shard(folder / "shard-000000.tar", [scenes(n, size=(32, 32)) for n in range(8)])
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR1", "SIGINT"])
def test_a_signal_writes_a_checkpoint_and_ends_with_a_code_of_its_own(large_shards, tmp_path, capsys, name):
    """A real process, also with workers that get the signal with it; the same command goes on."""
    process = start(large_shards, tmp_path / "run", "--train.steps", "5000", "--train.log-every", "1",
                    "--train.workers", "1")  # fmt: skip
    wait_for_steps(tmp_path / "run", 3)
    process.send_signal(getattr(signal, name))
    out, error = process.communicate(timeout=300)
    assert process.returncode == 75, error
    last = list_checkpoints(tmp_path / "run")[-1]
    step = int(last.name.removeprefix("step-"))
    assert step >= 3 and f"stopped by a signal after step {step} of 5000; the same command goes on." in out
    assert len(records(tmp_path / "run")) == step
    again = ["train", "kaleido-debug", "--out", str(tmp_path / "run"), "--shards", str(large_shards)]
    assert main([*again, "--train.checkpoint-every", "1000", "--train.steps", str(step + 2)]) == 0
    assert f"going on from {last}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_second_interrupt_ends_at_once(large_shards, tmp_path):
    process = start(large_shards, tmp_path / "run", "--train.steps", "5000", "--train.log-every", "1")
    wait_for_steps(tmp_path / "run", 2)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    # Both may come within one step, or the second while the checkpoint is written.
    assert process.returncode in (75, 130)
    assert not list((tmp_path / "run" / "checkpoints").glob("*.partial/config.json")) or process.returncode == 130


def test_a_damaged_newest_checkpoint_is_refused_and_can_be_left_behind(shards, tmp_path, capsys):  # noqa: F811
    make_trainer(shards, tmp_path / "whole").train()
    make_trainer(shards, tmp_path / "run", steps=6).train()
    newest = list_checkpoints(tmp_path / "run")[-1]
    shard = next((newest / "training" / "shards").iterdir())
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(KaleidosceneError, match=r"SHA-256 differs.*--resume-from last-good goes on from the newest"):
        make_trainer(shards, tmp_path / "run")
    trainer = make_trainer(shards, tmp_path / "run", resume_from="last-good")
    said = capsys.readouterr().out
    assert trainer.step == 3 and "step-00000006: damaged and set aside; going on from step-00000003" in said
    assert "steps 4 to 6 are lost" in said and (newest.parent / f"{newest.name}.damaged").is_dir()
    trainer.train()
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    for checkpoint in list_checkpoints(tmp_path / "run"):
        (checkpoint / "config.json").write_text("{}")
    with pytest.raises(KaleidosceneError, match="all 2 checkpoints are damaged"):
        make_trainer(shards, tmp_path / "run", resume_from="last-good")


def test_damaged_lines_of_the_log_stop_nothing(shards, tmp_path):  # noqa: F811
    make_trainer(shards, tmp_path / "run", steps=6).train()
    before = losses(tmp_path / "run")
    log = tmp_path / "run" / "metrics.jsonl"
    lines = log.read_text().splitlines()
    lines[1:1] = ['{"step": 2, "lo', "[1]", '{"step": "x", "loss": 1}', "{}"]
    log.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe{\n")
    make_trainer(shards, tmp_path / "run").train()
    after = losses(tmp_path / "run")
    assert after[:6] == before and [step for step, *_ in after] == list(range(1, 9))


def test_a_run_of_an_earlier_version_goes_on_and_its_weights_load(tmp_path, capsys):
    """Written under the project's old name, in the checkpoint format before this one; losses as it would have had."""
    shutil.copytree(OLD_RUN, tmp_path / "run")
    model, settings = load_model(tmp_path / "run" / "checkpoints" / "step-00000004")
    assert settings.image_size == (32, 32) and all(p.isfinite().all() for p in model.parameters())
    arguments = ["--train.steps", "6", "--train.checkpoint-every", "2", "--train.keep-checkpoints", "1"]
    arguments += ["--synthetic.scenes", "8", "--synthetic.scenes-per-shard", "4", "--train.validate-every", "100"]
    assert main(["train", "kaleido-debug", "--out", str(tmp_path / "run"), *arguments]) == 0, capsys.readouterr().err
    found = [record["loss"] for record in records(tmp_path / "run")]
    assert found[:4] == pytest.approx([0.6023851633, 0.5861096978, 0.7561596632, 0.6649293303], rel=1e-9)
    assert found[4:] == pytest.approx([0.7924801707, 0.7881656289], rel=1e-4)


def test_poses_that_are_not_rigid_and_flipped_bits_are_damage(tmp_path):
    """Both still read as files; they are named with scene and shard, and count against the share of damage."""
    sheared = scenes(2)
    poses = sheared.cameras.world_from_cam.clone()
    object.__setattr__(sheared.cameras, "world_from_cam", poses)  # as a file may have it
    poses[:, 0, 1] += 0.5
    write_shard(tmp_path / "s" / "shard-000000.tar", [scenes(n) if n != 2 else sheared for n in range(6)])
    tar, folder = tmp_path / "s" / "shard-000000.tar", ShardFolder(tmp_path / "s")
    bent, flipped = folder.key(2), folder.key(4)
    start, size, _ = folder._locate(4)[1].members(4)["001.png"]
    data = bytearray(tar.read_bytes())
    data[start + size - 5] ^= 1  # the CRC of the last chunk of a PNG, which decoders do not look at
    tar.write_bytes(data)
    Image.open(io.BytesIO(data[start : start + size])).load()
    with pytest.raises(ValueError, match=rf"shard-000000\.tar, {bent}: Camera .* not rigid"):
        folder.read(2)
    with pytest.raises(ValueError, match=rf"shard-000000\.tar, {flipped}: 001\.png has changed since it was written"):
        folder.read(4, [0, 1])
    folder.read(4, [0, 2])
    with pytest.raises(KaleidosceneError, match=r"Damaged scene: .*shard-000000\.tar, "):
        make_trainer(tmp_path / "s", tmp_path / "strict", batch_size=6).train()
    trainer = make_trainer(tmp_path / "s", tmp_path / "run", batch_size=6, damaged_share=0.9, steps=1)
    trainer.train()
    assert trainer.damaged >= 1 and bent in (tmp_path / "run" / "damaged-00000.txt").read_text()


# Where numbers are read that live on the host: cameras, batches before they are moved, AdamW's count of steps.
ON_THE_HOST = ("geometry/cameras.py", "training/optim.py", ", in weight\n")


def test_the_host_waits_for_the_device_once_a_step(shards, tmp_path, monkeypatch):  # noqa: F811
    """Numbers are read in one place; besides it, nothing in a step takes a number from a tensor of the device."""
    places = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default):
                stack = [line for line in traceback.format_stack() if "src/kaleidoscene" in line.split(",")[0]]
                if not any(word in line for word in ON_THE_HOST for line in stack[-2:]):
                    places.append(stack[-1])
            return func(*args, **(kwargs or {}))

    calls, read = [], module._read
    monkeypatch.setattr(module, "_read", lambda *parts: (calls.append(1), read(*parts))[1])
    trainer = make_trainer(shards, tmp_path)
    views = [trainer.batches[0]]
    with Reads():
        trainer._step(views, {})
    assert calls == [1] and places == []
    with Reads():  # the watch sees what it is for
        module.drifted_parameters(trainer.model, trainer.ema.weights)
    assert any("health.py" in place for place in places), places[:3]
