"""Integrators of the flow from noise to data; they know no model, only a velocity ``(x, t) -> v``."""

import itertools
from collections.abc import Callable
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import unknown_name
from kaleidoscene.flow.path import TIME_RANGE

Velocity = Callable[[Tensor, float], Tensor]
SolverName = Literal["euler", "heun"]


def integrate(
    velocity: Velocity,
    noise: Float[Tensor, "*shape"],
    times: Float[Tensor, " steps_and_1"],
    *,
    solver: SolverName = "euler",
    on_step: Callable[[int], None] | None = None,
) -> Float[Tensor, "*shape"]:
    """Follow the flow from ``noise`` at ``times[0]`` to ``times[-1]``.

    The velocity is asked at times clipped to [0.001, 0.999]; the step lengths are those of the schedule.

    Args:
        velocity: The field, called with the state and a time.
        noise: Start of the path, fp32.
        times: Descending times.
        solver: ``euler`` (one evaluation a step) or ``heun`` (two, but one in the last step).
        on_step: Called with the number of steps done.
    """
    if solver not in get_args(SolverName):
        raise unknown_name("solver", solver, get_args(SolverName))
    x, clock = noise, times.tolist()
    for n, (now, then) in enumerate(itertools.pairwise(clock)):
        v = velocity(x, _clip(now))
        euler = x + (then - now) * v
        if solver == "heun" and n < len(clock) - 2:
            euler = x + (then - now) * 0.5 * (v + velocity(euler, _clip(then)))
        x = euler
        if on_step is not None:
            on_step(n + 1)
    return x


def _clip(t: float) -> float:
    return min(max(t, TIME_RANGE[0]), TIME_RANGE[1])
