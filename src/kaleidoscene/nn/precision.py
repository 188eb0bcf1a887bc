"""The precision that geometry, norms and the residual stream keep, and that of matrix products."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """``x`` in fp32, or in fp64 where it comes so: what autocast lowers is raised, what is exact stays exact."""
    return x if x.dtype == torch.float64 else x.float()


Precision = Literal["fp32", "bf16", "fp16"]
"""Of matrix products."""
AnyPrecision = Literal["auto", "fp32", "bf16", "fp16"]
"""The same, where ``auto`` is bf16 on devices that multiply in it and fp32 on others."""
TYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


CPU_CAPABILITIES = torch.cpu.get_capabilities()
"""Which instructions the processor has."""


def multiplies_bf16(device: torch.device | str) -> bool:
    """Whether a device has instructions for products of bf16 matrices, which take far longer than fp32 without."""
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return True
    return any(there for name, there in CPU_CAPABILITIES.items() if "bf16" in name)


def chosen(precision: AnyPrecision, device: torch.device | str) -> Precision:
    """What ``auto`` is on a device."""
    if precision != "auto":
        return precision
    return "bf16" if multiplies_bf16(device) else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """For calls of a network: its products are in this precision."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, TYPES[precision])


def no_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Inside of it products keep the precision of their operands, whatever is around it."""
    # Autocast does not know the meta device, on which operations are counted.
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)
