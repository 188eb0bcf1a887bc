"""A trace of some steps, as torch.profiler makes it: for chrome://tracing, Perfetto or TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from kaleidoscene.training.world import World

_WAIT, _WARM_UP = 1, 1


@contextmanager
def profiled_steps(steps: int, run: Path, world: World) -> Iterator[Callable[[], None]]:
    """Trace ``steps`` steps after the first two; yields what is to be called at the end of every step.

    Every process writes ``RUN/profile/process-RANK.json``.
    """
    if not steps:
        yield lambda: None
        return
    folder = run / "profile"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"process-{world.rank:05d}.json"

    def write(trace: profile) -> None:
        partial = path.with_name(path.name + ".partial")
        trace.export_chrome_trace(str(partial))
        partial.replace(path)

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
    plan = schedule(wait=_WAIT, warmup=_WARM_UP, active=steps, repeat=1)
    with profile(activities=kinds, schedule=plan, on_trace_ready=write, record_shapes=True) as trace:
        yield trace.step
