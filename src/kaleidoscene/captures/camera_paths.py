"""Camera paths of other programs beside our own."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from kaleidoscene.captures.formats.transforms_json import OPENGL_FROM_OPENCV
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_json
from kaleidoscene.geometry.camera_path import read_camera_path
from kaleidoscene.geometry.cameras import Cameras


def read_any_camera_path(path: Path, capture: Path | None = None) -> Cameras:
    """Our camera path, or the one that nerfstudio's viewer exports.

    nerfstudio's world is that of its training, which it turns and scales; where ``dataparser_transforms.json`` of the
    same training lies beside the path, it is undone, so that the path is in the world of the capture.

    Args:
        path: The file.
        capture: The ``transforms.json`` that was trained on, which may say what had been done to its own world before.

    Raises:
        KaleidosceneError: It is neither, or a camera of it is bad, or not of a pinhole.
    """
    document = read_json(path)
    if not isinstance(document, dict) or "camera_path" not in document:
        return read_camera_path(path)
    if document.get("camera_type", "perspective") != "perspective":
        raise KaleidosceneError(f"{path}: a camera path of type {document['camera_type']!r}; expected perspective.")
    try:
        h, w = int(document["render_height"]), int(document["render_width"])
        entries = document["camera_path"]
        matrices = [torch.tensor(entry["camera_to_world"], dtype=torch.float64).view(4, 4) for entry in entries]
        angles = [math.radians(float(entry["fov"])) for entry in entries]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise KaleidosceneError(f"{path}: not a nerfstudio camera path ({error!r}).") from error
    if not entries or not all(0 < angle < math.pi for angle in angles):
        raise KaleidosceneError(f"{path}: the camera path has no frames, or a field of view that is none.")
    poses = torch.stack(matrices) @ OPENGL_FROM_OPENCV
    poses = _to_capture(path.parent / "dataparser_transforms.json", capture, poses)
    focal = torch.tensor([0.5 * h / math.tan(0.5 * angle) for angle in angles], dtype=torch.float64)
    intrinsics = torch.zeros(len(entries), 3, 3, dtype=torch.float64)
    intrinsics[:, 0, 0] = intrinsics[:, 1, 1] = focal
    intrinsics[:, 0, 2], intrinsics[:, 1, 2], intrinsics[:, 2, 2] = w / 2, h / 2, 1
    try:
        return Cameras(poses, intrinsics, (h, w)).to(torch.float32)
    except KaleidosceneError as error:
        raise KaleidosceneError(f"{path}: {error}") from error


def camera_path_rate(path: Path) -> float | None:
    """Frames a second that a file of :func:`read_any_camera_path` says; None of one that says none above 0."""
    rate = read_json(path).get("fps")
    return float(rate) if isinstance(rate, int | float) and 0 < rate < math.inf else None


def _to_capture(transforms: Path, capture: Path | None, poses: torch.Tensor) -> torch.Tensor:
    """Undo nerfstudio's ``scale * (T @ pose)``, where it is known.

    The file has the change from the world before ``applied_transform`` (COLMAP's), not from that of transforms.json.
    """
    if not transforms.is_file():
        return poses
    matrix, scale = _change(transforms, "transform", "scale")
    if capture is not None and capture.is_file() and capture.suffix == ".json":
        document = read_json(capture)
        if isinstance(document, dict) and "applied_transform" in document:
            applied, applied_scale = _change(capture, "applied_transform", "applied_scale")
            matrix, scale = matrix @ torch.linalg.inv(applied), scale / applied_scale
    out = poses.clone()
    out[:, :3, 3] /= scale
    return torch.linalg.inv(matrix) @ out


def _change(path: Path, transform: str, scale: str) -> tuple[torch.Tensor, float]:
    document = read_json(path)
    try:
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3] = torch.tensor(document[transform], dtype=torch.float64)[:3]
        factor = float(document.get(scale, 1.0))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise KaleidosceneError(f"{path}: no {transform} and {scale} ({error!r}).") from error
    if not factor > 0 or float(torch.linalg.det(matrix).abs()) < 1e-9:
        raise KaleidosceneError(f"{path}: {transform} is singular, or {scale} not positive.")
    return matrix, factor
