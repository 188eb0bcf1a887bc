"""From the name of a model to the folder of its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.training.checkpoint_folders import list_checkpoints

WEIGHTS = Path(__file__).parents[1] / "weights"
"""Shipped weights, one folder a name."""


def resolve(name: str | Path) -> Path:
    """The checkpoint folder that a name stands for; of a run the last checkpoint.

    Args:
        name: A name of shipped weights such as ``"default"``, a checkpoint or run folder, or a hub id.

    Raises:
        KaleidosceneError: There is none.
    """
    shipped = sorted(path.parent.name for path in WEIGHTS.glob("*/config.json"))
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
        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
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
