"""What a checkpoint holds to go on from, and reading it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.distributed import like
from kaleidoscene.training.weights import check_names
from kaleidoscene.training.world import World

# Of the version before, averaged weights are whole in the exported file alone.
FORMAT_VERSION, _WHOLE_AVERAGE = 3, 2
EXPORTED = "model.safetensors"
"""The averaged weights whole, to render with."""
BROKEN = (OSError, ValueError, KeyError, TypeError, SafetensorError, CheckpointException)
"""What reading and writing checkpoints raises."""


@dataclass(frozen=True, eq=False)
class TrainingState:
    """What a checkpoint holds beside the model's description; tensors lie as they lie in this process."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    extra: dict[str, Any]

    def tensors(self) -> dict[str, Tensor]:
        """Weights and optimiser states under one name each."""
        named = {f"weights/{name}": tensor for name, tensor in self.weights.items()}
        named |= {f"average/{name}": tensor for name, tensor in self.average.items()}
        return named | {f"optimiser/{name}": tensor for name, tensor in self.optimiser.items()}


def read_state(folder: Path) -> dict[str, Any]:
    """``state.json`` of a checkpoint to go on from.

    Raises:
        KaleidosceneError: The folder is not such a checkpoint.
    """
    try:
        document = json.loads((folder / "training" / "state.json").read_text())
        version = document.pop("format_version", 1)
    except BROKEN as error:
        raise KaleidosceneError(f"{folder}: not a checkpoint to resume from ({error}).") from error
    if version not in (_WHOLE_AVERAGE, FORMAT_VERSION):
        raise KaleidosceneError(
            f"{folder}: a checkpoint of version {version}, expected {FORMAT_VERSION}; begin a new run with --init."
        )
    return document


def load_training_state(folder: Path, world: World, weights: dict[str, Tensor]) -> TrainingState:
    """Read a checkpoint to go on from, by any number of processes; :func:`verify` tells beforehand whether it is whole.

    Args:
        folder: The checkpoint.
        world: The processes; each must make this call.
        weights: The parameters by name, as they lie in this process; what is read lies alike.

    Raises:
        KaleidosceneError: The folder was not written by :class:`CheckpointWriter`, or is of another model.
    """
    extra = read_state(folder)
    try:
        with quiet():
            reader = HuggingFaceStorageReader(str(folder / "training" / "shards"))
            stored = reader.read_metadata().state_dict_metadata
            kept = {name.removeprefix("weights/") for name in stored if name.startswith("weights/")}
            check_names(folder, kept, weights)
            tensors = {name: _blank(name, weights) for name in stored if name.startswith("optimiser/")}
            tensors |= {f"weights/{name}": p.detach().clone() for name, p in weights.items()}
            is_sharded = any(name.startswith("average/") for name in stored)
            if is_sharded:
                tensors |= {f"average/{name}": p.detach().clone() for name, p in weights.items()}
            load(tensors, storage_reader=reader, no_dist=world.size == 1)
        if is_sharded:
            average = {name: tensors[f"average/{name}"] for name in weights}
        else:
            with safe_open(folder / EXPORTED, "pt") as file:
                average = {name: like(file.get_tensor(name), p.detach()) for name, p in weights.items()}
    except BROKEN as error:
        raise KaleidosceneError(f"{folder}: not a checkpoint to resume from ({error}).") from error
    return TrainingState(
        extra.pop("step"),
        {name.removeprefix("weights/"): t for name, t in tensors.items() if name.startswith("weights/")},
        average,
        {name.removeprefix("optimiser/"): t for name, t in tensors.items() if name.startswith("optimiser/")},
        extra,
    )


def _blank(name: str, weights: dict[str, Tensor]) -> Tensor:
    """Room for a state of an optimiser, ``optimiser/PARAMETER:QUANTITY``: a count, or shaped as its parameter."""
    parameter, quantity = name.removeprefix("optimiser/").split(":")
    return torch.zeros(()) if quantity == "step" else weights[parameter].detach().clone()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the library's notes that a single process reads and writes for itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield
