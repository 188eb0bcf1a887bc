"""One JSON file for a camera path, read and written by Python and the command line alike.

    {"format": "camera-path", "version": 1, "image_size": [h, w], "fps": 24.0,
     "frames": [{"world_from_cam": [[..4x4..]], "intrinsics": [[..3x3..]]}, ...]}

OpenCV axes, pixels of an image of ``image_size``, world units of the capture the path was made for.
"""

import json
import os
from pathlib import Path

import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras

_FORMAT, _VERSION = "camera-path", 1


def write_camera_path(path: Path, cameras: Cameras, *, fps: float = 24.0) -> None:
    """Write cameras ``(frames,)``; numbers keep their full precision."""
    frames = [
        {"world_from_cam": pose, "intrinsics": matrix}
        for pose, matrix in zip(cameras.world_from_cam.tolist(), cameras.intrinsics.tolist(), strict=True)
    ]
    document = {
        "format": _FORMAT,
        "version": _VERSION,
        "image_size": list(cameras.image_size),
        "fps": fps,
        "frames": frames,
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=1))
    os.replace(partial, path)


def read_camera_path(path: Path) -> Cameras:
    """Read a camera path.

    Raises:
        KaleidosceneError: The file is missing, is no camera path of this version, or holds a bad camera.
    """
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise KaleidosceneError(f"{path}: no such camera path.") from None
    except ValueError as error:
        raise KaleidosceneError(f"{path}: not JSON ({error}).") from error
    # Files of earlier versions have a name before it.
    if not isinstance(document, dict) or not str(document.get("format")).endswith(_FORMAT):
        raise KaleidosceneError(f'{path}: not a camera path (expected "format": "{_FORMAT}").')
    if document.get("version") != _VERSION:
        raise KaleidosceneError(f"{path}: camera path version {document.get('version')}, expected {_VERSION}.")
    try:
        frames = document["frames"]
        poses = torch.tensor([frame["world_from_cam"] for frame in frames], dtype=torch.float64)
        intrinsics = torch.tensor([frame["intrinsics"] for frame in frames], dtype=torch.float64)
        h, w = document["image_size"]
    except (KeyError, TypeError, ValueError) as error:
        raise KaleidosceneError(f"{path}: incomplete camera path ({error}).") from error
    if not len(frames):
        raise KaleidosceneError(f"{path}: the camera path has no frames.")
    try:
        return Cameras(poses.float(), intrinsics.float(), (h, w))
    except KaleidosceneError as error:
        raise KaleidosceneError(f"{path}: {error}") from error
