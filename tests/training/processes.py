"""Real processes over gloo that train together: started here, or by torchrun where its own part is looked at."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile

from tests.conftest import REPOSITORY

# Global batches of 6 cut evenly for 1, 2 and 3 processes.
SIX = dict(batch_size=6, steps=6, checkpoint_every=3, masking="scene")

_WORKER = REPOSITORY / "tests" / "training" / "worker.py"
_PATIENCE = 20.0
"""Seconds that the others have to end by themselves once one has failed."""


def torchrun(processes: int, shards: Path, run: Path, **options) -> subprocess.CompletedProcess[str]:
    """One run as torchrun starts it."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
        str(_WORKER), *_arguments(shards, {run: options}),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, check=False, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=1500
    )


def run_together(processes: int, shards: Path, runs: dict[Path, dict]) -> subprocess.CompletedProcess[str]:
    """Runs one after the other by the same processes: what takes longest of a small run is to start them."""
    return together(processes, [str(_WORKER), *_arguments(shards, runs)])


def together(processes: int, words: list[str]) -> subprocess.CompletedProcess[str]:
    """What several processes of one world say, and the first code other than 0 with which one ends."""
    with ExitStack() as stack:
        said = [[stack.enter_context(TemporaryFile("w+")) for _ in range(2)] for _ in range(processes)]
        started = _start(words, said)
        _wait(started)
        for file in [file for files in said for file in files]:
            file.seek(0)
        out, err = ("".join(files[number].read() for files in said) for number in (0, 1))
    failed = [process.returncode for process in started if process.returncode]
    return subprocess.CompletedProcess([], failed[0] if failed else 0, out, err)


def start(processes: int, shards: Path, runs: dict[Path, dict], said: list[list]) -> list[subprocess.Popen]:
    """Start them, each with a file for what it prints and one for its errors."""
    assert len(said) == processes
    return _start([str(_WORKER), *_arguments(shards, runs)], said)


def _start(words: list[str], said: list[list]) -> list[subprocess.Popen]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank, (out, err) in enumerate(said):
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(len(said)), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        command = [sys.executable, *words]
        started.append(subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=out, stderr=err))
    return started


def _arguments(shards: Path, runs: dict[Path, dict]) -> list[str]:
    return [str(shards), json.dumps([[str(run), {**SIX, **options}] for run, options in runs.items()])]


def _wait(started: list[subprocess.Popen], timeout: float = 900.0) -> None:
    """Until all have ended; once one has failed the others are given a little time."""
    deadline, failed = time.monotonic() + timeout, False
    try:
        while any(process.poll() is None for process in started) and time.monotonic() < deadline:
            if not failed and any(process.returncode for process in started):
                failed, deadline = True, min(deadline, time.monotonic() + _PATIENCE)
            time.sleep(0.02)
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
