"""Watching a run: top activations, divergence, spikes, and where a number first stopped being finite."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_leaves

from kaleidoscene.training.distributed import gathered
from kaleidoscene.training.network import network_of


@contextmanager
def top_activations(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Record the largest magnitude that leaves each unit (massive activations, Kaleido section 3.2.2).

    They stay where they were computed, so that nothing waits for them.
    """
    found: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, unit in network_of(model).units().items():

            def note(out: Any, name: str = name) -> None:
                top = torch.stack([_largest(x.detach()) for x in _tensors(out)]).amax()
                found[name] = torch.maximum(found[name], top) if name in found else top

            stack.enter_context(_listening(unit, note))
        yield found


def _largest(x: Tensor) -> Tensor:
    """Magnitude; 0 where a process has no view of a scene that is spread."""
    return x.abs().amax().float() if x.numel() else x.new_zeros((), dtype=torch.float32)


@contextmanager
def _listening(module: nn.Module, note: Callable[[Any], None]) -> Iterator[None]:
    """Have what leaves a module noted, compiled or not."""
    compiled: Any = module._compiled_call_impl  # a compiled module does not see hooks that come after its compilation
    if compiled is None:
        handle = module.register_forward_hook(lambda _, args, out: note(out))
    else:

        def call(*args: Any, **kwargs: Any) -> Any:
            out = compiled(*args, **kwargs)
            note(out)
            return out

        module._compiled_call_impl = call  # pyright: ignore[reportAttributeAccessIssue]
        handle = None
    try:
        yield
    finally:
        if handle is not None:
            handle.remove()
        else:
            module._compiled_call_impl = compiled


@contextmanager
def first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Record the modules whose output was not finite, in the order they ran; the first is where it arose.

    Compiled modules run uncompiled meanwhile, so that their insides can be seen.
    """
    found: list[str] = []
    hooks, compiled = [], {}
    for name, module in model.named_modules():
        if not name:
            continue
        if module._compiled_call_impl is not None:
            compiled[module] = module._compiled_call_impl
            module._compiled_call_impl = None

        def hook(_: nn.Module, args: Any, out: Any, name: str = name) -> None:
            if not all(bool(torch.isfinite(x).all()) for x in _tensors(out)):
                found.append(name)

        hooks.append(module.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()
        for module, call in compiled.items():
            module._compiled_call_impl = call


def _tensors(out: Any) -> list[Tensor]:
    """Floating-point tensors of what a module returned."""
    return [x for x in tree_leaves(out) if isinstance(x, Tensor) and x.is_floating_point()]


def _finite(tensor: Tensor) -> bool:
    """Of this process's share, where a tensor is spread over several."""
    return bool(torch.isfinite(tensor.to_local() if isinstance(tensor, DTensor) else tensor).all())


def not_finite_parameters(model: nn.Module) -> list[str]:
    """Names of parameters, or of their gradients, that are not finite."""
    names = []
    for name, p in model.named_parameters():
        if not _finite(p):
            names.append(name)
        elif p.grad is not None and not _finite(p.grad):
            names.append(f"{name}.grad")
    return names


def drifted_parameters(model: nn.Module, average: dict[str, Tensor], most: int = 5) -> list[str]:
    """Names of the parameters that are farthest from their averages over the run, relative to the size of these.

    Every process must call it.
    """
    far: dict[str, float] = {}
    for name, p in model.named_parameters():
        size = gathered(average[name].norm()).item()
        far[name] = gathered((p.detach() - average[name]).norm()).item() / max(size, 1e-6)
    return sorted(far, key=far.__getitem__, reverse=True)[:most]


class Divergence:
    """Tells a run that goes wrong from one that only wavers: compares mean losses over windows of steps.

    Args:
        factor: The run has diverged when the mean of the last ``window`` losses is more than ``factor`` times the
            lowest such mean before it; 0 never says so.
        window: Steps of a mean.
    """

    def __init__(self, factor: float, window: int = 50) -> None:
        self.factor, self.window = factor, window
        self.best: float | None = None
        self.good_step = 0
        """The last step whose mean was still near the lowest."""
        self._recent: deque[float] = deque(maxlen=window)

    def observe(self, step: int, loss: float) -> bool:
        """Take in the loss of a step; True if the run has diverged."""
        self._recent.append(loss)
        if len(self._recent) < self.window:
            return False
        mean = sum(self._recent) / self.window
        self.best = mean if self.best is None else min(self.best, mean)
        if self.factor <= 0 or mean <= math.sqrt(self.factor) * self.best:
            self.good_step = step
        return self.factor > 0 and mean > self.factor * self.best


class Spikes:
    """Counts gradients that are far larger than their recent median.

    Args:
        ratio: How much larger counts as a spike.
        window: Steps of the median.
    """

    def __init__(self, ratio: float = 10.0, window: int = 100) -> None:
        self.ratio, self._recent = ratio, deque[float](maxlen=window)

    def observe(self, norm: float) -> bool:
        """Take in a gradient's norm; True if it is a spike."""
        full = len(self._recent) == self._recent.maxlen
        spike = full and norm > self.ratio * median(self._recent)
        self._recent.append(norm)
        return spike
