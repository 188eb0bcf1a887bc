"""What goes wrong in one process of several: all stop together, with the cause, and go on where they were.

Every test starts real processes over gloo.
"""

import json
import re
import signal
import time

import pytest

from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.heartbeat import describe
from tests.training.processes import run_together, start, torchrun
from tests.training.test_distributed import close, train_alone
from tests.training.test_trainer import (  # noqa: F401
    load_training_state,
    losses,
    make_task,
    make_trainer,
    records,
    shards,
)


@pytest.mark.slow
def test_the_combination_of_the_paper_recipes_goes_on_after_a_kill(shards, tmp_path):  # noqa: F811
    """fsdp, recomputed blocks, fp16, micro-batches, checkpoints in the background; the disk of one process is slow."""
    options = dict(
        sharding="fsdp", activation_checkpointing=True, precision="fp16", accumulate=3, meta=True,
        async_checkpoints=True, checkpoint_every=1, overflow=[1, 2],
    )  # fmt: skip
    slow, killed = dict(options, slow_disk=1), dict(options, kill=[0, 4])
    done = run_together(2, shards, {tmp_path / "whole": slow, tmp_path / "broken": killed})
    assert done.returncode == -signal.SIGKILL
    before = load_training_state(list_checkpoints(tmp_path / "broken")[-1])
    assert 1 <= before.step <= 4
    done = run_together(2, shards, {tmp_path / "broken": options})
    assert done.returncode == 0, done.stdout + done.stderr
    names = ("step", "loss", "gradient_norm", "loss_scale", "skipped")
    whole, broken = (
        [[record.get(name) for name in names] for record in records(tmp_path / run)] for run in ("whole", "broken")
    )
    assert whole == broken
    assert [skipped for *_, skipped in whole] == [0, 0, 1, 0, 0, 0]
    assert [scale for *_, scale, _ in whole] == [2.0**16] * 2 + [2.0**15] * 4


@pytest.mark.slow
def test_when_the_time_of_one_process_is_up_all_stop_at_the_same_step(shards, tmp_path):  # noqa: F811
    done = run_together(2, shards, {tmp_path / "run": dict(sharding="fsdp", hurry=1)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in list_checkpoints(tmp_path / "run")] == ["step-00000001"]
    done = run_together(2, shards, {tmp_path / "run": dict(sharding="fsdp")})
    assert done.returncode == 0, done.stdout + done.stderr
    close(train_alone(shards, tmp_path / "whole"), losses(tmp_path / "run"), 2e-4)


@pytest.mark.slow
def test_two_processes_see_a_divergence_alike_and_go_back_together(shards, tmp_path):  # noqa: F811
    options = dict(sharding="fsdp", batch_size=2, steps=24, checkpoint_every=10, divergence_factor=2.0, window=10)
    done = run_together(2, shards, {tmp_path / "run": dict(options, blow_up=16)})
    assert done.returncode != 0 and done.stderr.count("the loss has diverged") >= 1
    stopped = json.loads((tmp_path / "run" / "stopped.json").read_text())
    assert 16 < stopped["step"] < 24 and stopped["places"][0] == "blocks.1.feed_forward.down.weight"
    done = run_together(2, shards, {tmp_path / "run": dict(options, rollback=0.5)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert [record["step"] for record in records(tmp_path / "run")] == list(range(1, 25))
    first, last = (
        json.loads((path / "training" / "state.json").read_text()) for path in list_checkpoints(tmp_path / "run")
    )
    assert (first["step"], last["step"]) == (20, 24) and first["rate_scale"] == last["rate_scale"] == 0.5


@pytest.mark.slow
def test_a_killed_process_ends_all(shards, tmp_path):  # noqa: F811
    started = time.monotonic()
    done = torchrun(2, shards, tmp_path / "run", sharding="fsdp", kill=[1, 2])
    assert done.returncode != 0
    assert "rank      : 1" in done.stderr and "SIGKILL" in done.stderr  # torchrun's own report names it
    assert time.monotonic() - started < 120


@pytest.mark.slow
def test_a_process_that_hangs_is_given_up(shards, tmp_path):  # noqa: F811
    """No launcher looks on here: its neighbour itself stops waiting, in a group within the mesh, when time is over."""
    options = dict(batch_size=4, sharding="hybrid", shard_size=2, kill=[1, 2], signal="SIGSTOP", timeout=10.0)
    with (tmp_path / "said-0.txt").open("w") as first, (tmp_path / "said.txt").open("w") as others:
        said = [[others, first], *[[others, others]] * 3]
        processes = start(4, shards, {tmp_path / "run": options}, said)
    try:
        processes[0].wait(timeout=300)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = (tmp_path / "said-0.txt").read_text()
    assert processes[0].returncode > 0 and "waiting for other processes was given up" in said
    assert "Process 1 gives no sign of life" in said, said[-2000:]


def test_who_holds_the_others_up_is_told_from_where_all_are():
    """``step, phase, units, beats`` by process, looked at twice."""
    waiting = {0: (4, 2, 3, 10), 1: (4, 1, 0, 9), 2: (4, 2, 3, 12)}
    later = {rank: (*at[:3], at[3] + 5) for rank, at in waiting.items()}
    assert describe(waiting, later) == "Process 1 holds the others up, computing the loss of step 5."
    later[2] = waiting[2]
    assert describe(waiting, later) == "Process 2 gives no sign of life, in the network (unit 3) of step 5."
    same = {rank: (4, 3, 0, rank) for rank in range(3)}
    assert describe(same, {rank: (4, 3, 0, 9 + rank) for rank in range(3)}) == ""


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_next_step_and_they_go_on(shards, tmp_path):  # noqa: F811
    asked = dict(sharding="fsdp", ask=[1, 2], signal="SIGUSR1")
    done = run_together(2, shards, {tmp_path / "whole": dict(sharding="fsdp"), tmp_path / "run": asked})
    assert done.returncode == 0 and done.stdout.count("interrupted: True") == 2, done.stdout + done.stderr
    stopped = list_checkpoints(tmp_path / "run")[-1].name
    assert stopped in ("step-00000003", "step-00000004")
    again = run_together(2, shards, {tmp_path / "run": dict(sharding="fsdp")})
    assert again.returncode == 0 and losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_bad_number_in_one_process_stops_all_with_the_cause(shards, tmp_path):  # noqa: F811
    done = run_together(2, shards, {tmp_path / "run": dict(sharding="fsdp", spoil=[1, 2])})
    assert done.returncode != 0
    said = (
        r"Training stopped at step 2: the loss is nan; it arose first in (\S+) of process 1, in a .* scene (scene-\d+)"
    )
    module, scene = re.search(said, done.stderr).groups()
    stopped = json.loads((tmp_path / "run" / "stopped.json").read_text())
    assert stopped["step"] == 2 and stopped["places"][0] == module and not module.endswith(".grad")
    assert stopped["scenes"][0] == scene and len(stopped["scenes"]) == 3  # of its half of the batch


@pytest.mark.slow
def test_several_processes_must_say_how_they_share(shards, tmp_path):  # noqa: F811
    ways = {tmp_path / "none": dict(refused=True), tmp_path / "odd": dict(sharding="fsdp", batch_size=5, refused=True)}
    done = run_together(2, shards, ways)
    assert done.stderr.count("--train.sharding ddp, fsdp or hybrid") == 2
    assert done.stderr.count("must be a multiple of 2") == 2
