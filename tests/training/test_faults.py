"""What goes wrong in long runs: kills, damaged scenes, changed recipes, divergence, overflow, folders read only."""

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from kaleidoscene.cli.main import main
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.damage import allowed_damage
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.health import Divergence, Spikes, top_activations
from kaleidoscene.training.optim import OptimConfig
from kaleidoscene.training.trainer import TrainConfig, Trainer
from tests.datasets.test_mixture import spoil
from tests.datasets.test_training_data import scenes
from tests.training.test_trainer import load_training_state, losses, make_task, make_trainer, records, shards  # noqa: F401

pytestmark = pytest.mark.slow

_NOBODY = 65534


def in_child(work) -> int:
    """Fork, run ``work`` quietly in the child; returns its process number."""
    child = os.fork()
    if child:
        return child
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        work()
        os._exit(0)
    except BaseException:
        os._exit(1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("background", [False, True])
def test_kills_at_random_moments_change_nothing(shards, tmp_path, background):  # noqa: F811
    """Killed time and again, inside checkpoint writes too, the run ends with the losses of an unbroken one."""
    kills = 4 if background else 6
    options = dict(checkpoint_every=1, steps=24, log_every=1)
    make_trainer(shards, tmp_path / "whole", **options).train()
    run, draw, torn = tmp_path / "killed", random.Random(7), 0
    for number in range(kills):
        child = in_child(lambda: make_trainer(shards, run, async_checkpoints=background, **options).train())
        before = len(list_checkpoints(run)) and list_checkpoints(run)[-1]
        deadline = time.monotonic() + 30
        while (not list_checkpoints(run) or list_checkpoints(run)[-1] == before) and time.monotonic() < deadline:
            time.sleep(0.002)  # every start gets one step further, so that the kills are spread over the run
        time.sleep(draw.uniform(0, 0.12))
        while number % 4 == 0 and time.monotonic() < deadline and not any((run / "checkpoints").glob("*.partial")):
            time.sleep(0.001)  # some wait for a write to begin
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        torn += any((run / "checkpoints").glob("*.partial"))
        load_training_state(list_checkpoints(run)[-1])  # the last good one always loads
    assert torn, "no kill fell into a checkpoint write"
    make_trainer(shards, run, **options).train()
    assert losses(tmp_path / "whole") == losses(run)


def test_changed_data_or_recipe_is_shown_and_can_be_forced(shards, tmp_path):  # noqa: F811
    def trainer(folder, **more):
        batches = ViewBatches(ShardFolder(folder), BatchConfig(batch_size=3, sampling=ViewSampling(views=4)))
        identity = {"sources": batches.fingerprint}
        config = TrainConfig(steps=4, precision="fp32", workers=0, checkpoint_every=2)
        return Trainer(make_task(), batches, config, tmp_path / "run", identity=identity, **more)

    trainer(shards).train()
    write_shard(tmp_path / "other" / "shard-000000.tar", [scenes(n) for n in range(5)])
    with pytest.raises(KaleidosceneError, match=r"another recipe: sources was .*, is .*--force-recipe"):
        trainer(tmp_path / "other")
    assert trainer(tmp_path / "other", force=True).step == 4


def test_damaged_scenes_are_counted_and_stop_the_run_above_the_rate(shards, tmp_path):  # noqa: F811
    write_shard(tmp_path / "data" / "shard-000000.tar", [scenes(n) for n in range(6)])
    spoil(tmp_path / "data", "scene-002")

    def trainer(name, share):
        config = BatchConfig(batch_size=3, sampling=ViewSampling(views=4), damaged_share=share)
        batches = ViewBatches(ShardFolder(tmp_path / "data"), config)
        return Trainer(
            make_task(), batches, TrainConfig(steps=8, precision="fp32", workers=0), tmp_path / name
        )  # fmt: skip

    trainer("lenient", 0.4).train()
    named = (tmp_path / "lenient" / "damaged-00000.txt").read_text().splitlines()
    # At least once in each of four epochs; what is drawn in its place may be damaged as well.
    assert records(tmp_path / "lenient")[-1]["damaged"] == len(named) >= 4 and all(
        "scene-002" in line for line in named
    )
    with pytest.raises(KaleidosceneError, match=r"stopped at step \d: \d damaged scenes, .* allowed .*scene-002"):
        trainer("strict", 0.05).train()


def test_a_share_of_damage_is_one_of_what_was_seen():
    """Millions that are stored are no licence: from ten thousand on it is the share of those that were tried."""
    assert allowed_damage(0.001, 64, 34_000_000) == 10
    assert allowed_damage(0.001, 50_000, 34_000_000) == 50
    assert allowed_damage(0.25, 3, 8) == 2  # a small set counts as a whole from the start
    assert allowed_damage(0.25, 80, 8) == 20  # and its damaged scenes come again every epoch


def test_fp16_that_cannot_be_saved_by_its_scale_stops(shards, tmp_path):  # noqa: F811
    """Gradients that are not finite at any scale are no overflow: the run ends and says where they arise."""
    task = make_task()
    trainer = make_trainer(shards, tmp_path, task, precision="fp16", steps=40)
    task.model.blocks[0].feed_forward.down.weight.register_hook(lambda g: g * float("nan"))
    with pytest.raises(
        KaleidosceneError, match=r"gradient norm is nan; it arose first in blocks\.0\.feed_forward\.down"
    ):
        trainer.train()
    assert 10 < len(records(tmp_path)) < 25 and "gradient_norm" not in records(tmp_path)[0]


def test_bad_data_is_named_through_worker_processes(shards, tmp_path):  # noqa: F811
    write_shard(tmp_path / "data" / "shard-000000.tar", [scenes(n) for n in range(6)])
    spoil(tmp_path / "data", "scene-002")
    config = BatchConfig(batch_size=6, sampling=ViewSampling(views=4))
    with pytest.raises(KaleidosceneError, match=r"^Damaged scene: .*scene-002"):
        next(ViewBatches(ShardFolder(tmp_path / "data"), config).loader(range(3), workers=1))


def test_a_diverging_run_stops_and_goes_back_with_a_lower_rate(shards, tmp_path):  # noqa: F811
    """The losses of the last steps are blown up; the run stops, and --rollback resumes before that."""
    options = dict(steps=60, checkpoint_every=10, keep_checkpoints=2, optim=OptimConfig(learning_rate=1e-3, warmup=1))
    task = make_task()
    trainer = make_trainer(shards, tmp_path, task, **options)
    trainer.divergence = Divergence(trainer.config.divergence_factor, window=10)
    inner = task.losses
    guilty = task.model.blocks[1].feed_forward.down.weight

    def blown_up(views, seed):
        if trainer.step < 27:
            return inner(views, seed)
        guilty.data.mul_(2.0)
        return {name: 50 * value for name, value in inner(views, seed).items()}

    task.losses = blown_up
    said = r"stopped at step [23]\d: the loss has diverged.*blocks\.1\.feed_forward\.down.*--rollback"
    with pytest.raises(KaleidosceneError, match=said):
        trainer.train()
    stopped = json.loads((tmp_path / "stopped.json").read_text())
    assert stopped["places"][0] == "blocks.1.feed_forward.down.weight" and len(stopped["places"]) == 5
    assert 20 <= stopped["good_step"] < stopped["step"] <= 32  # the last good step, not that of the lowest mean
    with pytest.raises(KaleidosceneError, match="another recipe"):  # refused before anything is dropped
        make_trainer(shards, tmp_path, rollback=0.5, seed=1, **options)
    assert (tmp_path / "stopped.json").is_file()
    stopped_note = (tmp_path / "stopped.json").read_text()
    make_trainer(shards, tmp_path, rollback=0.5, **options)  # as if killed before its first step
    (tmp_path / "stopped.json").write_text(stopped_note)  # as if killed before its last act
    make_trainer(shards, tmp_path, rollback=0.5, **options)
    assert make_trainer(shards, tmp_path, **options).rate_scale == 0.5
    again = make_trainer(shards, tmp_path, rollback=0.5, **options)  # the same command once more: no second halving
    assert again.step <= stopped["good_step"] and again.rate_scale == 0.5
    again.train()
    assert records(tmp_path)[-1]["learning_rate"] == pytest.approx(5e-4)
    assert [r["step"] for r in records(tmp_path)] == list(range(1, 61))
    # The lower rate stays with the run.
    assert make_trainer(shards, tmp_path, **options).rate_scale == 0.5
    for run in (tmp_path, tmp_path / "new"):  # no flag is swallowed once the run has gone on
        with pytest.raises(KaleidosceneError, match="nothing to go back from"):
            make_trainer(shards, run, rollback=0.5, **options)


def test_top_activations_of_no_view_are_none():
    network = make_task().model
    (name, unit), *_ = network.units().items()
    with top_activations(network) as found:
        for hook in unit._forward_hooks.values():
            hook(unit, (), torch.zeros(0, 3, 4))
    assert found[name] == 0


def test_what_counts_as_divergence_and_as_a_spike():
    watch = Divergence(2.0, window=3)
    curve = [1.0, 1.0, 1.0, 1.9, 1.9, 2.5, 2.5]
    assert [watch.observe(n, loss) for n, loss in enumerate(curve)] == [False] * 5 + [True] * 2
    assert watch.best == 1.0 and watch.good_step == 3  # the mean there, 1.3, is still within a factor of sqrt(2)
    never = Divergence(0.0, window=2)
    assert not any(never.observe(n, 10.0**n) for n in range(9))
    spikes = Spikes(ratio=10.0, window=4)
    assert [spikes.observe(norm) for norm in (1.0, 1.0, 1.0, 1.0, 9.0, 11.0)] == [False] * 5 + [True]


def test_fp16_leaves_overflowing_steps_out_and_lowers_its_scale(shards, tmp_path):  # noqa: F811
    """Half precision with its scaler runs here too; an overflow costs a step, not the run."""
    task = make_task()
    trainer = make_trainer(shards, tmp_path, task, precision="fp16")
    weight = task.model.blocks[0].feed_forward.down.weight
    weight.register_hook(lambda g: g * float("inf") if trainer.step == 2 else g)
    trainer.train()
    found = records(tmp_path)
    assert [r["skipped"] for r in found] == [0, 0, 1, 0, 0, 0, 0, 0]
    assert found[2]["loss_scale"] == found[1]["loss_scale"] / 2
    assert torch.isfinite(weight).all()
    make_trainer(shards, tmp_path / "full").train()
    for half, full in zip(found[:2], records(tmp_path / "full")[:2], strict=True):
        assert half["loss"] == pytest.approx(full["loss"], rel=0.01)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_read_only_folder_ends_the_run_cleanly():
    """As a user who may not write there (the superuser steps down): one sentence, exit 1, nothing left."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o755)
        write_shard(base / "shards" / "shard-000000.tar", [scenes(n, size=(32, 32)) for n in range(4)])
        ShardFolder(base / "shards")  # leaves the catalogue, which cannot be written either
        (base / "run").mkdir()
        (base / "run").chmod(0o555)
        said = base / "said.txt"

        def train():
            with said.open("w") as file, contextlib.redirect_stderr(file):
                if os.geteuid() == 0:
                    os.setuid(_NOBODY)
                code = main(["train", "kaleido-debug", "--out", str(base / "run"), "--shards", str(base / "shards")])
            os._exit(code)

        _, status = os.waitpid(in_child(train), 0)
        assert os.waitstatus_to_exitcode(status) == 1
        (line,) = said.read_text().splitlines()
        assert "run" in line and "Permission denied" in line
        assert not list((base / "run").iterdir())


def test_a_display_that_fails_does_not_stop_the_training(shards, tmp_path, capsys):  # noqa: F811
    pytest.importorskip("tensorboard")
    trainer = make_trainer(shards, tmp_path, tensorboard=True)

    def fail(*_):
        raise OSError(28, "No space left on device")

    trainer.log._displays["TensorBoard"].writer.add_scalar = fail
    trainer.train()
    assert len(records(tmp_path)) == 8
    assert "TensorBoard failed" in capsys.readouterr().out
