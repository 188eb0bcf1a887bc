"""RnG checkpoints: a folder with config.json and model.safetensors, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kaleidoscene.families import checkpoints
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.serialisation import to_plain

FAMILY, FORMAT_VERSION = "rng", 1


def describe(settings: RngSettings) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint."""
    return {"family": FAMILY, "format_version": FORMAT_VERSION, "settings": to_plain(settings)}


def read_settings(folder: Path) -> RngSettings:
    """Read ``config.json``.

    Raises:
        KaleidosceneError: It is missing, of another family or version, or has unknown or missing keys.
    """
    return checkpoints.read_settings(folder, FAMILY, FORMAT_VERSION, RngSettings)


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[Rng, RngSettings]:
    """The network of a checkpoint, in evaluation mode, and its settings.

    Raises:
        KaleidosceneError: The checkpoint is incomplete, damaged, or does not fit this version of the family.
    """
    settings = read_settings(folder)
    return checkpoints.load_network(folder, lambda: Rng(settings.model), device), settings


def save_model(
    folder: Path, settings: RngSettings, weights: dict[str, Tensor], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint; both files are written aside and renamed."""
    checkpoints.write_checkpoint(folder, describe(settings), weights, dtype=dtype)
