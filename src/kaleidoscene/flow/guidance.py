"""Classifier-free guidance: ``v = v_u + w (v_c - v_u)`` (Kaleido section 4.1, w = 1.5)."""

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.flow.solvers import Velocity


def guide(conditional: Velocity, unconditional: Velocity, scale: float) -> Velocity:
    """The guided field; scale 1 asks the conditional field only, scale 0 the unconditional one only.

    The unconditional field of a view model sees no references and keeps the poses of the targets (method A.10).
    """
    if scale == 1.0:
        return conditional
    if scale == 0.0:
        return unconditional

    def guided(x: Float[Tensor, "*shape"], t: float) -> Float[Tensor, "*shape"]:
        return torch.lerp(unconditional(x, t), conditional(x, t), scale)

    return guided
