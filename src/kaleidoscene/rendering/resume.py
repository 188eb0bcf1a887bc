"""A rendering that can be interrupted: finished views wait beside the output folder until the rest is done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.rendering.ordering import Chunk
from kaleidoscene.serialisation import save_aside, write_json

REQUEST = "request.json"


class PartialRendering:
    """The folder ``.NAME.rendering`` beside an output folder ``NAME``, with every finished view and the request.

    Views are kept as they came out (fp32), because in autoregressive rendering the next ones are made from them; depth
    is a fourth channel.

    Args:
        out: The output folder.
        request: Everything that the views depend on, as JSON.
        overwrite: What is there of another request goes.

    Raises:
        KaleidosceneError: Another request was begun here (and ``overwrite`` is off), or nothing can be written.
    """

    def __init__(self, out: Path, request: dict[str, Any], *, overwrite: bool) -> None:
        out = out.resolve()
        self.folder = out.with_name(f".{out.name}.rendering")
        note = self.folder / REQUEST
        if is_begun_otherwise(out, request):
            if not overwrite:
                raise KaleidosceneError(
                    f"{out}: another rendering was begun here and not finished; give another folder, or --overwrite."
                )
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(note, request)
        except OSError as error:
            raise KaleidosceneError(f"{out}: the output folder cannot be made ({error.strerror}).") from error

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npy"

    def keep(self, chunk: Chunk) -> None:
        """Put the views of a chunk away."""
        planes = chunk.images if chunk.depths is None else torch.cat([chunk.images, chunk.depths[:, None]], dim=1)
        for index, view in zip(chunk.indices, planes, strict=True):
            save_aside(self._path(index), lambda file, view=view: np.save(file, view.float().cpu().numpy()))

    def finished(self, indices: list[int]) -> Chunk | None:
        """Views that were put away, None if one of them is missing."""
        paths = [self._path(index) for index in indices]
        if not all(path.is_file() for path in paths):
            return None
        planes = torch.stack([torch.from_numpy(np.load(path, allow_pickle=False)) for path in paths])
        return Chunk(indices, planes[:, :3], planes[:, 3] if planes.shape[1] > 3 else None, is_new=False)

    @property
    def count(self) -> int:
        """Views that were put away."""
        return len(list(self.folder.glob("*.npy")))

    def discard(self) -> None:
        """Everything is written: the folder goes."""
        shutil.rmtree(self.folder, ignore_errors=True)


def is_begun_otherwise(out: Path, request: dict[str, Any]) -> bool:
    """Whether another request waits beside an output folder to go on."""
    out = out.resolve()
    note = out.with_name(f".{out.name}.rendering") / REQUEST
    return note.is_file() and not _is_of(note, request)


def _is_of(note: Path, request: dict[str, Any]) -> bool:
    """Whether a note tells a request."""
    try:
        return json.loads(note.read_text()) == json.loads(json.dumps(request))
    except (OSError, ValueError):
        return False


def is_finished(out: Path, request: dict[str, Any], names: list[str]) -> bool:
    """Whether a folder holds the whole result of a request: its note and the files ``names``."""
    return all((out / name).is_file() for name in names) and _is_of(out / REQUEST, request)
