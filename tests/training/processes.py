"""Real processes that train together, started by forking one that has imported everything already.

``torchrun`` starts each of them anew, which takes longer than what they do; tests that are about ``torchrun`` itself
or about killed processes still use it.
"""

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.conftest import REPOSITORY

_PATIENCE = 30.0


def run_processes(count: int, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run ``worker.py WORDS`` as so many processes that meet; their output is joined."""
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps({"count": count, "words": words}) + "\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    return subprocess.CompletedProcess(words, answer["code"], answer["out"], answer["err"])


@cache
def _server() -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.training.processes"], cwd=REPOSITORY, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    atexit.register(started.kill)
    return started


def _serve() -> None:
    from tests.training import worker  # imported once, before any process of a test is there

    for line in sys.stdin:
        job = json.loads(line)
        with tempfile.TemporaryDirectory() as folder:
            code = _run(worker.main, job["count"], job["words"], Path(folder))
            out, err = (
                "".join(path.read_text(errors="replace") for path in sorted(Path(folder).glob(f"*.{kind}")))
                for kind in ("out", "err")
            )
        print(json.dumps({"code": code, "out": out, "err": err}), flush=True)


def _run(main, count: int, words: list[str], folder: Path) -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    running = {}
    for rank in range(count):
        child = os.fork()
        if not child:
            _become(main, rank, count, port, words, folder)
        running[child] = rank
    failed, until = False, 0.0
    while running:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            del running[child]
            if status and not failed:  # the others wait for it in vain
                failed, until = True, time.monotonic() + _PATIENCE
                _signal(running, signal.SIGTERM)
        elif failed and time.monotonic() > until:
            _signal(running, signal.SIGKILL)
        else:
            time.sleep(0.02)
    return int(failed)


def _signal(running: dict[int, int], number: int) -> None:
    for child in running:
        os.kill(child, number)


def _become(main, rank: int, count: int, port: int, words: list[str], folder: Path) -> None:
    os.environ |= {
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count),
    }  # fmt: skip
    for number, kind in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{rank}.{kind}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
    os.close(0)
    sys.argv = ["worker.py", *words]
    code = 70
    try:
        code = main()
    except BaseException:  # a test reads what it was
        import traceback

        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve()
