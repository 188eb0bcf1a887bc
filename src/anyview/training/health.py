"""Watching a run: top activations of every block, and where a number first stopped being finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def top_activations(model: nn.Module) -> Iterator[dict[str, float]]:
    """Record the largest magnitude that leaves each block (massive activations, Kaleido section 3.2.2)."""
    found: dict[str, float] = {}
    hooks = []
    for number, block in enumerate(getattr(model, "blocks", [])):

        def hook(module: nn.Module, args: Any, out: Tensor, name: str = f"block_{number:02d}") -> None:
            found[name] = max(found.get(name, 0.0), out.detach().abs().max().item())

        hooks.append(block.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()


@contextmanager
def first_not_finite(model: nn.Module) -> Iterator[list[str]]:
    """Record the modules whose output was not finite, in the order they ran; the first is where it arose."""
    found: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        if not name:
            continue

        def hook(_: nn.Module, args: Any, out: Any, name: str = name) -> None:
            if isinstance(out, Tensor) and not bool(torch.isfinite(out).all()):
                found.append(name)

        hooks.append(module.register_forward_hook(hook))
    try:
        yield found
    finally:
        for handle in hooks:
            handle.remove()


def not_finite_parameters(model: nn.Module) -> list[str]:
    """Names of parameters, or of their gradients, that are not finite."""
    names = []
    for name, p in model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            names.append(name)
        elif p.grad is not None and not bool(torch.isfinite(p.grad).all()):
            names.append(f"{name}.grad")
    return names
