"""From the name of a model to the folder of its checkpoint, and what is in it: config.json and model.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import unreadable
from kaleidoscene.serialisation import file_sha256, from_plain, to_plain
from kaleidoscene.training.checkpoint_folders import list_checkpoints
from kaleidoscene.training.integrity import verify_published
from kaleidoscene.training.weights import load_weights

Network = TypeVar("Network", bound=nn.Module)
Settings = TypeVar("Settings")
WEIGHTS = Path(__file__).parents[1] / "weights"
"""Shipped weights, one folder a name."""
_FILES = ["config.json", "model.safetensors", "checksums.json", "statistics.safetensors"]


def shipped_weights() -> list[Path]:
    """Checkpoint folders of the package."""
    return sorted(path.parent for path in WEIGHTS.glob("*/config.json"))


def resolve(name: str | Path) -> Path:
    """The checkpoint folder that a name stands for; of a run the last checkpoint.

    Args:
        name: A name of shipped weights such as ``"default"``, a checkpoint or run folder, or a hub id.

    Raises:
        KaleidosceneError: There is none.
    """
    shipped = [path.name for path in shipped_weights()]
    if str(name) in shipped:
        return WEIGHTS / str(name)
    folder = Path(name)
    if folder.is_dir():
        checkpoints = list_checkpoints(folder)
        return checkpoints[-1] if checkpoints else folder
    if str(name).count("/") == 1 and not str(name).startswith((".", "/")):
        return _from_hub(str(name))
    names = ", ".join(map(repr, shipped))
    raise KaleidosceneError(f"{name}: no such model; expected {names}, a checkpoint folder, or a hub id (owner/name).")


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  comes with the codecs extra
    except ImportError as error:
        raise KaleidosceneError(f"{name}: hub ids need huggingface_hub: pip install 'kaleidoscene[codecs]'.") from error
    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except Exception as error:  # the hub client's own and network errors alike
        raise KaleidosceneError(f"{name}: not a local folder, and the hub did not give it ({error}).") from error


def family_of(folder: Path) -> str:
    """The family that a checkpoint says it is of.

    Raises:
        KaleidosceneError: It is no checkpoint.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise KaleidosceneError(f"{folder}: not a checkpoint (no config.json).")
    try:
        return str(json.loads(path.read_text()).get("family"))
    except (ValueError, AttributeError) as error:
        raise KaleidosceneError(f"{path}: not readable JSON ({error}).") from error


def read_settings(folder: Path, family: str, version: int, settings: type[Any]) -> Any:
    """Read ``config.json`` of a checkpoint of a family as the dataclass of its settings.

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
    if document.get("family") != family:
        raise KaleidosceneError(f"{path}: a checkpoint of family {document.get('family')!r}, expected {family!r}.")
    if document.get("format_version") != version:
        raise KaleidosceneError(f"{path}: format version {document.get('format_version')!r}, expected {version}.")
    return from_plain(settings, document.get("settings"), f"{path}: settings")


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
        raise unreadable(path, "file of weights", error) from error


def weights_digest(folder: Path) -> str:
    """What tells the weights of one checkpoint from others of the same architecture: SHA-256 of their file."""
    return file_sha256(folder / "model.safetensors")


def load_network(folder: Path, make: Callable[[], Network], device: str | torch.device) -> Network:
    """The network of a checkpoint with its weights, in evaluation mode.

    Args:
        folder: Of the checkpoint.
        make: Makes it as its settings say; it is called where nothing takes memory.
        device: Where the network goes.

    Raises:
        KaleidosceneError: Weights are missing, damaged, or not exactly those of the network.
    """
    weights = read_weights(folder)
    with torch.device("meta"):
        model = make()
    model = model.to_empty(device=device)
    load_weights(model, weights, str(folder / "model.safetensors"))
    return model.eval().requires_grad_(False)


def write_checkpoint(
    folder: Path, description: dict[str, Any], weights: dict[str, Tensor], *, dtype: torch.dtype = torch.float32
) -> None:
    """Write a checkpoint; both files are written aside and renamed."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / "model.safetensors.partial"
    save_file({name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in weights.items()}, partial)
    partial.chmod(0o644)  # the library leaves it to its owner alone
    config = folder / "config.json.partial"
    config.write_text(json.dumps(description, indent=1))
    os.replace(partial, folder / "model.safetensors")
    os.replace(config, folder / "config.json")


@dataclass(frozen=True)
class CheckpointFormat(Generic[Settings, Network]):
    """The checkpoints of a family: a folder with config.json and model.safetensors, read strictly.

    Attributes:
        family: Its name.
        version: Of the format.
        settings: Everything but the weights, a dataclass.
        network: Makes the network that settings describe.
    """

    family: str
    version: int
    settings: type[Settings]
    network: Callable[[Settings], Network]

    def describe(self, settings: Settings) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return {"family": self.family, "format_version": self.version, "settings": to_plain(settings)}

    def read_settings(self, folder: Path) -> Settings:
        """Read ``config.json``.

        Raises:
            KaleidosceneError: It is missing, of another family or version, or has unknown or missing keys.
        """
        return read_settings(folder, self.family, self.version, self.settings)

    def load_model(self, folder: Path, device: str | torch.device = "cpu") -> tuple[Network, Settings]:
        """The network of a checkpoint, in evaluation mode, and its settings.

        Raises:
            KaleidosceneError: The checkpoint is incomplete, damaged, or does not fit this version of the family.
        """
        settings = self.read_settings(folder)
        return load_network(folder, lambda: self.network(settings), device), settings

    def save_model(
        self, folder: Path, settings: Settings, weights: dict[str, Tensor], *, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write a checkpoint; both files are written aside and renamed."""
        write_checkpoint(folder, self.describe(settings), weights, dtype=dtype)
