"""All model families; a new one is a folder beside this file and a line here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.families import kaleido
from kaleidoscene.families.system import System


@dataclass(frozen=True)
class Family:
    """How the checkpoints of a family become something that renders."""

    load: Callable[[Path, str, str], System]
    """Takes the folder, the device and the precision."""


FAMILIES: dict[str, Family] = {"kaleido": Family(kaleido.load_system)}


def load_folder(folder: Path, device: str, precision: str) -> System:
    """Load a checkpoint folder of any family.

    Raises:
        KaleidosceneError: It is no checkpoint, of an unknown family, or does not load strictly.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise KaleidosceneError(f"{folder}: not a checkpoint (no config.json).")
    try:
        family = json.loads(path.read_text()).get("family")
    except (ValueError, AttributeError) as error:
        raise KaleidosceneError(f"{path}: not readable JSON ({error}).") from error
    if family not in FAMILIES:
        raise unknown_name(f"family in {path}:", str(family), FAMILIES)
    return FAMILIES[family].load(folder, device, precision)
