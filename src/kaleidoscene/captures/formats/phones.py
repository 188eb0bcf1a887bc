"""Scans of phone apps with the cameras that the phone tracked: Polycam's raw export and Record3D's r3d files.

Both have camera-to-world poses with OpenGL axes in ARKit's world, whose y is up, in metres.
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
from kaleidoscene.files import natural_key, read_json
from kaleidoscene.geometry.poses import rigid, rotation_of
from kaleidoscene.images.files import list_images

EXPECTS_POLYCAM = "keyframes/cameras/TIMESTAMP.json with keyframes/images (Polycam)"
EXPECTS_RECORD3D = "metadata or metadata.json with rgbd/ or rgb/ (Record3D)"
Y_UP = torch.tensor([0.0, 1.0, 0.0])
"""Of ARKit's world; pictures are stored as the sensor lies, so that cameras held upright do not tell it."""
_UNITS_OF_DEPTH = 0.001


def find_polycam(path: Path) -> Path | None:
    """The folder that holds ``keyframes``."""
    folder = path.parent if path.name == "keyframes" else path
    return folder if any((folder / "keyframes" / name).is_dir() for name in ("cameras", "corrected_cameras")) else None


def read_polycam(path: Path) -> Capture:
    """Read the keyframes of a raw export: the app's optimised cameras and corrected images where it made some.

    Raises:
        KaleidosceneError: A camera file is damaged, or there are none.
    """
    frames = path / "keyframes"
    corrected = (frames / "corrected_cameras").is_dir() and (frames / "corrected_images").is_dir()
    prefix = "corrected_" if corrected else ""
    cameras = sorted((frames / f"{prefix}cameras").glob("*.json"), key=natural_key)
    if not cameras:
        raise KaleidosceneError(f"{frames}: no cameras here (expected {EXPECTS_POLYCAM}).")
    notes = ["the cameras are the app's optimised ones" if corrected else "the cameras are the phone's own tracking"]
    depths = [frames / "depth" / f"{camera.stem}.png" for camera in cameras]
    if corrected and any(depth.is_file() for depth in depths):
        notes.append("depth maps are left out: they belong to images that were not corrected")
    found = []
    for camera, depth in zip(cameras, depths, strict=True):
        image = frames / f"{prefix}images" / f"{camera.stem}.jpg"
        frame = _keyframe(camera, image)
        has_depth = not corrected and depth.is_file()
        found.append(Frame(*frame, depth=depth if has_depth else None, depth_scale=_UNITS_OF_DEPTH))
    return Capture(path.name, "polycam", path, tuple(found), upward=Y_UP.clone(), notes=tuple(notes))


def _keyframe(file: Path, image: Path) -> tuple[Path, tuple[int, int], Tensor, Tensor]:
    said = read_json(file)
    try:
        rows = [[float(said[f"t_{row}{col}"]) for col in range(4)] for row in range(3)]
        fx, fy, cx, cy = (float(said[key]) for key in ("fx", "fy", "cx", "cy"))
        size = (int(said["height"]), int(said["width"]))
    except (KeyError, TypeError, ValueError) as error:
        raise KaleidosceneError(f"{file}: not a camera of Polycam ({error!r}).") from error
    pose = torch.tensor([*rows, [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64) @ OPENGL_FROM_OPENCV
    return image, size, pose, pinhole(fx, fy, cx, cy)


def find_record3d(path: Path) -> Path | None:
    """The file of metadata of an unpacked recording."""
    if path.is_file() and path.name in ("metadata", "metadata.json"):
        path = path.parent
    if not any((path / name).is_dir() for name in ("rgbd", "rgb")):
        return None
    return next((path / name for name in ("metadata", "metadata.json") if (path / name).is_file()), None)


def read_record3d(path: Path) -> Capture:
    """Read the frames of a recording from its metadata; depth, which is packed in a way of its own, is left out.

    Raises:
        KaleidosceneError: The metadata are damaged, or speak of another number of frames than there are.
    """
    said, folder = read_json(path), path.parent
    images = sorted(list_images(next(folder / name for name in ("rgbd", "rgb") if (folder / name).is_dir())),
                    key=natural_key)  # fmt: skip
    poses, lenses, size = _recorded(said, path, len(images))
    frames = tuple(Frame(image, size, pose, lens) for image, pose, lens in zip(images, poses, lenses, strict=True))
    packed = any(image.with_suffix(".depth").is_file() for image in images)
    notes = ("the cameras are the phone's own tracking", *(("its packed depth is left out",) if packed else ()))
    return Capture(folder.name, "record3d", folder, frames, upward=Y_UP.clone(), notes=notes)


def _recorded(said: Any, path: Path, count: int) -> tuple[list[Tensor], list[Tensor], tuple[int, int]]:
    """Poses, lenses and image size of all frames."""
    try:
        poses = [[float(value) for value in pose] for pose in said["poses"]]
        matrix = torch.tensor([float(value) for value in said["K"]], dtype=torch.float64).view(3, 3).T
        size = (int(said["h"]), int(said["w"]))
        each = [[float(value) for value in lens] for lens in said.get("perFrameIntrinsicCoeffs") or []]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise KaleidosceneError(f"{path}: not metadata of Record3D ({error!r}).") from error
    if len(poses) != count or not count:
        raise KaleidosceneError(f"{path}: {len(poses)} poses for {count} images.")
    if any(len(pose) != 7 for pose in poses) or any(len(lens) < 4 for lens in each) or len(each) not in (0, count):
        raise KaleidosceneError(f"{path}: poses are not of 7 numbers, or lenses not of 4, one for each image.")
    made = []
    for *quaternion, x, y, z in poses:  # qx, qy, qz, qw
        turn = rotation_of(torch.tensor([quaternion[3], *quaternion[:3]], dtype=torch.float64))
        made.append(rigid(turn, torch.tensor([x, y, z], dtype=torch.float64)) @ OPENGL_FROM_OPENCV)
    lenses = [pinhole(*lens[:4]) for lens in each] or [matrix] * count
    return made, lenses, size


def pinhole(fx: float, fy: float, cx: float, cy: float) -> Tensor:
    """Intrinsics of focal lengths and a principal point, pixels."""
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
