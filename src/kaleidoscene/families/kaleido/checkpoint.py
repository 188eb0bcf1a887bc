"""Kaleido checkpoints: a folder with config.json and model.safetensors, read strictly."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.serialisation import from_plain, to_plain
from kaleidoscene.training.integrity import verify_published
from kaleidoscene.training.weights import load_weights

FAMILY, FORMAT_VERSION = "kaleido", 1


def describe(settings: KaleidoSettings) -> dict[str, Any]:
    """The ``config.json`` of a checkpoint."""
    return {"family": FAMILY, "format_version": FORMAT_VERSION, "settings": to_plain(settings)}


def read_settings(folder: Path) -> KaleidoSettings:
    """Read ``config.json``.

    Raises:
        KaleidosceneError: It is missing, of another family or version, or has unknown or missing keys.
    """
    path = folder / "config.json"
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise KaleidosceneError(f"{folder}: not a checkpoint (no config.json).") from None
    except (OSError, ValueError) as error:
        raise KaleidosceneError(f"{path}: not readable JSON ({error}).") from error
    if document.get("family") != FAMILY:
        raise KaleidosceneError(f"{path}: a checkpoint of family {document.get('family')!r}, expected {FAMILY!r}.")
    if document.get("format_version") != FORMAT_VERSION:
        raise KaleidosceneError(
            f"{path}: format version {document.get('format_version')!r}, expected {FORMAT_VERSION}."
        )
    return from_plain(KaleidoSettings, document.get("settings"), f"{path}: settings")


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read ``model.safetensors`` as fp32.

    Raises:
        KaleidosceneError: It is missing or damaged, or not what ``checksums.json`` beside it says.
    """
    path = folder / "model.safetensors"
    verify_published(folder)
    try:
        return {name: tensor.float() for name, tensor in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise KaleidosceneError(f"{path}: not readable weights ({error}).") from error


def load_model(folder: Path, device: str | torch.device = "cpu") -> tuple[Kaleido, KaleidoSettings]:
    """The network of a checkpoint, in evaluation mode, and its settings.

    Raises:
        KaleidosceneError: The checkpoint is incomplete, damaged, or does not fit this version of the family.
    """
    settings, weights = read_settings(folder), read_weights(folder)
    with torch.device("meta"):
        model = Kaleido(settings.model)
    model = model.to_empty(device=device)
    load_weights(model, weights, str(folder / "model.safetensors"))
    return model.eval().requires_grad_(False), settings


def save_model(
    folder: Path, settings: KaleidoSettings, weights: dict[str, Tensor], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint; both files are written aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.partial"
    save_file({name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}, partial)
    config = folder / "config.json.partial"
    config.write_text(json.dumps(describe(settings), indent=1))
    os.replace(partial, folder / "model.safetensors")
    os.replace(config, folder / "config.json")
