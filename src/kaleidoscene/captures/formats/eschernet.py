"""The EscherNet render folder: ``NNN.png`` with ``NNN.npy``, the exact form of the GSO-30 benchmark.

A pose is 3x4 camera-from-world in Blender's camera axes (x right, y up, z backward), the world z up; the images are
RGBA, all with the focal length 280 at 256 px (560 at 512).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_npy
from kaleidoscene.geometry.poses import invert
from kaleidoscene.images.files import image_size

EXPECTS = "NNN.png with NNN.npy (EscherNet)"
FOCAL_OVER_SIZE = 280 / 256
_OPENCV_FROM_BLENDER = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))


def find(path: Path) -> Path | None:
    """The folder with the renders if ``path`` is one or leads to one (``render_mvs_25/model``)."""
    for folder in (path, path / "model", path / "render_mvs_25" / "model"):
        if (folder / "000.npy").is_file() and (folder / "000.png").is_file():
            return folder
    return None


def read(path: Path) -> Capture:
    """Read a folder of renders, in the order of their numbers.

    Raises:
        KaleidosceneError: A pose is missing or unreadable.
    """
    pose_paths = sorted(path.glob("[0-9][0-9][0-9].npy"))
    images = [pose.with_suffix(".png") for pose in pose_paths]
    if extra := sorted(set(path.glob("[0-9][0-9][0-9].png")) - set(images)):
        raise KaleidosceneError(f"{extra[0]}: the pose of this image is missing (expected {extra[0].stem}.npy).")
    size = image_size(images[0])
    frames = [
        Frame(image, size, _pose(pose), _intrinsics(size)) for pose, image in zip(pose_paths, images, strict=True)
    ]
    name = path.parents[1].name if path.name == "model" else path.name
    return Capture(name, "eschernet", path, tuple(frames), "object")


def _intrinsics(size: tuple[int, int]) -> Tensor:
    height, width = size
    focal = FOCAL_OVER_SIZE * height
    return torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], dtype=torch.float64)


def _pose(path: Path) -> Tensor:
    """``world_from_cam`` in OpenCV axes."""
    matrix = read_npy(path)
    if matrix.shape != (3, 4) or matrix.dtype.kind not in "fiu":
        raise KaleidosceneError(
            f"{path}: a pose of shape {matrix.shape} and type {matrix.dtype}, expected numbers (3, 4)."
        )
    cam_from_world = torch.eye(4, dtype=torch.float64)
    cam_from_world[:3] = _OPENCV_FROM_BLENDER @ torch.from_numpy(matrix.astype("float64"))
    return invert(cam_from_world)
