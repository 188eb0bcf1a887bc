"""What a run shows of itself (tokens, share of the peak, traces, Weights & Biases) and what it leaves alone."""

import json
import os
import struct
import subprocess
import sys

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.throughput import Throughput
from kaleidoscene.training.world import World
from tests.conftest import REPOSITORY
from tests.training.test_trainer import load_training_state, make_task, make_trainer, records, shards  # noqa: F401


def test_tokens_memory_and_share_of_the_peak_are_those_of_the_step(shards, tmp_path):  # noqa: F811
    trainer = make_trainer(shards, tmp_path, masking="none", steps=3)
    trainer.throughput = Throughput(World(), step_flops=3e9, peak=0.25)
    trainer.train()
    for record in records(tmp_path):
        # Three scenes of four views, 3 x 5 tokens each.
        assert record["tokens_per_second"] * record["seconds"] == pytest.approx(3 * 4 * 15)
        assert record["mfu"] * record["seconds"] * 0.25e12 == pytest.approx(3e9)
        assert 0.1 < record["memory"] < 64  # GiB of a process with PyTorch in it
    assert "mfu" not in Throughput(World(), 3e9, 0.0).of(10.0, 1.0)


def test_a_trace_has_the_operations_of_the_steps_that_were_asked_for(shards, tmp_path):  # noqa: F811
    make_trainer(shards, tmp_path, steps=6, profile=2).train()
    (path,) = (tmp_path / "profile").iterdir()
    assert path.name == "process-00000.json"
    events = json.loads(path.read_text())["traceEvents"]
    steps = sorted({event["name"] for event in events if event.get("name", "").startswith("ProfilerStep#")})
    assert steps == ["ProfilerStep#2", "ProfilerStep#3"]
    names = {event.get("name", "") for event in events}
    assert "aten::mm" in names or "aten::addmm" in names
    assert any("backward" in name.lower() for name in names)


def test_only_named_parts_learn(shards, tmp_path):  # noqa: F811
    """The others keep their weights to the bit, have no state of an optimiser, and a resumed run goes on alike."""
    before = {name: p.detach().clone() for name, p in make_trainer(shards, tmp_path / "start").model.named_parameters()}
    trainer = make_trainer(shards, tmp_path / "run", only=("head", "embedder"), steps=4)
    trainer.train()
    state = load_training_state(list_checkpoints(tmp_path / "run")[-1])
    moved = {name.split(".")[0] for name, p in state.weights.items() if not p.equal(before[name])}
    assert moved == {"head", "embedder"}
    assert {name.split(".")[0] for name in state.optimiser} == {"head", "embedder"}
    assert {name.split(".")[0] for name, p in state.average.items() if not p.equal(before[name])} == moved
    make_trainer(shards, tmp_path / "run", only=("head", "embedder"), steps=6).train()
    with pytest.raises(KaleidosceneError, match="only was"):
        make_trainer(shards, tmp_path / "run", only=("head",), steps=8)
    with pytest.raises(KaleidosceneError, match="part of the network 'heda': did you mean 'head'"):
        make_trainer(shards, tmp_path / "none", only=("heda",))


def test_batches_that_say_nothing_to_the_named_parts_change_nothing(shards, tmp_path):  # noqa: F811
    """Without references nothing is copied: what weighs copies keeps its weights, and the run goes on."""
    task = make_task(reprojection_depths=4, prediction="data")
    before = {name: p.detach().clone() for name, p in task.model.named_parameters()}
    trainer = make_trainer(shards, tmp_path / "run", task, only=("reprojection",), reference_dropout=1.0, steps=2)
    trainer.train()
    assert all(p.equal(before[name]) for name, p in trainer.model.named_parameters())
    trainer.passes.world = World(size=2)
    with pytest.raises(KaleidosceneError, match="--train.only reprojection: a batch says nothing to these parts"):
        trainer.passes._backward(torch.zeros(()))


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {repository!r})
from tests.training.test_trainer import make_trainer
make_trainer(Path(sys.argv[1]), Path(sys.argv[2]), wandb=True, steps=4).train()
"""


def log_records(data):
    """Records of a LevelDB log, the form of the library's files, behind a header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no header fits into the rest of a block
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        if not kind:
            break
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield whole
            whole = b""


@pytest.mark.slow
def test_weights_and_biases_is_given_every_step(shards, tmp_path):  # noqa: F811
    """Without a network: the library's own files hold the numbers of metrics.jsonl, under the run's name."""
    pytest.importorskip("wandb")
    from wandb.proto import wandb_internal_pb2

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(repository=str(REPOSITORY)), str(shards), str(tmp_path / "walk")],
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "walk" / "wandb").glob("offline-run-*/*.wandb")
    shown, name = [], ""
    for data in log_records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        if record.HasField("run"):
            name = record.run.display_name
        if record.HasField("history"):
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            shown.append((items["_step"], items["loss"]))
    assert name == "walk" and len(shown) == 4
    assert shown == [(record["step"], pytest.approx(record["loss"])) for record in records(tmp_path / "walk")]
    assert torch.isfinite(torch.tensor([loss for _, loss in shown])).all()
