"""Several processes, one run: the numbers of one process, and checkpoints that any number can read.

Every test starts real processes over gloo.
"""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch

from kaleidoscene.api import load
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.checkpoint import load_model
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.checkpoint_state import load_training_state as load_state
from kaleidoscene.training.optim import OptimConfig
from kaleidoscene.training.world import World
from tests.conftest import CAUSAL, REPOSITORY
from tests.datasets.test_training_data import scenes
from tests.training.processes import SIX, run_together
from tests.training.test_trainer import (  # noqa: F401
    load_training_state,
    losses,
    make_task,
    make_trainer,
    records,
    shards,
)

JOINT = dict(reference_attention="bidirectional", reference_time="shared")


def train_alone(shards, run, **options):  # noqa: F811
    make_trainer(shards, run, **{**SIX, **options}).train()
    return losses(run)


def close(a, b, tolerance):
    assert [step for step, *_ in a] == [step for step, *_ in b]
    for (_, loss, norm), (_, other_loss, other_norm) in zip(a, b, strict=True):
        assert other_loss == pytest.approx(loss, rel=tolerance)
        assert other_norm == pytest.approx(norm, rel=tolerance)


WAYS = {
    2: {
        "micro-batches": dict(sharding="fsdp", accumulate=3),
        "counts": dict(sharding="fsdp", share_counts=3, reference_dropout=0.5, network=dict(reprojection_depths=5)),
        "ddp": dict(sharding="ddp", accumulate=1),
        "views": dict(sharding="fsdp", view_parallel=2, reference_dropout=0.5, network=dict(window=2)),
    },
    3: {
        "fsdp": dict(sharding="fsdp"),
        "views": dict(sharding="fsdp", view_parallel=3, network=dict(window=2, **JOINT)),
    },
    4: {
        "hybrid": dict(sharding="hybrid", shard_size=2, batch_size=4, activation_checkpointing=True),
        "views": dict(sharding="fsdp", view_parallel=2, network=dict(window=1), accumulate=3),
    },
}
"""By the number of processes. Views: four over two and three, windows that do not divide the grid, hidden views,
dropped references."""
TWICE = {
    "fp32": dict(sharding="fsdp", gather_precision="fp32", precision="bf16", network=dict(reprojection_depths=5)),
    "compute": dict(sharding="fsdp", gather_precision="compute", precision="bf16", network=dict(reprojection_depths=5)),
    "plain": dict(sharding="fsdp", network=CAUSAL, steps=5),
    "scored": dict(sharding="fsdp", network=CAUSAL, steps=5, score=True, validate_every=2),
    "meta": dict(sharding="fsdp", steps=1, meta=True, async_checkpoints=True),
    "begun": dict(sharding="fsdp", steps=3),
    # One process may compile longer than the other.
    "compiled": dict(
        sharding="fsdp", activation_checkpointing=True, compile=True, backend="eager", timeout=1200.0,
        network=dict(depth=1), steps=2, masking="drop",
    ),
}  # fmt: skip
"""What two processes train beside that."""


@pytest.fixture(scope="module")
def by_two(shards, tmp_path_factory):  # noqa: F811
    """Folder of the runs of two processes, which are started once for all of them."""
    folder = tmp_path_factory.mktemp("two")
    runs = {folder / name / "many": options for name, options in WAYS[2].items()}
    done = run_together(2, shards, runs | {folder / name: options for name, options in TWICE.items()})
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_two_processes_follow_the_losses_of_one(shards, by_two):  # noqa: F811
    """Same global batch, same losses and gradient norms: fp32 sums in another order differ by about 1e-6."""
    check_ways(shards, *by_two, 2)


@pytest.fixture(scope="module")
def by_three(shards, by_two, tmp_path_factory):  # noqa: F811
    """Likewise of three; among them what two have begun, gone on with, and saved again at once."""
    folder, again = tmp_path_factory.mktemp("three"), {}
    for name in ("three", "fsdp", "ddp"):
        shutil.copytree(by_two[0] / "begun", folder / name)
        again[folder / name] = (
            dict(sharding=name, steps=3, save_again=True) if name != "three" else dict(sharding="fsdp")
        )
    runs = {folder / name / "many": options for name, options in WAYS[3].items()}
    done = run_together(3, shards, runs | again)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_three_processes_follow_the_losses_of_one(shards, by_three):  # noqa: F811
    check_ways(shards, *by_three, 3)


@pytest.mark.slow
def test_four_processes_follow_the_losses_of_one(shards, tmp_path):  # noqa: F811
    done = run_together(4, shards, {tmp_path / name / "many": options for name, options in WAYS[4].items()})
    assert done.returncode == 0, done.stdout + done.stderr
    check_ways(shards, tmp_path, done.stdout, 4)


def check_ways(shards, folder, said, processes):  # noqa: F811
    for name, options in WAYS[processes].items():
        if options["sharding"] == "fsdp" and "view_parallel" not in options:
            # Once a step for each of the two blocks and the rest, however it is cut; Muon's matrices twice.
            counts = re.findall(rf"/{name}/many: gradients exchanged: (\d+), matrices: (\d+)", said)
            assert counts == [(str(3 * SIX["steps"]), str(2 * SIX["steps"]))] * processes
        as_one_does(shards, folder / name, options)


def as_one_does(shards, tmp_path, options):  # noqa: F811
    """What many processes have trained in a folder, against a run of one beside it."""
    same = {name: options[name] for name in ("batch_size", "share_counts", "reference_dropout") if name in options}
    task = make_task(**options.get("network", {}))
    parts = 2 if "share_counts" in same else 1
    # Reprojection and dropped references make more of rounding: from 1e-7 in the first step to 3e-4 in the sixth.
    tolerance = 1e-3 if "share_counts" in same else 2e-4
    expected = train_alone(shards, tmp_path / "one", task=task, accumulate=parts, **same)
    close(expected, losses(tmp_path / "many"), tolerance)
    for alone, together in zip(records(tmp_path / "one"), records(tmp_path / "many"), strict=True):
        tops = {name: value for name, value in alone.items() if name.startswith("top_activation/")}
        assert len(tops) == (2 if alone["step"] % 2 else 0)  # watched every other step
        for name, value in tops.items():  # of all processes, and of all micro-batches
            assert together[name] == pytest.approx(value, rel=tolerance)
    assert max(norm for _, _, norm in expected) > OptimConfig().clip, "some gradients were clipped"
    last = list_checkpoints(tmp_path / "many")[-1]
    before = dict(make_task(**options.get("network", {})).model.named_parameters())
    one, many = (
        load_state(list_checkpoints(tmp_path / name)[-1], World(), {key: p.clone() for key, p in before.items()})
        for name in ("one", "many")
    )
    for kind in ("weights", "average"):  # single numbers whose gradient is next to nothing may go either way
        after = getattr(one, kind)
        apart, moved = (
            sum((other[name] - p).square().sum().item() for name, p in after.items()) ** 0.5
            for other in (getattr(many, kind), before)
        )
        assert 0 < moved and apart < 0.1 * moved, (kind, apart / moved)
    sums = json.loads((last / "checksums.json").read_text())
    files = {str(path.relative_to(last)) for path in last.rglob("*") if path.is_file()} - {"checksums.json"}
    assert sums.keys() == files and "model.safetensors" in files


def test_views_are_spread_only_where_windows_allow_it():
    with pytest.raises(ValueError, match="spread over 2 processes by windows, and there are 1 of them"):
        make_task().spread(0, 2, None)
    with pytest.raises(KaleidosceneError, match="reprojection needs all references"):
        make_task(window=1, reprojection_depths=5).spread(0, 2, None)


@pytest.mark.slow
def test_weights_that_travel_in_half_precision_train_alike(by_two):
    """``gather_precision compute`` rounds norms and reprojection's numbers too; losses stay those of fp32 weights."""
    fp32, compute = (losses(by_two[0] / name) for name in ("fp32", "compute"))
    close(fp32[:3], compute[:3], 0.03)
    assert fp32 != compute


@pytest.mark.slow
def test_a_run_of_two_goes_on_alone_and_with_three(shards, by_two, by_three, tmp_path):  # noqa: F811
    """What two processes wrote is read by one and by three bit by bit, and their losses go on alike."""
    begun = by_two[0] / "begun"
    shutil.copytree(begun, tmp_path / "alone")
    saved = list_checkpoints(begun)[-1]
    state = load_training_state(saved)
    trainer = make_trainer(shards, tmp_path / "alone", **SIX)
    assert trainer.step == 3
    for name, p in trainer.model.named_parameters():
        assert p.equal(state.weights[name]) and trainer.ema.weights[name].equal(state.average[name])
    model, _ = load_model(saved)  # the checkpoint of two is one to render with
    for name, p in model.named_parameters():
        assert p.equal(state.average[name])
    trainer.train()
    close(losses(tmp_path / "alone"), losses(by_three[0] / "three"), 2e-4)
    # Saved again at once by three, the weights are the same bits: nothing is rounded or lost by spreading them anew.
    for name in ("fsdp", "ddp"):
        newest = list_checkpoints(by_three[0] / name)[-1]
        assert newest.stat().st_mtime_ns > saved.stat().st_mtime_ns
        back = load_training_state(newest)
        for kind in ("weights", "average", "optimiser"):
            for key, tensor in getattr(state, kind).items():
                assert tensor.equal(getattr(back, kind)[key]), (kind, key)


@pytest.mark.slow
def test_weights_begin_alike_for_any_number_of_processes(shards, by_two, tmp_path):  # noqa: F811
    """Built on the meta device and filled in shares, the model begins with the weights that one process gives it."""
    with torch.device("meta"):
        task = make_task()
    alone = make_trainer(shards, tmp_path / "one", task, **{**SIX, "steps": 1})
    first = {name: p.detach().clone() for name, p in alone.model.named_parameters()}
    whole = make_task()  # the usual way, by the constructor
    torch.manual_seed(0)
    whole.model.reset_parameters()
    assert all(p.equal(first[name]) for name, p in whole.model.named_parameters())
    alone.train()
    close(losses(tmp_path / "one"), losses(by_two[0] / "meta"), 1e-5)


@pytest.mark.slow
def test_held_out_numbers_in_between_change_nothing(by_two):
    """Rendering with the averaged weights, through the reference cache, while they are spread; then on as before."""
    assert losses(by_two[0] / "plain") == losses(by_two[0] / "scored")
    scored = [record for record in records(by_two[0] / "scored") if "held_out/mean" in record]
    assert [record["step"] for record in scored] == [2, 4, 5]
    assert len({record["held_out/mean"] for record in scored}) == 3


@pytest.mark.slow
def test_the_command_line_runs_under_torchrun(tmp_path):
    """What docs/training.md says: one line for many processes; only one of them speaks, and the result renders."""
    write_shard(tmp_path / "s" / "shard-000000.tar", [scenes(n, size=(32, 32)) for n in range(8)])
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "kaleidoscene",
        "train", "kaleido-debug", "--out", str(tmp_path / "run"), "--shards", str(tmp_path / "s"),
        "--train.sharding", "fsdp", "--train.steps", "3",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, check=False, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("wrote ") == 1
    assert load(str(tmp_path / "run")).image_size == (32, 32)


@pytest.mark.slow
def test_compiled_blocks_train_like_eager_ones(shards, by_two, tmp_path):  # noqa: F811
    """torch.compile on every block, sharded and recomputed as in the paper's recipes, changes no loss beyond rounding;
    in processes whose shapes are not checked. What it makes of a block's graph afterwards is PyTorch's own, and takes
    two minutes: graphs are run as they are traced."""
    expected = train_alone(shards, tmp_path / "eager", task=make_task(depth=1), steps=2, masking="drop")
    assert by_two[1].count("compiled blocks: 1") == 2  # both may say it at once, in one line
    close(expected, losses(by_two[0] / "compiled"), 2e-4)
