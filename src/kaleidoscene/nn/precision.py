"""The precision that geometry, norms and the residual stream keep."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """``x`` in fp32, or in fp64 where it comes so: what autocast lowers is raised, what is exact stays exact."""
    return x if x.dtype == torch.float64 else x.float()


def no_autocast(like: Tensor) -> AbstractContextManager[Any]:
    """Inside of it products keep the precision of their operands, whatever is around it."""
    return nullcontext() if like.is_meta else torch.autocast(like.device.type, enabled=False)
