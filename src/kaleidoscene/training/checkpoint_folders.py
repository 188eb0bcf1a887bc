"""Folders of checkpoints: their names, and how they come and go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

PREFIX = "step-"
"""How the names of checkpoints begin; the step follows."""
SAMPLES = "samples"
"""Folder of a run with what was rendered of held-out captures; in it one for each step that was scored."""


def step_name(step: int) -> str:
    """Name of what belongs to a step."""
    return f"{PREFIX}{step:08d}"


def newest_samples(run: Path) -> list[Path]:
    """Renderings of the last step of a run that was scored, a folder for each capture; none of what is no run."""
    steps = sorted(path for path in (run / SAMPLES).glob(f"{PREFIX}*") if path.is_dir())
    return sorted(path for path in steps[-1].iterdir() if path.is_dir()) if steps else []


def discard(checkpoint: Path) -> None:
    """Remove a checkpoint so that half of one never has its name."""
    gone = checkpoint.with_name(checkpoint.name + ".gone.partial")
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(checkpoint, gone)
    shutil.rmtree(gone)


def remove_leftovers(run: Path) -> None:
    """Remove what a kill left of checkpoints that were being written or removed."""
    for path in (run / "checkpoints").glob("*.partial"):
        shutil.rmtree(path, ignore_errors=True)


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = (run / "checkpoints").glob(f"{PREFIX}*")
    return sorted(path for path in found if path.name.removeprefix(PREFIX).isdigit())


def set_aside(checkpoint: Path) -> None:
    """Take its name from a damaged checkpoint; what is left of it stays beside the others."""
    aside = checkpoint.with_name(checkpoint.name + ".damaged")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(checkpoint, aside)


def step_of(checkpoint: Path) -> int:
    """The step that a checkpoint's name states."""
    return int(checkpoint.name.removeprefix(PREFIX))
