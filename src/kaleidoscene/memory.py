"""Whether a request fits into memory, and what would fit if it does not."""

from collections.abc import Callable
from pathlib import Path

import torch

from kaleidoscene.errors import KaleidosceneError

# Left to the rest of the machine.
_SHARE = 0.9


def available_bytes(device: str = "cpu") -> int | None:
    """Memory that could be taken without swapping; None where the system does not tell."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    found = [_free_of_machine(), _free_of_group()]
    return min((value for value in found if value is not None), default=None)


def _free_of_machine() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _free_of_group() -> int | None:
    """What a container's limit leaves (cgroup v2)."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.is_file() or not used.is_file() or limit.read_text().strip() == "max":
        return None
    return max(0, int(limit.read_text()) - int(used.read_text()))


def check_memory(
    needed: Callable[[int], int], targets: int, available: int | None = None, *, device: str = "cpu"
) -> None:
    """Refuse a call that would not fit, before it starts.

    Args:
        needed: Peak bytes of a call with so many targets.
        targets: In one call.
        available: Bytes there are; by default what the system says.
        device: Whose memory.

    Raises:
        KaleidosceneError: It does not fit; the message says how many targets would.
    """
    if available is None:
        available = available_bytes(device)
    if available is None or needed(targets) <= _SHARE * available:
        return
    low, high = 0, targets
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if needed(middle) <= _SHARE * available else (low, middle)
    want, have = needed(targets) / 2**30, available / 2**30
    fits = f"--chunk {low} would fit" if low else "not even one target at a time would fit; use fewer references"
    raise KaleidosceneError(f"{targets} targets in one call need {want:.1f} GiB, {have:.1f} GiB are free: {fits}.")


def check_room(what: str, needed: int, remedy: str, available: int | None = None) -> str:
    """A sentence on the memory that something takes.

    Args:
        what: Takes it.
        needed: Peak bytes.
        remedy: What makes it fit.
        available: Bytes there are; by default what the system says.

    Raises:
        KaleidosceneError: It does not fit.
    """
    available = available_bytes() if available is None else available
    if available is not None and needed > _SHARE * available:
        raise KaleidosceneError(
            f"{what} needs {needed / 2**30:.1f} GiB, {available / 2**30:.1f} GiB are free: {remedy}."
        )
    room = "unknown" if available is None else f"{available / 2**20:,.0f} MiB"
    return f"{what} takes up to {needed / 2**20:,.0f} MiB, free: {room}."
