"""nerfstudio, Instant-NGP and Blender (NeRF-synthetic) ``transforms*.json``.

Poses are camera-to-world in OpenGL axes (x right, y up, z backward); intrinsics are given once or frame by frame, as
``fl_x, fl_y, cx, cy, w, h`` or as ``camera_angle_x``.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch

from anyview.data.captures import Capture
from anyview.data.images import image_size
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras

NAMES = ("transforms.json", "transforms_train.json", "transforms_test.json", "transforms_val.json")
# OPENCV without distortion coefficients is a pinhole; with them it is refused.
_PINHOLE_MODELS = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")
OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))


def find(path: Path) -> Path | None:
    """The file to read if ``path`` is one, or a folder with one."""
    if path.is_file():
        return path if path.suffix == ".json" and path.name.startswith("transforms") else None
    return next((path / name for name in NAMES if (path / name).is_file()), None)


def read(path: Path) -> Capture:
    """Read a ``transforms*.json``; frames keep the order of the file.

    Raises:
        AnyViewError: Not JSON, no frames, no focal length, an image is missing, or a camera is bad.
    """
    document = _load(path)
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise AnyViewError(f'{path}: no frames (expected a list under "frames").')
    images, poses, intrinsics, sizes = [], [], [], []
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise AnyViewError(f"{path}: frame {number} is not an object.")
        image = _image_path(path, frame, number)
        size = _image_size(path, image, frame, document, number)
        images.append(image)
        sizes.append(size)
        poses.append(_pose(path, frame, number))
        intrinsics.append(_intrinsics(path, {**document, **frame}, number, size))
    if len(set(sizes)) > 1:
        first, other = sizes[0], next(size for size in sizes if size != sizes[0])
        raise AnyViewError(
            f"{path}: images of different size in one capture: {images[0].name} is {first[0]}x{first[1]}, "
            f"{images[sizes.index(other)].name} is {other[0]}x{other[1]}."
        )
    try:
        cameras = Cameras(torch.stack(poses) @ OPENGL_FROM_OPENCV, torch.stack(intrinsics), sizes[0])
    except AnyViewError as error:
        raise AnyViewError(f"{path}: {error}") from error
    blender = "fl_x" not in document and "camera_angle_x" in document and "w" not in document
    return Capture(
        path.parent.name, "blender" if blender else "nerfstudio", tuple(images), cameras, _centred(document, blender)
    )


def _centred(document: dict[str, Any], blender: bool):
    said = document.get("anyview_centred")
    return said if said in ("object", "scene") else ("object" if blender else "scene")


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except FileNotFoundError:
        raise AnyViewError(f"{path}: no such file.") from None
    except (OSError, ValueError) as error:
        raise AnyViewError(f"{path}: not readable JSON ({error}).") from error
    if not isinstance(document, dict):
        raise AnyViewError(f'{path}: expected an object with "frames".')
    return document


def _image_path(path: Path, frame: dict[str, Any], number: int) -> Path:
    name = frame.get("file_path")
    if not isinstance(name, str) or not name:
        raise AnyViewError(f"{path}: frame {number} has no file_path.")
    image = path.parent / name
    # Blender's files name images without their suffix.
    for candidate in (image, image.with_name(image.name + ".png"), image.with_name(image.name + ".jpg")):
        if candidate.is_file():
            return candidate
    raise AnyViewError(f"{path}: the image of frame {number} is missing: {image}.")


def _image_size(
    path: Path, image: Path, frame: dict[str, Any], document: dict[str, Any], number: int
) -> tuple[int, int]:
    height, width = image_size(image)
    values = {**document, **frame}
    h, w = _number(path, values, "h", number), _number(path, values, "w", number)
    if h is not None and w is not None and (int(h), int(w)) != (height, width):
        raise AnyViewError(f"{image}: the image is {height}x{width}, transforms.json says {int(h)}x{int(w)}.")
    return height, width


def _pose(path: Path, frame: dict[str, Any], number: int) -> torch.Tensor:
    try:
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float64)
    except KeyError:
        raise AnyViewError(f"{path}: frame {number} has no transform_matrix.") from None
    except (TypeError, ValueError) as error:
        raise AnyViewError(f"{path}: the transform_matrix of frame {number} is not a matrix ({error}).") from error
    if pose.shape == (3, 4):
        pose = torch.cat([pose, pose.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
    if pose.shape != (4, 4):
        raise AnyViewError(f"{path}: the transform_matrix of frame {number} is {list(pose.shape)}, expected 4x4.")
    return pose.float()


def _number(path: Path, values: dict[str, Any], key: str, number: int) -> float | None:
    """A finite number of a frame, None if it is not given."""
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise AnyViewError(f"{path}: frame {number}: {key} must be a number, got {value!r}.")
    return float(value)


def _intrinsics(path: Path, values: dict[str, Any], number: int, size: tuple[int, int]) -> torch.Tensor:
    h, w = size
    model = str(values.get("camera_model", "PINHOLE"))
    if model not in _PINHOLE_MODELS:
        raise AnyViewError(f"{path}: frame {number} has camera model {model!r}; undistort to PINHOLE first.")
    distorted = [name for name in _DISTORTION if _number(path, values, name, number)]
    if distorted:
        raise AnyViewError(
            f"{path}: frame {number} has lens distortion ({', '.join(distorted)}), which is not supported yet; "
            "undistort the images first."
        )
    fx, angle = (_number(path, values, key, number) for key in ("fl_x", "camera_angle_x"))
    if fx is None:
        if angle is None:
            raise AnyViewError(f"{path}: frame {number} has no focal length (expected fl_x or camera_angle_x).")
        if not 0 < angle < math.pi:
            raise AnyViewError(f"{path}: frame {number}: camera_angle_x must be between 0 and pi, got {angle}.")
        fx = 0.5 * w / math.tan(0.5 * angle)
    fy, cx, cy = (_number(path, values, key, number) for key in ("fl_y", "cx", "cy"))
    fy, cx, cy = fx if fy is None else fy, w / 2 if cx is None else cx, h / 2 if cy is None else cy
    return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


def write(path: Path, image_names: list[str], cameras: Cameras, *, centred: str = "scene") -> None:
    """Write a ``transforms.json`` that nerfstudio reads, with intrinsics for every frame."""
    h, w = cameras.image_size
    poses = cameras.world_from_cam @ OPENGL_FROM_OPENCV.to(cameras.world_from_cam)
    frames = []
    for name, pose, k in zip(image_names, poses.tolist(), cameras.intrinsics.tolist(), strict=True):
        lens = {"fl_x": k[0][0], "fl_y": k[1][1], "cx": k[0][2], "cy": k[1][2], "w": w, "h": h}
        frames.append({"file_path": name, "transform_matrix": pose, **lens})
    document = {"camera_model": "PINHOLE", "anyview_centred": centred, **_shared(frames), "frames": frames}
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=1))
    os.replace(partial, path)


def _shared(frames: list[dict[str, Any]]) -> dict[str, Any]:
    """Intrinsics of the first frame at the top as well, for readers that look there only."""
    return {key: frames[0][key] for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
