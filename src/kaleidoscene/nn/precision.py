"""The precision that geometry, norms and the residual stream keep."""

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """``x`` in fp32, or in fp64 where it comes so: what autocast lowers is raised, what is exact stays exact."""
    return x if x.dtype == torch.float64 else x.float()
