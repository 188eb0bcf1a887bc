"""RTMV (Tremblay et al. 2022): ``NNNNN.exr`` with ``NNNNN.json``.

The pose ``camera_data.cam2world`` is stored transposed, camera axes are x right, y up, z backward; the middle of the
scene is ``scene_center_3d_box``. Colours are linear; they are cut off at 1 and get no tone curve, as in EscherNet's
evaluation (whose values above 1 wrap around instead).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.transforms_json import OPENGL_FROM_OPENCV
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_json

EXPECTS = "NNNNN.exr with NNNNN.json (RTMV)"
_LARGEST = 1e9
_NUMBERED = "[0-9][0-9][0-9][0-9][0-9]"


def find(path: Path) -> Path | None:
    """The folder itself if it is a scene."""
    return path if (path / "00000.json").is_file() and (path / "00000.exr").is_file() else None


def read(path: Path) -> Capture:
    """Read a scene, in the order of the numbers; depth and segmentation are left alone.

    Raises:
        KaleidosceneError: An image or a camera is missing, or a camera is unreadable.
    """
    images, documents = ({file.stem: file for file in path.glob(_NUMBERED + end)} for end in (".exr", ".json"))
    names = [f"{number:05d}" for number in range(len(images.keys() | documents.keys()))]
    for name in names:
        for files, what, end in ((images, "image", "exr"), (documents, "camera", "json")):
            if name not in files:
                raise KaleidosceneError(f"{path}: the {what} of view {name} is missing (expected {name}.{end}).")
    cameras = [_camera(documents[name]) for name in names]
    frames = tuple(_frame(images[name], camera, documents[name]) for name, camera in zip(names, cameras, strict=True))
    return Capture(path.name, "rtmv", path, frames, centre=_centre(cameras[0], documents[names[0]]))


def _camera(document: Path) -> dict[str, Any]:
    content = read_json(document)
    camera = content.get("camera_data") if isinstance(content, dict) else None
    if not isinstance(camera, dict):
        raise KaleidosceneError(f'{document}: expected an object with "camera_data".')
    return camera


def _centre(camera: dict[str, Any], where: Path) -> Tensor | None:
    """The middle of the scene, where the file tells it."""
    if "scene_center_3d_box" not in camera:
        return None
    return torch.tensor(_numbers(camera["scene_center_3d_box"], 3, "scene_center_3d_box", where), dtype=torch.float32)


def _frame(image: Path, camera: dict[str, Any], document: Path) -> Frame:
    # Whether the image is of this size is looked at with those of all formats.
    size = (int(_number(camera, "height", document)), int(_number(camera, "width", document)))
    lens = camera.get("intrinsics")
    if not isinstance(lens, dict):
        raise KaleidosceneError(f'{document}: expected "intrinsics" with fx, fy, cx and cy.')
    fx, fy, cx, cy = (_number(lens, name, document) for name in ("fx", "fy", "cx", "cy"))
    intrinsics = torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)
    return Frame(image, size, _pose(camera, document), intrinsics)


def _number(values: dict[str, Any], name: str, where: Path) -> float:
    return _numbers([values.get(name)], 1, name, where)[0]


def _pose(camera: dict[str, Any], where: Path) -> Tensor:
    """``world_from_cam`` in OpenCV axes."""
    rows = camera.get("cam2world")
    if not isinstance(rows, list) or len(rows) != 4:
        raise KaleidosceneError(f"{where}: cam2world is no 4x4 matrix.")
    columns = [_numbers(row, 4, "cam2world", where) for row in rows]
    return torch.tensor(columns, dtype=torch.float64).mT @ OPENGL_FROM_OPENCV


def _numbers(values: Any, count: int, name: str, where: Path) -> list[float]:
    if not isinstance(values, list) or len(values) != count:
        raise KaleidosceneError(f"{where}: {name} has {values!r}, expected {count} numbers.")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _LARGEST:
            raise KaleidosceneError(f"{where}: {name} has {str(value)[:40]!r}, expected a number.")
    return [float(value) for value in values]
