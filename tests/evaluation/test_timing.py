"""Timings by a clock that is known, and the bench command on this machine."""

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kaleidoscene.cli.main import main
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.timing import SpeedReport, Timing, compare_speed, matrix_peak, measure, read_speed_report
from kaleidoscene.families.kaleido.checkpoint import save_model
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.recipes import kaleido_debug
from tests.conftest import randomised
from tests.datasets.test_training_data import scenes


def test_medians_spreads_and_shares(monkeypatch):
    """A clock that ticks 1, 2, 3, 4 and 100 seconds: one hiccup changes neither median nor much of the spread."""
    ticks = iter([0.0, 1.0, 10.0, 12.0, 20.0, 23.0, 30.0, 34.0, 40.0, 140.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(ticks))
    calls = []
    timing = measure("work", lambda: calls.append(1), count=6, unit="frames", runs=5, flops=300, peak=200.0)
    assert len(calls) == 6  # one to warm up
    assert timing.seconds == 3 and timing.per_second == 2 and timing.share_of_peak == pytest.approx(0.5)
    assert timing.runs == 5 and timing.spread == pytest.approx(1 / 3)


def test_the_peak_is_that_of_a_matrix_product():
    started = time.perf_counter()
    peak = matrix_peak("cpu", torch.float32, side=256, runs=3)
    assert 4 * 2 * 256**3 / (time.perf_counter() - started) <= 4 * peak


def test_the_memory_of_a_run_is_its_own_peak():
    """64 MiB that are touched show, a later run does not inherit them; without Linux's /proc nothing is claimed."""
    # In a process of its own: this one may hold freed memory, which is resident already.
    program = "import torch; from kaleidoscene.evaluation.timing import measure\n"
    program += "for n in (2**24, 8): print(measure('', lambda: torch.ones(n), count=1, unit='', runs=1).peak_mebibytes)"
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    large, small = (None if line == "None" else float(line) for line in out.split())
    if not Path("/proc/self/clear_refs").exists():
        assert large is None and small is None
        return
    assert large is not None and small is not None and 48 < large - small < 96


def report(seconds, spread=0.0, **machine):
    timing = Timing(name="render", seconds=seconds, spread=spread, runs=3, per_second=1 / seconds, unit="frames")
    return SpeedReport(
        machine={"device": "one", "threads": 1, "cores": 2, **machine}, model="m", peak_flops={"fp32": 1.0},
        timings=(timing,),
    )  # fmt: skip


def test_changes_of_speed_are_told_from_noise():
    text = compare_speed([report(2.0), report(1.0), report(1.9, spread=0.2)], ["before", "after", "again"])
    assert "| render | 2.0000 | 2.00x | 1.05x (within the spread) |" in text
    with pytest.raises(KaleidosceneError, match="different conditions .threads: 1, 2"):
        compare_speed([report(2.0), report(1.0, threads=2)], ["a", "b"])
    with pytest.raises(KaleidosceneError, match="no timing in common"):
        other = report(1.0)
        compare_speed([report(2.0), replace(other, timings=(replace(other.timings[0], name="x"),))], ["a", "b"])
    with pytest.raises(KaleidosceneError, match="at least 2 reports"):
        compare_speed([report(2.0)], ["a"])


@pytest.mark.slow
def test_the_command_times_every_suite_and_compares(tmp_path, capsys):
    settings, model = kaleido_debug().settings, str(tmp_path / "model")
    save_model(tmp_path / "model", settings, dict(randomised(Kaleido(settings.model)).named_parameters()))
    write_shard(tmp_path / "s" / "shard-000000.tar", [scenes(n, views=10, size=(32, 32)) for n in range(2)])
    counts = "--references 1 --targets 2 --steps 8 --train-batch 1 --views 2 --runs 1".split()
    suites = "--suites render train data codec --precision fp32 bf16 --sizes 64 --cache on off".split()
    arguments = ["bench", "--model", model, *counts, *suites, "--shards", str(tmp_path / "s")]
    assert main([*arguments, "--out", str(tmp_path / "a"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    found = read_speed_report(tmp_path / "a")
    rendered = [
        f"{what} 64x64 {precision} cache {cache}" for precision in ("fp32", "bf16") for cache in ("on", "off")
        for what in ("encode N=1", "render N=1 M=2 steps=8")
    ]  # fmt: skip
    trained = ["train batch=1 views=2 fp32", "train batch=1 views=2 bf16"]
    names = [timing.name for timing in found.timings]
    assert names == [*rendered, *trained, "load batch=1", "codec encode", "codec decode"]
    assert said["model"] == model and found.peak_flops.keys() == {"fp32", "bf16"} and found.timings[1].flops > 1e7
    by_name = {timing.name: timing for timing in found.timings}
    kept, anew = (by_name[f"render N=1 M=2 steps=8 64x64 fp32 cache {cache}"] for cache in ("on", "off"))
    assert anew.flops > 1.2 * kept.flops  # the reference in every step
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "a"), "--names", "a", "b"]) == 0
    assert "| train batch=1 views=2 bf16 |" in capsys.readouterr().out
    (tmp_path / "a" / "speed.json").write_text(json.dumps({**said, "version": 9}))
    for words, told in (
        (["compare", str(tmp_path / "a"), str(tmp_path / "a")], "schema version 9"),
        ([*arguments[:-2], "--out", str(tmp_path / "b")], "give --shards"),
        ([*arguments, "--out", str(tmp_path / "b"), "--views", "1"], "--views must be at least 2"),
        ([*arguments, "--out", str(tmp_path / "b"), "--sizes", "76"], "Images of 76x76 are no whole number of tokens"),
        ([*arguments, "--out", str(tmp_path / "b"), "--cache", "on", "on"], "A value that is given twice"),
        ([*arguments, "--out", str(tmp_path / "b"), "--runs", "0"], "must be at least 1"),
        ([*arguments, "--out", str(tmp_path / "b"), "--precision", "fp16"], "Training in fp16 needs a GPU"),
    ):
        assert main(words) == 1
        assert told in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
