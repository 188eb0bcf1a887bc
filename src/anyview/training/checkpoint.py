"""Checkpoints: a folder with config.json, model.safetensors and training/; written aside, then renamed.

``model.safetensors`` holds the averaged weights, which are the ones to render with; ``training/`` what it takes to go
on exactly: the weights themselves, the state of the optimisers and the step. No pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anyview.errors import AnyViewError

_PREFIX = "step-"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a checkpoint holds beside the model's description."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    extra: dict[str, Any]


def save_checkpoint(run: Path, config: dict[str, Any], state: TrainingState, *, keep: int) -> Path:
    """Write ``run/checkpoints/step-N`` and drop the oldest ones but ``keep``."""
    folder = run / "checkpoints" / f"{_PREFIX}{state.step:08d}"
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "training").mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config, indent=1))
    _save(state.average, partial / "model.safetensors")
    _save(state.weights, partial / "training" / "weights.safetensors")
    _save(state.optimiser, partial / "training" / "optimiser.safetensors")
    (partial / "training" / "state.json").write_text(json.dumps({"step": state.step, **state.extra}))
    _sync(partial)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)
    for old in list_checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return folder


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, path)


def _sync(folder: Path) -> None:
    """Have the files on disk before the folder gets its name, so that a name never stands for half a checkpoint."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def list_checkpoints(run: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    return sorted(path for path in (run / "checkpoints").glob(f"{_PREFIX}*") if not path.name.endswith(".partial"))


def load_training_state(folder: Path) -> TrainingState:
    """Read a checkpoint to go on from.

    Raises:
        AnyViewError: The folder was not written by :func:`save_checkpoint`.
    """
    try:
        extra = json.loads((folder / "training" / "state.json").read_text())
        return TrainingState(
            extra.pop("step"),
            load_file(folder / "training" / "weights.safetensors"),
            load_file(folder / "model.safetensors"),
            load_file(folder / "training" / "optimiser.safetensors"),
            extra,
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise AnyViewError(f"{folder}: not a checkpoint to resume from ({error}).") from error


def load_weights(model: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy tensors into a model; every name and shape must match.

    Raises:
        AnyViewError: Tensors are missing, left over or of the wrong shape; the message names the first.
    """
    expected = {name: tuple(p.shape) for name, p in model.named_parameters()}
    if missing := sorted(expected.keys() - tensors.keys()):
        raise AnyViewError(f"{where}: {len(missing)} tensors are missing, the first is {missing[0]!r}.")
    if extra := sorted(tensors.keys() - expected.keys()):
        raise AnyViewError(f"{where}: {len(extra)} tensors do not belong to this model, the first is {extra[0]!r}.")
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise AnyViewError(f"{where}: {name!r} has shape {list(tensors[name].shape)}, expected {list(shape)}.")
    model.load_state_dict(tensors)
