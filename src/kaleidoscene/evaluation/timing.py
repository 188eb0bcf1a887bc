"""Timing as a benchmark: warm-up, several runs, median and spread, and what machine it was."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.documents import read_document

SCHEMA = "speed"
VERSION = 2
SPEED = "speed.json"
_LONG = 0.2


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One measured thing.

    Attributes:
        name: What was run.
        seconds: Median of the runs.
        spread: Half the distance between the quartiles over the median.
        runs: How many.
        per_second: Units of work a second.
        unit: What is counted: frames, scenes, images, FLOP.
        flops: Floating-point operations of a run; 0 where they are not counted.
        share_of_peak: Of the matrix products that this machine was measured to do; None without ``flops``.
        peak_mebibytes: Memory at its highest in a run: of the whole process on a CPU, of tensors on a GPU; None where
            the system does not tell.
    """

    name: str
    seconds: float
    spread: float
    runs: int
    per_second: float
    unit: str
    flops: int = 0
    share_of_peak: float | None = None
    peak_mebibytes: float | None = None


def measure(
    name: str,
    work: Callable[[], object],
    *,
    count: int,
    unit: str,
    runs: int,
    flops: int = 0,
    peak: float | None = None,
    device: str = "cpu",
) -> Timing:
    """Run something once for warm-up, which tells its memory, and then several times.

    Args:
        name: For the report.
        work: What is timed.
        count: Units of work in a run.
        unit: Their name.
        runs: Timed runs, at least 1.
        flops: Of a run.
        peak: FLOP/s that the machine was measured to reach.
        device: Where it runs.
    """
    synchronise = waiter(device)
    memory = _PeakMemory(device)
    work()
    synchronise()
    peak_mebibytes = memory.mebibytes()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - started)
    median = statistics.median(times)
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if runs > 1 else [median, median, median]
    return Timing(
        name=name, seconds=median, spread=(quartiles[2] - quartiles[0]) / 2 / median, runs=runs,
        per_second=count / median, unit=unit, flops=flops,
        share_of_peak=flops / median / peak if flops and peak else None, peak_mebibytes=peak_mebibytes,
    )  # fmt: skip


class _PeakMemory:
    """Highest memory from now on."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.known = device.startswith("cuda")
        if self.known:
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # Linux: sets the high-water mark of the resident set back to what is resident now.
            Path("/proc/self/clear_refs").write_text("5")
            self.known = True
        except OSError:
            pass

    def mebibytes(self) -> float | None:
        if not self.known:
            return None
        if self.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _seconds(work: Callable[[], object], device: str) -> float:
    """Of one call that nothing was warmed up for."""
    wait = waiter(device)
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started


def matrix_peak(device: str, dtype: torch.dtype, *, side: int = 2048, runs: int = 5) -> float:
    """FLOP/s of one large matrix product: the peak that shares are given of.

    Args:
        device: Where.
        dtype: Of the matrices.
        side: Of the largest product that is tried; where half of it takes longer than a fifth of a second, as in types
            that a processor does not multiply, that is large enough.
        runs: That the median is of.
    """
    smaller = side // 2
    a, b = (torch.randn(smaller, smaller, device=device).to(dtype) for _ in range(2))
    if smaller >= 128 and _seconds(lambda: a @ b, device) > _LONG:
        return matrix_peak(device, dtype, side=smaller, runs=runs)
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return measure("matrix peak", lambda: a @ b, count=2 * side**3, unit="FLOP", runs=runs, device=device).per_second


def waiter(device: str) -> Callable[[], None]:
    """What waits for a device; nothing to wait for on a CPU."""
    return (lambda: torch.cuda.synchronize(device)) if device.startswith("cuda") else (lambda: None)


def describe_machine(device: str) -> dict[str, str | int]:
    """What numbers of speed depend on beside the code."""
    return {
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count() or 0,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@dataclass(frozen=True, kw_only=True)
class SpeedReport:
    """Timings of one machine.

    Attributes:
        schema: ``kaleidoscene-speed``.
        version: Of the schema.
        machine: See :func:`describe_machine`.
        model: What was timed.
        peak_flops: Of one large matrix product, by the types that were timed.
        timings: By name.
    """

    schema: str = SCHEMA
    version: int = VERSION
    machine: dict[str, Any]
    model: str
    peak_flops: dict[str, float]
    timings: tuple[Timing, ...]


def read_speed_report(path: Path) -> SpeedReport:
    """Read a report of ``kaleidoscene bench``, or the one in a folder.

    Raises:
        KaleidosceneError: It is none, or of another version of the schema.
    """
    path = path / SPEED if path.is_dir() else path
    return read_document(SpeedReport, path, schema=SCHEMA, version=VERSION, verb="bench")


def speed_table(report: SpeedReport) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    rows = []
    for timing in report.timings:
        share = "" if timing.share_of_peak is None else f"{100 * timing.share_of_peak:.0f} %"
        spread = f"{100 * timing.spread:.0f} %"
        memory = "" if timing.peak_mebibytes is None else f"{timing.peak_mebibytes:.0f}"
        speed = f"{timing.per_second:.2f} {timing.unit}/s"
        rows.append([timing.name, f"{timing.seconds:.4f}", spread, speed, share, memory])
    return ["what", "seconds", "spread", "speed", "share of the matrix peak", "peak MiB"], rows


def compare_speed(reports: list[SpeedReport], names: list[str]) -> str:
    """A Markdown table of what all reports have, as ratios to the first; above 1 is faster.

    Raises:
        KaleidosceneError: There is only one report, they are of different machines, or have nothing in common.
    """
    if len(reports) < 2:
        raise KaleidosceneError(f"A comparison needs at least 2 reports, got {len(reports)}.")
    for report, name in zip(reports[1:], names[1:], strict=True):
        differing = [key for key in reports[0].machine if report.machine.get(key) != reports[0].machine[key]]
        if hardware := [key for key in differing if key in ("device", "threads", "cores")]:
            raise KaleidosceneError(
                f"{names[0]} and {name} were measured in different conditions ({hardware[0]}: "
                f"{reports[0].machine[hardware[0]]!r}, {report.machine.get(hardware[0])!r}); times do not compare."
            )
    if len({report.model for report in reports}) > 1:
        raise KaleidosceneError(
            f"The reports are of different models: {', '.join(report.model for report in reports)}."
        )
    by_name = [{timing.name: timing for timing in report.timings} for report in reports]
    common = [name for name in by_name[0] if all(name in timings for timings in by_name)]
    if not common:
        raise KaleidosceneError("The reports have no timing in common.")
    lines = [f"| what | {names[0]} s | " + " | ".join(names[1:]) + " |", "|---" * (len(reports) + 1) + "|"]
    for what in common:
        first = by_name[0][what]
        cells = []
        for timings in by_name[1:]:
            ratio, noise = first.seconds / timings[what].seconds, first.spread + timings[what].spread
            cells.append(f"{ratio:.2f}x" + (" (within the spread)" if abs(ratio - 1) <= noise else ""))
        lines.append(f"| {what} | {first.seconds:.4f} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
