"""How fast this machine does what a request consists of, tried for a moment before anything runs."""

from __future__ import annotations

import functools
import time

import torch

from kaleidoscene.errors import KaleidosceneError


def check_device(device: str) -> None:
    """Raise if a device is not there.

    Raises:
        KaleidosceneError: PyTorch does not know it, or has no such GPU.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        said = str(error).splitlines()[0]
        why = "expected cpu, cuda, cuda:1 or mps" if "device type" in said else said
        raise KaleidosceneError(f"Device {device!r} cannot be used here ({why}).") from error


@functools.cache
def measure_speed(device: str, precision: str) -> float:
    """Operations a second of a small gated layer here: what networks reach, not the peak; tried once a process."""
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    x = torch.randn(2048, 384, device=device, dtype=dtype)
    up, down = torch.randn(1024, 384, device=device, dtype=dtype), torch.randn(384, 1024, device=device, dtype=dtype)

    def once() -> None:
        y = torch.nn.functional.silu(torch.nn.functional.layer_norm(x, (384,)) @ up.mT) @ down.mT
        y.sum().item()

    for _ in range(3):
        once()
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 0.2:
        once()
        count += 1
    # Attention, norms and element-wise work take about as long again as the products (benchmarks/throughput.md).
    return 0.5 * count * 2 * 2 * 2048 * 384 * 1024 / (time.perf_counter() - started)
