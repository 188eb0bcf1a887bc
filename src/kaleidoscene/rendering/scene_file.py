"""A scene as a file: what a model made of photographs, so that it need not be made again."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.rendering.renderer import Scene
from kaleidoscene.rendering.system import SceneKeeper
from kaleidoscene.serialisation import save_aside, to_plain

VERSION = 1
_SCENE, _OWN = "scene.", "own."


def write_scene(path: Path, keeper: SceneKeeper, scene: Scene, own: dict[str, Float[Tensor, "..."]]) -> None:
    """Write a safetensors file: the scene, which model it is of, and a checksum of all.

    Args:
        path: The file; it appears when all is written.
        keeper: The model.
        scene: To keep.
        own: What the caller wants back beside it.
    """
    tensors = {_SCENE + name: x for name, x in keeper.pack(scene).items()} | {_OWN + name: x for name, x in own.items()}
    # Copies: tensors of a file must not share memory.
    tensors = {name: x.detach().cpu().clone(memory_format=torch.contiguous_format) for name, x in tensors.items()}
    note = {"format": "kaleidoscene scene", "version": VERSION, "model": keeper.fingerprint, "sum": digest(tensors)}
    written = save(tensors, {"kaleidoscene": json.dumps(note)})
    save_aside(path, lambda file: file.write(written))


def read_scene(path: Path, keeper: SceneKeeper) -> tuple[Scene, dict[str, Tensor]]:
    """The scene of a file, and what was put beside it.

    Raises:
        KaleidosceneError: It is missing, truncated, edited, no scene, or of another model.
    """
    if not path.is_file():
        raise KaleidosceneError(f"{path}: no such scene file.")
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads((file.metadata() or {}).get("kaleidoscene", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, ValueError, OSError) as error:
        raise KaleidosceneError(f"{path}: not readable as a scene ({error}).") from error
    if not isinstance(note, dict) or note.get("format") != "kaleidoscene scene":
        raise KaleidosceneError(f"{path}: not a scene file; expected one that 'kaleidoscene reconstruct' wrote.")
    if note.get("version") != VERSION:
        raise KaleidosceneError(f"{path}: a scene of format version {note.get('version')!r}, expected {VERSION}.")
    if note.get("model") != keeper.fingerprint:
        raise KaleidosceneError(
            f"{path}: a scene of other weights, or written by an earlier version; render it with the model that made "
            "it, or make it again."
        )
    if note.get("sum") != digest(tensors):
        raise KaleidosceneError(f"{path}: the scene was changed after it was written; make it again.")
    own = {name.removeprefix(_OWN): x for name, x in tensors.items() if name.startswith(_OWN)}
    kept = {name.removeprefix(_SCENE): x for name, x in tensors.items() if name.startswith(_SCENE)}
    return keeper.unpack(kept), own


def fingerprint_of(settings: Any, model: nn.Module) -> str:
    """A checksum of a network's settings and weights.

    Args:
        settings: A dataclass; fields of it with the metadata ``of_training=False`` make no other scenes.
        model: The network.
    """
    left_out = {field.name for field in fields(settings) if not field.metadata.get("of_training", True)}
    plain = json.dumps({name: x for name, x in to_plain(settings).items() if name not in left_out}, sort_keys=True)
    return hashlib.sha256((plain + digest(model.state_dict())).encode()).hexdigest()


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and contents of tensors."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name].detach().cpu().contiguous()
        found.update(f"{name} {x.dtype} {tuple(x.shape)};".encode())
        found.update(x.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()
