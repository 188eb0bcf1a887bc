"""What stops a run, and how it is said: damaged data, numbers that are not finite, divergence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import write_json
from kaleidoscene.training.world import World

STOPPED = "stopped.json"
"""Why a run stopped, and until which step it was good; ``--rollback`` goes by it."""


class Faults:
    """Counts damage, and stops a run with the cause in one sentence and in a file.

    Args:
        run: Its folder.
        world: All processes; stops are raised by all of them together.
    """

    def __init__(self, run: Path, world: World) -> None:
        self.run, self.world = run, world
        self.damaged = 0
        """Scenes so far, of all processes."""
        self.rate_scale = 1.0
        """What the learning rates are multiplied by since the last rollback."""

    def count_damage(self, step: int, new: int, names: Sequence[str], allowed: float) -> None:
        """Note damaged scenes.

        Args:
            step: In which they were met.
            new: How many all processes met.
            names: Those of this process, with the reason.
            allowed: How many there may be by now.

        Raises:
            KaleidosceneError: There are more.
        """
        self.damaged += new
        if names:
            with (self.run / f"damaged-{self.world.rank:05d}.txt").open("a") as file:
                file.writelines(f"step {step}: {name}\n" for name in names)
        if self.damaged > allowed:
            last = f", the last one is {names[-1]}" if names else ""
            raise KaleidosceneError(
                f"Training stopped at step {step}: {self.damaged} damaged scenes, {allowed:g} are allowed "
                f"(--data.damaged-share){last}."
            )

    def stop_not_finite(self, step: int, what: str, places: list[str], scenes: list[str]) -> NoReturn:
        """All processes come here together; what the first of them found that has found anything is noted.

        Raises:
            KaleidosceneError: Always.
        """
        by_rank = self.world.gather((places, scenes))
        rank = next((rank for rank, (found, _) in enumerate(by_rank) if found), 0)
        found, scenes = by_rank[rank]
        first = found[0] if found else "the loss itself"
        of_rank = f" of process {rank}" if self.world.size > 1 else ""
        among = f", in a micro-batch with scene {scenes[0]}" if scenes else ""
        path = self._note(step, step, what, found, scenes)
        raise KaleidosceneError(
            f"Training stopped at step {step}: {what}; it arose first in {first}{of_rank}{among} (see {path})."
        )

    def stop_diverged(self, step: int, good_step: int, best: float | None, places: list[str]) -> NoReturn:
        """All processes come here together.

        Raises:
            KaleidosceneError: Always.
        """
        what = f"the loss has diverged: its mean over 50 steps was near {best:.4g} until step {good_step}"
        path = self._note(step, good_step, what, places)
        raise KaleidosceneError(
            f"Training stopped at step {step}: {what}; farthest from its average is {places[0]} (see {path}). "
            "--rollback 0.5 goes back to the last good checkpoint with half the learning rate."
        )

    def _note(self, step: int, good_step: int, what: str, places: list[str], scenes: Sequence[str] = ()) -> Path:
        path = self.run / STOPPED
        if self.world.is_main:
            write_json(
                path,
                {"step": step, "what": what, "places": places, "scenes": list(scenes), "good_step": good_step,
                 "rate_scale": self.rate_scale},
            )  # fmt: skip
        self.world.barrier()
        return path

    def forget(self) -> None:
        """The run has gone on beyond what once stopped it."""
        if self.world.is_main:
            (self.run / STOPPED).unlink(missing_ok=True)
