"""OpenEXR images: linear floating-point colours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError

SUFFIX = ".exr"


def read_exr(path: Path) -> Float[Tensor, "3 h w"]:
    """Linear RGB as it is stored, not limited to [0, 1]; alpha and other channels are left out.

    Raises:
        KaleidosceneError: The file is missing or damaged, shows a part of its picture only, has no red, green and
            blue, or numbers that are not finite; or the library for it is not installed.
    """
    exr_size(path)
    with _opened(path) as file:
        planes = {name: channel.pixels for name, channel in file.channels().items()} if file.parts else {}
    if not planes:
        raise KaleidosceneError(f"{path}: the pixels of this OpenEXR image are damaged.")
    if missing := {"R", "G", "B"} - set(planes):
        raise KaleidosceneError(f"{path}: channels {', '.join(sorted(planes))}, {min(missing)} is missing.")
    planes = [planes[name] for name in "RGB"]
    if len({plane.shape for plane in planes}) > 1 or any(plane.dtype.kind != "f" for plane in planes):
        raise KaleidosceneError(f"{path}: red, green and blue are of different sizes, or no floating-point numbers.")
    image = torch.from_numpy(np.stack(planes).astype(np.float32))
    if not bool(image.isfinite().all()):
        raise KaleidosceneError(f"{path}: the image has values that are not finite.")
    return image


def exr_size(path: Path) -> tuple[int, int]:
    """``(height, width)``, from the head of the file.

    Raises:
        KaleidosceneError: The file is missing or damaged, or shows a part of its picture only.
    """
    with _opened(path, header_only=True) as file:
        header = dict(file.header()) if file.parts else {}
    if not header:
        raise KaleidosceneError(f"{path}: not a readable OpenEXR image (no parts).")
    if not np.array_equal(header["dataWindow"], header["displayWindow"]):
        raise KaleidosceneError(
            f"{path}: the pixels of this OpenEXR image are a part of its picture only (data window)."
        )
    (left, top), (right, bottom) = header["dataWindow"]
    return int(bottom - top) + 1, int(right - left) + 1


@contextmanager
def _opened(path: Path, **options: bool) -> Iterator[Any]:
    try:
        import OpenEXR  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError(f"{path}: OpenEXR images need OpenEXR: pip install 'kaleidoscene[eval]'.") from error
    if not path.is_file():
        raise KaleidosceneError(f"{path}: no such image.")
    try:
        with OpenEXR.File(str(path), separate_channels=True, **options) as file:
            yield file
    except (RuntimeError, ValueError, TypeError) as error:
        raise KaleidosceneError(f"{path}: not a readable OpenEXR image ({error}).") from error
