"""Fewer steps from a trained flow: progressive distillation (Salimans and Ho 2022).

A student learns to do in one step what its teacher does in two (or more): from a state on the path at a knot of the
student's schedule, the teacher is followed down to the next knot, and the mean velocity between both is what the
student is to say. Of the known methods this one needs no other network, loss or time input: a student is a checkpoint
like any other, and can be a teacher in turn. Guidance is distilled too, which halves the cost of a step again (Meng et
al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kaleidoscene.randomness import seeded

_STREAM = 7


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Which schedule a student learns.

    Attributes:
        teacher: Checkpoint, run folder or 'default'; None is ordinary training.
        steps: Steps of the student.
        teacher_steps: Steps of the teacher for each of the student's; its schedule has ``steps * teacher_steps``.
        guidance: Guidance scale of the teacher that the student takes over.
    """

    teacher: str | None = None
    steps: int = 4
    teacher_steps: int = 2
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.teacher_steps < 2:
            raise ValueError(f"steps must be at least 1 and teacher_steps 2, got {self.steps}, {self.teacher_steps}.")


def drawn_steps(
    numbers: Sequence[int], seed: int, options: Distillation, device: torch.device
) -> Int[Tensor, " batch"]:
    """A step of the student for each scene: the knot of its teacher's schedule that it begins at."""
    drawn = [int(torch.randint(options.steps, (), generator=seeded(seed, _STREAM, n))) for n in numbers]
    return options.teacher_steps * torch.tensor(drawn, device=device)


@torch.no_grad()
def followed(
    velocity: Callable[[Tensor, Tensor], Tensor],
    begin: Float[Tensor, "batch *shape"],
    knots: Float[Tensor, " knots"],
    first: Int[Tensor, " batch"],
    steps: int,
) -> Float[Tensor, "batch *shape"]:
    """Mean velocity of a teacher that is followed for some steps of Euler's method.

    Args:
        velocity: Of the teacher, of states and their times ``(batch,)``.
        begin: States on the path.
        knots: Its schedule, from noise to data.
        first: Where in the schedule each state is.
        steps: How many steps it takes.
    """
    state = begin
    for part in range(steps):
        now, then = knots[first + part], knots[first + part + 1]
        state = state + _wide(then - now, state) * velocity(state, now)
    return (state - begin) / _wide(knots[first + steps] - knots[first], begin)


def _wide(x: Float[Tensor, " batch"], like: Tensor) -> Tensor:
    return x.reshape(-1, *(1,) * (like.ndim - 1))
