"""3DRAE checkpoints: a folder with config.json and model.safetensors, read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kaleidoscene.families import checkpoints
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.serialisation import to_plain

FAMILY, FORMAT_VERSION = "rae3d", 1


def describe(settings: Rae3dSettings) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint."""
    return {"family": FAMILY, "format_version": FORMAT_VERSION, "settings": to_plain(settings)}


def read_settings(folder: Path) -> Rae3dSettings:
    """Read ``config.json``.

    Raises:
        KaleidosceneError: It is missing, of another family or version, or has unknown or missing keys.
    """
    return checkpoints.read_settings(folder, FAMILY, FORMAT_VERSION, Rae3dSettings)


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[Rae3d, Rae3dSettings]:
    """The network of a checkpoint, in evaluation mode, and its settings.

    Raises:
        KaleidosceneError: The checkpoint is incomplete, damaged, or does not fit this version of the family.
    """
    settings = read_settings(folder)
    return checkpoints.load_network(folder, lambda: Rae3d(settings.model), device), settings


def save_model(
    folder: Path, settings: Rae3dSettings, weights: dict[str, Tensor], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint; both files are written aside and renamed."""
    checkpoints.write_checkpoint(folder, describe(settings), weights, dtype=dtype)
