"""3DDiT checkpoints, and the autoencoder that they name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families import checkpoints
from kaleidoscene.families.dit3d.config import Dit3dConfig
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.statistics import TokenStatistics, read_statistics
from kaleidoscene.families.rae3d.system import load_system
from kaleidoscene.serialisation import to_plain

FAMILY, FORMAT_VERSION = "dit3d", 1


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A 3DRAE and what its tokens are like."""

    renderer: Rae3dRenderer
    statistics: TokenStatistics


def describe(settings: Dit3dSettings) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint."""
    return {"family": FAMILY, "format_version": FORMAT_VERSION, "settings": to_plain(settings)}


def read_settings(folder: Path) -> Dit3dSettings:
    """Read ``config.json``.

    Raises:
        KaleidosceneError: It is missing, of another family or version, or has unknown or missing keys.
    """
    return checkpoints.read_settings(folder, FAMILY, FORMAT_VERSION, Dit3dSettings)


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[Dit3d, Dit3dSettings]:
    """The network of a checkpoint, in evaluation mode, and its settings.

    Raises:
        KaleidosceneError: The checkpoint is incomplete, damaged, or does not fit this version of the family.
    """
    settings = read_settings(folder)
    return checkpoints.load_network(folder, lambda: Dit3d(settings.model), device), settings


def save_model(
    folder: Path, settings: Dit3dSettings, weights: dict[str, Tensor], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint; both files are written aside and renamed."""
    checkpoints.write_checkpoint(folder, describe(settings), weights, dtype=dtype)


def load_autoencoder(source: str, config: Dit3dConfig, device: str, precision: str = "fp32") -> Autoencoder:
    """The autoencoder of a checkpoint.

    Args:
        source: Name, folder or hub id.
        config: Of the network that draws its tokens.
        device: Where to put it.
        precision: Of matrix products.

    Raises:
        KaleidosceneError: It is missing, has no statistics, or other tokens than the network.
    """
    folder = checkpoints.resolve(source)
    renderer = load_system(folder, device, precision).autoencoder
    have = (renderer.settings.model.tokens, renderer.settings.model.width)
    if have != (config.tokens, config.channels):
        want = (config.tokens, config.channels)
        raise KaleidosceneError(f"{source}: an autoencoder of {have} tokens and channels, the network has {want}.")
    return Autoencoder(renderer, read_statistics(folder, have))
