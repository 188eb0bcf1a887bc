"""What goes wrong in one process of several: all stop together, with the cause, and go on where they were.

Every test starts real processes over gloo.
"""

import json
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.checkpoint_state import TrainingState
from kaleidoscene.training.heartbeat import describe
from tests.training.processes import run_together, start, torchrun
from tests.training.test_trainer import (  # noqa: F401
    load_training_state,
    losses,
    make_task,
    make_trainer,
    records,
    shards,
)

DIVERGES = dict(batch_size=2, steps=24, checkpoint_every=10, divergence_factor=2.0, window=10)
FIRST = {
    "whole": {},
    "signal": dict(ask=[1, 2], signal="SIGUSR1"),
    "hurried": dict(hurry=1),
    "diverged": dict(DIVERGES, blow_up=16, refused=True),
    "bad": dict(spoil=[1, 2], refused=True),
    "none": dict(sharding="none", refused=True),
    "odd": dict(batch_size=5, refused=True),
}
SECOND = {"signal": {}, "hurried": {}, "diverged": dict(DIVERGES, rollback=0.5)}
"""What two processes train one after the other, and what they go on with when they are started again."""
COMBINATION = dict(
    sharding="fsdp", activation_checkpointing=True, precision="fp16", accumulate=3, meta=True,
    async_checkpoints=True, checkpoint_every=1, overflow=[1, 2],
)  # fmt: skip
"""Of the paper's recipes: recomputed blocks, fp16, micro-batches, checkpoints in the background."""


@dataclass(frozen=True)
class Twice:
    """Folder of the runs, what was said of the first start, what lay there after it, and of the run that was killed."""

    folder: Path
    first: CompletedProcess[str]
    left: dict[str, str]
    before: TrainingState


@pytest.fixture(scope="module")
def twice(shards, tmp_path_factory):  # noqa: F811
    """All that two processes train, who are started twice; the first time one is killed in the last run."""
    folder = tmp_path_factory.mktemp("twice")
    first, second = (
        {folder / name: {"sharding": "fsdp", **options} for name, options in runs.items()} for runs in (FIRST, SECOND)
    )
    # The disk of one process is slow, from here on.
    first |= {folder / "unbroken": dict(COMBINATION, slow_disk=1), folder / "killed": dict(COMBINATION, kill=[0, 4])}
    done = run_together(2, shards, first)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert [record["step"] for record in records(folder / "unbroken")] == list(range(1, 7))
    left = {name: list_checkpoints(folder / name)[-1].name for name in ("signal", "hurried")}
    left |= {name: (folder / name / "stopped.json").read_text() for name in ("diverged", "bad")}
    before = load_training_state(list_checkpoints(folder / "killed")[-1])
    again = run_together(2, shards, {**second, folder / "killed": COMBINATION})
    assert again.returncode == 0, again.stdout + again.stderr
    return Twice(folder, done, left, before)


@pytest.mark.slow
def test_the_combination_of_the_paper_recipes_goes_on_after_a_kill(twice):
    assert 1 <= twice.before.step <= 4
    names = ("step", "loss", "gradient_norm", "loss_scale", "skipped")
    whole, broken = (
        [[record.get(name) for name in names] for record in records(twice.folder / run)]
        for run in ("unbroken", "killed")
    )
    assert whole == broken
    assert [skipped for *_, skipped in whole] == [0, 0, 1, 0, 0, 0]
    assert [scale for *_, scale, _ in whole] == [2.0**16] * 2 + [2.0**15] * 4


@pytest.mark.slow
def test_when_the_time_of_one_process_is_up_all_stop_at_the_same_step(twice):
    assert twice.left["hurried"] == "step-00000001"
    assert losses(twice.folder / "hurried") == losses(twice.folder / "whole")


@pytest.mark.slow
def test_two_processes_see_a_divergence_alike_and_go_back_together(twice):
    assert twice.first.stderr.count("the loss has diverged") >= 1
    stopped = json.loads(twice.left["diverged"])
    assert 16 < stopped["step"] < 24 and stopped["places"][0] == "blocks.1.feed_forward.down.weight"
    run = twice.folder / "diverged"
    assert [record["step"] for record in records(run)] == list(range(1, 25))
    first, last = (json.loads((path / "training" / "state.json").read_text()) for path in list_checkpoints(run))
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
    options = dict(batch_size=4, sharding="hybrid", shard_size=2, kill=[1, 2], signal="SIGSTOP", timeout=6.0)
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
def test_a_signal_to_one_process_stops_all_at_the_next_step_and_they_go_on(twice):
    assert twice.first.stdout.count("interrupted: True") == 2
    assert twice.left["signal"] in ("step-00000003", "step-00000004")
    assert losses(twice.folder / "signal") == losses(twice.folder / "whole")


@pytest.mark.slow
def test_a_bad_number_in_one_process_stops_all_with_the_cause(twice):
    said = (
        r"Training stopped at step 2: the loss is nan; it arose first in (\S+) of process 1, in a .* scene (scene-\d+)"
    )
    module, scene = re.search(said, twice.first.stderr).groups()
    stopped = json.loads(twice.left["bad"])
    assert stopped["step"] == 2 and stopped["places"][0] == module and not module.endswith(".grad")
    assert stopped["scenes"][0] == scene and len(stopped["scenes"]) == 3  # of its half of the batch


@pytest.mark.slow
def test_several_processes_must_say_how_they_share(twice):
    assert twice.first.stderr.count("--train.sharding ddp, fsdp or hybrid") == 2
    assert twice.first.stderr.count("must be a multiple of 2") == 2
