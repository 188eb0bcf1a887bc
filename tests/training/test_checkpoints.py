"""Checkpoints: written whole or not at all, refused when they were changed, the same in the background."""

import os
import resource
import signal
import time
from dataclasses import replace

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.checkpoint import load_model
from kaleidoscene.training.checkpoint import CheckpointWriter
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.checkpoint_state import TrainingState
from kaleidoscene.training.world import World
from tests.training.test_trainer import load_training_state, losses, make_task, make_trainer, records, shards  # noqa: F401


@pytest.mark.parametrize("background", [False, True])
def test_a_process_alone_names_no_device_to_write_on(tmp_path, background):
    """``cuda`` without a number, as one process on a GPU has it; nothing of it is needed to write tensors."""
    writer = CheckpointWriter(tmp_path, World(device="cuda"), keep=1, background=background)
    tensor = {"a": torch.arange(6.0)}
    writer.save({}, TrainingState(3, tensor, {"a": tensor["a"] + 1}, {}, {}))
    writer.finish()
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000003"]


@pytest.mark.parametrize("background", [False, True])
def test_a_full_disk_leaves_the_last_good_checkpoint(shards, tmp_path, background):  # noqa: F811
    """Under a limit on the size of files the write fails as on a full disk: one sentence, nothing half-written.

    The averaged weights, which are written in the foreground, still fit; those with the optimiser's states do not.
    """
    trainer = make_trainer(shards, tmp_path, checkpoint_every=2, async_checkpoints=background)
    save, limits = trainer._save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_a_full_disk():
        if trainer.step == 4:
            trainer.checkpoints.finish()
            fits = (list_checkpoints(tmp_path)[-1] / "model.safetensors").stat().st_size + 10_000
            resource.setrlimit(resource.RLIMIT_FSIZE, (fits, limits[1]))
        save()

    trainer._save = on_a_full_disk
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(KaleidosceneError, match=r"step-00000004: the checkpoint cannot be written .*step-00000002"):
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]
    make_trainer(shards, tmp_path, checkpoint_every=2).train()
    make_trainer(shards, tmp_path / "whole", checkpoint_every=2).train()
    assert losses(tmp_path) == losses(tmp_path / "whole")


@pytest.mark.parametrize("name", ["model.safetensors", "training/state.json", "shards"])
@pytest.mark.parametrize("how", ["truncated", "edited", "missing"])
def test_a_damaged_checkpoint_is_refused_by_name(shards, tmp_path, name, how):  # noqa: F811
    last = make_trainer(shards, tmp_path, steps=3).train()
    file = next((last / "training" / "shards").iterdir()) if name == "shards" else last / name
    payload = bytearray(file.read_bytes())
    if how == "truncated":
        file.write_bytes(payload[: len(payload) // 2])
    elif how == "edited":
        payload[len(payload) // 2] ^= 1
        file.write_bytes(payload)
    else:
        file.unlink()
    with pytest.raises(KaleidosceneError, match=file.name.replace(".", r"\.")):
        make_trainer(shards, tmp_path)


def test_what_others_read_of_a_checkpoint_is_compared_with_its_checksums(shards, tmp_path):  # noqa: F811
    """One bit of the averaged weights, or of their description, must not pass from stage to stage or into a picture."""
    last = make_trainer(shards, tmp_path, steps=3).train()
    load_model(last)
    for name in ("model.safetensors", "config.json"):
        whole = (last / name).read_bytes()
        edited = bytearray(whole)
        edited[-9] ^= 1
        (last / name).write_bytes(edited)
        with pytest.raises(
            KaleidosceneError, match=rf"{name}: damaged or changed since it was written|not readable JSON"
        ):
            load_model(last)
        (last / name).write_bytes(whole)
    (last / "checksums.json").unlink()  # weights that were exported have none
    load_model(last)


def test_clocks_are_not_asked_which_checkpoint_is_the_last(shards, tmp_path):  # noqa: F811
    """On a file system whose clock runs ahead or backwards the run goes on from the last step all the same."""
    make_trainer(shards, tmp_path / "whole").train()
    trainer = make_trainer(shards, tmp_path / "run", checkpoint_every=3)
    trainer.config = replace(trainer.config, time_limit=1e-9)  # it is up at the first step
    trainer.train()
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000001"]
    again = make_trainer(shards, tmp_path / "run", steps=6)
    again.train()
    tomorrow = time.time() + 86_400
    for number, path in enumerate(list_checkpoints(tmp_path / "run")):
        for file in (path, *path.rglob("*")):
            os.utime(file, (tomorrow - 1000 * number,) * 2)
    os.utime(shards / "shard-000000.index.json", (tomorrow,) * 2)
    resumed = make_trainer(shards, tmp_path / "run")
    assert resumed.step == 6
    resumed.train()
    assert [step for step, *_ in losses(tmp_path / "run")] == list(range(1, 9))


def test_background_checkpoints_are_those_of_the_step_they_name(shards, tmp_path):  # noqa: F811
    """What is written in the background is the state when it was asked for, though the training goes on."""
    make_trainer(shards, tmp_path / "plain", checkpoint_every=2, keep_checkpoints=9).train()
    make_trainer(shards, tmp_path / "late", checkpoint_every=2, keep_checkpoints=9, async_checkpoints=True).train()
    plain, late = list_checkpoints(tmp_path / "plain"), list_checkpoints(tmp_path / "late")
    assert [path.name for path in plain] == [path.name for path in late] and len(plain) == 4
    for a, b in zip(plain, late, strict=True):
        first, second = load_training_state(a), load_training_state(b)
        for kind in ("weights", "average", "optimiser"):
            for key, tensor in getattr(first, kind).items():
                assert tensor.equal(getattr(second, kind)[key]), (a.name, kind, key)
