"""How fast a run goes: tokens a second, share of the peak (MFU), memory."""

from __future__ import annotations

import resource

import torch

from kaleidoscene.training.world import World


class Throughput:
    """Numbers of a step for the log.

    Args:
        world: All processes.
        step_flops: Operations of a step over all of them, recomputed activations not counted; 0: not known.
        peak: Of one process, TFLOP/s; 0: not known.
    """

    def __init__(self, world: World, step_flops: float, peak: float) -> None:
        self.world, self.step_flops, self.peak = world, step_flops, peak

    def of(self, tokens: float, seconds: float) -> dict[str, float]:
        """Of a step of so many tokens (over all processes).

        ``memory`` is the peak of this process so far in GiB: of the device, of the process itself on a CPU. ``mfu`` is
        there where operations and peak are known.
        """
        record = {"tokens_per_second": tokens / seconds, "memory": self._memory() / 2**30}
        if self.step_flops and self.peak:
            record["mfu"] = self.step_flops / (seconds * self.world.size * self.peak * 1e12)
        return record

    def _memory(self) -> int:
        if self.world.device.startswith("cuda"):
            return torch.cuda.max_memory_allocated()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
