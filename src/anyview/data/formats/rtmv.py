"""RTMV (Tremblay et al. 2022): ``NNNNN.exr`` with ``NNNNN.json``.

The pose ``camera_data.cam2world`` is stored transposed, camera axes are x right, y up, z backward. Colours are linear;
they are cut off at 1 and get no tone curve, as in EscherNet's evaluation (whose values above 1 wrap around instead).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anyview.data.captures import Capture
from anyview.data.files import read_json
from anyview.data.frames import Frame
from anyview.data.images import image_size
from anyview.errors import AnyViewError

EXPECTS = "NNNNN.exr with NNNNN.json (RTMV)"
_OPENCV_FROM_OPENGL = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_IMAGES = "[0-9][0-9][0-9][0-9][0-9].exr"


def find(path: Path) -> Path | None:
    """The folder itself if it is a scene."""
    return path if (path / "00000.json").is_file() and (path / "00000.exr").is_file() else None


def read(path: Path) -> Capture:
    """Read a scene, in the order of the numbers; depth and segmentation are left alone.

    Raises:
        AnyViewError: A camera is missing, unreadable, or of another size than its image.
    """
    frames = []
    for image in sorted(path.glob(_IMAGES)):
        document = image.with_suffix(".json")
        if not document.is_file():
            raise AnyViewError(f"{image}: the camera of this image is missing (expected {document.name}).")
        frames.append(_frame(image, document))
    return Capture(path.name, "rtmv", path, tuple(frames), "object")


def _frame(image: Path, document: Path) -> Frame:
    content = read_json(document)
    camera = content.get("camera_data") if isinstance(content, dict) else None
    if not isinstance(camera, dict):
        raise AnyViewError(f'{document}: expected an object with "camera_data".')
    size = (_number(camera, "height", document), _number(camera, "width", document))
    if (stored := image_size(image)) != size:
        raise AnyViewError(f"{image}: the image is {stored[0]}x{stored[1]}, its camera is of {size[0]:g}x{size[1]:g}.")
    lens = camera.get("intrinsics")
    if not isinstance(lens, dict):
        raise AnyViewError(f'{document}: expected "intrinsics" with fx, fy, cx and cy.')
    fx, fy, cx, cy = (_number(lens, name, document) for name in ("fx", "fy", "cx", "cy"))
    intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    return Frame(image, stored, _pose(camera, document), intrinsics)


def _number(values: dict[str, Any], name: str, where: Path) -> float:
    value = values.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnyViewError(f"{where}: {name} is {value!r}, expected a number.")
    return float(value)


def _pose(camera: dict[str, Any], where: Path) -> Tensor:
    """``world_from_cam`` in OpenCV axes."""
    rows = camera.get("cam2world")
    if not isinstance(rows, list) or len(rows) != 4 or any(not _is_row(row) for row in rows):
        raise AnyViewError(f"{where}: cam2world is no 4x4 matrix of numbers.")
    return torch.tensor(rows, dtype=torch.float64).mT @ _OPENCV_FROM_OPENGL


def _is_row(row: Any) -> bool:
    if not isinstance(row, list) or len(row) != 4:
        return False
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in row)
