"""Random numbers that are told by where they are used, not by what was drawn before them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose stream is told by all the numbers together."""
    state = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


def draw_noise(shape: Sequence[int], generators: Sequence[torch.Generator]) -> Float[Tensor, "..."]:
    """Standard normal numbers on the CPU; each item of the first axis has its own generator.

    So an item gets the same noise whatever it is batched with, on every device.
    """
    if len(generators) != shape[0]:
        raise ValueError(f"{shape[0]} items need as many generators, got {len(generators)}.")
    if not shape[0]:
        return torch.zeros(*shape)
    return torch.stack([torch.randn(*shape[1:], generator=generator) for generator in generators])
