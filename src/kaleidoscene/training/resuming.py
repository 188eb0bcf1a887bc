"""Which checkpoint a run goes on from: the last, the newest that is whole, or one before it went wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import write_json
from kaleidoscene.training.checkpoint_folders import discard, list_checkpoints, set_aside, step_of
from kaleidoscene.training.checkpoint_state import read_state
from kaleidoscene.training.faults import STOPPED
from kaleidoscene.training.integrity import verify
from kaleidoscene.training.world import World

ROLLBACK = "rollback.json"
ResumeFrom = Literal["last", "last-good"]
CheckSame = Callable[[dict[str, Any]], None]
"""Refuses the identity of another run."""


def last_checkpoint(run: Path, world: World) -> Path | None:
    """The newest checkpoint, the same for all processes whatever their file systems show them."""
    return world.agree(next(reversed(list_checkpoints(run)), None))


def sound_checkpoint(run: Path, world: World, resume_from: ResumeFrom) -> Path | None:
    """The checkpoint to go on from, compared with its checksums; None of a run that has none.

    Args:
        run: Its folder.
        world: All processes; each must make this call.
        resume_from: ``last``: a damaged one is refused. ``last-good``: it is set aside for the one before it.

    Raises:
        KaleidosceneError: It is damaged, or all are.
    """
    checkpoints = world.agree(list_checkpoints(run))
    damaged: list[Path] = []
    for checkpoint in reversed(checkpoints):
        try:
            verify(checkpoint, world)
        except KaleidosceneError as error:
            if resume_from == "last":
                raise KaleidosceneError(
                    f"{error} --resume-from last-good goes on from the newest checkpoint that is whole."
                ) from error
            damaged.append(checkpoint)
            continue
        if damaged:
            _leave_behind(damaged, checkpoint, world)
        return checkpoint
    if damaged:
        raise KaleidosceneError(f"{run}: all {len(damaged)} checkpoints are damaged; begin a new run with --init.")
    return None


def _leave_behind(damaged: list[Path], good: Path, world: World) -> None:
    if world.is_main:
        for checkpoint in damaged:
            set_aside(checkpoint)
        names = ", ".join(checkpoint.name for checkpoint in damaged)
        print(
            f"{names}: damaged and set aside; going on from {good.name}, steps {step_of(good) + 1} to "
            f"{step_of(damaged[0])} are lost and done again."
        )
    world.barrier()


def go_back(run: Path, world: World, rate: float, check_same: CheckSame) -> None:
    """Drop the checkpoints that a run wrote after it began to go wrong, and note the lower rate.

    The note is written first and everything is checked before anything is dropped: killed in between, the same
    command ends what was begun.

    Raises:
        KaleidosceneError: There is nothing to go back from or to, or it is of another run.
    """
    stopped, note = run / STOPPED, run / ROLLBACK
    checkpoints = world.agree(list_checkpoints(run))
    why = world.agree(_read_json(stopped))
    if not checkpoints or why is None:
        said = world.agree(_read_json(note))
        if checkpoints and said is not None and said["step"] == step_of(checkpoints[-1]):
            return  # gone back already, and not a checkpoint further since
        raise KaleidosceneError(
            f"{run}: nothing to go back from (no {STOPPED}, or no checkpoint); leave --rollback out."
        )
    good = why["good_step"]
    earlier = [checkpoint for checkpoint in checkpoints if step_of(checkpoint) <= good]
    if not earlier:
        raise KaleidosceneError(
            f"{run}: the run was good until step {good}, its oldest checkpoint is "
            f"{checkpoints[0].name}; keep more with --train.keep-checkpoints."
        )
    verify(earlier[-1], world)
    check_same(read_state(earlier[-1]).get("identity", {}))
    world.barrier()
    if world.is_main:
        # From the rate at which it stopped: said twice, it is the same.
        write_json(note, {"step": step_of(earlier[-1]), "rate_scale": rate * why["rate_scale"]})
        for checkpoint in checkpoints[len(earlier) :]:
            discard(checkpoint)
        stopped.unlink()
    world.barrier()


def rate_scale_of(run: Path, state: dict[str, Any]) -> float:
    """What a checkpoint multiplies learning rates by; where a rollback went back to it, what that made of it."""
    said = _read_json(run / ROLLBACK)
    return said["rate_scale"] if said is not None and said["step"] == state["step"] else state["rate_scale"]


def _read_json(path: Path) -> dict[str, Any] | None:
    """A note in the folder of a run, or None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None
