"""Optimisers and the learning-rate schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from kaleidoscene.choices import check_choices, check_range
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.nn.precision import multiplies_bf16
from kaleidoscene.training.network import network_of

_ADAMW_STATE = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights are updated; the defaults are the paper's where it speaks (method A.11, open choice E18)."""

    optimiser: Literal["adamw", "muon"] = "adamw"
    """``muon`` updates the matrices of the blocks by orthogonalised momentum and everything else by AdamW."""
    learning_rate: float = 1e-4
    muon_learning_rate: float = 0.02
    weight_decay: float = 0.01
    """Of all but scales, shifts and other vectors."""
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: int = 2000
    """Steps of linear rise."""
    cooldown: float = 0.0
    """Share of the steps, at the end, over which the rate falls to zero."""
    fall: Literal["linear", "cosine"] = "linear"
    """How it falls."""
    clip: float = 1.0
    """Largest norm of the gradient."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, 0, math.inf, "learning_rate", "muon_learning_rate", "weight_decay", "warmup")
        check_range(self, 0, math.inf, "clip", above=True)
        check_range(self, 0, math.nextafter(1, 0), "betas")  # 1 would never forget
        check_range(self, 0, 1, "cooldown")

    def factor(self, step: int, steps: int) -> float:
        """Share of the full learning rate at ``step`` of ``steps`` (0-based)."""
        rise = min(1.0, (step + 1) / max(self.warmup, 1))
        falling = self.cooldown * steps
        fall = 1.0 if falling <= 0 else min(1.0, (steps - step) / falling)
        if self.fall == "cosine":
            fall = 0.5 - 0.5 * math.cos(math.pi * fall)
        return min(rise, fall)


class Optimisers:
    """One or two optimisers that together own all parameters, each exactly once.

    Args:
        model: Whose parameters they are.
        config: How they are updated.
        half: Whether Muon iterates in bf16, the same in all processes; None: where this device multiplies in it.
    """

    def __init__(self, model: nn.Module, config: OptimConfig, *, half: bool | None = None) -> None:
        self.config = config
        named = dict(model.named_parameters())
        trainable = {name: p for name, p in named.items() if p.requires_grad}
        wanted = set(network_of(model).muon_parameters()) if config.optimiser == "muon" else set()
        if odd := sorted(name for name in wanted if name not in named or named[name].ndim != 2):
            raise TypeError(f"Muon takes trained matrices; {type(model).__name__} names {odd[0]!r}.")
        muon = {name: p for name, p in trainable.items() if name in wanted}
        rest = {n: p for n, p in trainable.items() if n not in muon}
        kinds = [{n: p for n, p in rest.items() if (p.ndim < 2) is vectors} for vectors in (False, True)]
        decays = (config.weight_decay, 0.0)
        groups = [
            {"params": list(kind.values()), "weight_decay": decay}
            for kind, decay in zip(kinds, decays, strict=True)
            if kind
        ]
        self.names = [[name for kind in kinds for name in kind]]
        adamw = torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
        self.all: list[torch.optim.Optimizer] = [adamw]
        if muon:
            # It knows sharded matrices, whose import takes half a second, for which help and refusals need not wait.
            from kaleidoscene.training.muon import Muon  # noqa: PLC0415

            matrices, rate = list(muon.values()), config.muon_learning_rate
            decay = config.weight_decay
            self.names.append(list(muon))
            optimiser = Muon(matrices, lr=rate, weight_decay=decay, momentum=0.95, nesterov=True)
            optimiser.half = multiplies_bf16(matrices[0].device) if half is None else half
            self.all.append(optimiser)
        self.base_rates = [optimiser.param_groups[0]["lr"] for optimiser in self.all]

    def set_rate(self, factor: float) -> float:
        """Scale all learning rates; returns that of AdamW."""
        for optimiser, rate in zip(self.all, self.base_rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
        return self.base_rates[0] * factor

    def step(self) -> None:
        """Update all parameters."""
        for optimiser in self.all:
            optimiser.step()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for optimiser in self.all:
            optimiser.zero_grad(set_to_none=True)

    def tensors(self) -> dict[str, Tensor]:
        """State as named tensors, ``PARAMETER:QUANTITY``: each parameter belongs to one optimiser."""
        return {
            f"{names[index]}:{quantity}": torch.as_tensor(value)
            for names, optimiser in zip(self.names, self.all, strict=True)
            for index, state in optimiser.state_dict()["state"].items()
            for quantity, value in state.items()
        }

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what :meth:`tensors` gave.

        Raises:
            KaleidosceneError: The state belongs to other parameters or optimisers.
        """
        states: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            name, quantity = key.rsplit(":", 1)
            states.setdefault(name, {})[quantity] = value
        for names, optimiser in zip(self.names, self.all, strict=True):
            state = {index: states.pop(name) for index, name in enumerate(names) if name in states}
            kinds = {tuple(sorted(quantities)) for quantities in state.values()}
            expected = ("momentum_buffer",) if isinstance(optimiser, torch.optim.Muon) else _ADAMW_STATE
            # A parameter that no step has used yet, such as those of reprojection without references, has no state.
            if state and kinds != {expected}:
                raise KaleidosceneError("The optimiser state belongs to other parameters or another optimiser.")
            groups = optimiser.state_dict()["param_groups"]
            optimiser.load_state_dict({"state": state, "param_groups": groups})
        if states:
            raise KaleidosceneError(f"The optimiser state has {next(iter(states))!r}, which is not trained.")


@torch.no_grad()
def clip_gradients(model: nn.Module, norm: float, largest: float) -> None:
    """Scale the gradients of a model, whose norm over all processes is ``norm``, down to a norm of ``largest``."""
    factor = largest / (norm + 1e-6)
    if factor < 1:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)  # pyright: ignore[reportPrivateImportUsage]
