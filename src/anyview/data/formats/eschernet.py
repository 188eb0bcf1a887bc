"""The EscherNet render folder: ``NNN.png`` with ``NNN.npy``, the exact form of the GSO-30 benchmark.

A pose is 3x4 camera-from-world in Blender's camera axes (x right, y up, z backward), the world z up; the images are
RGBA, all with the focal length 280 at 256 px (560 at 512).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from anyview.data.captures import Capture
from anyview.data.images import image_size
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras
from anyview.geometry.poses import invert

FOCAL_OVER_SIZE = 280 / 256


def find(path: Path) -> Path | None:
    """The folder with the renders if ``path`` is one or leads to one (``render_mvs_25/model``)."""
    for folder in (path, path / "model", path / "render_mvs_25" / "model"):
        if (folder / "000.npy").is_file() and (folder / "000.png").is_file():
            return folder
    return None


def read(path: Path) -> Capture:
    """Read a folder of renders, in the order of their numbers.

    Raises:
        AnyViewError: A pose or image is missing or unreadable, or a camera is bad.
    """
    pose_paths = sorted(path.glob("[0-9][0-9][0-9].npy"))
    images = tuple(pose.with_suffix(".png") for pose in pose_paths)
    if extra := sorted(set(path.glob("[0-9][0-9][0-9].png")) - set(images)):
        raise AnyViewError(f"{extra[0]}: the pose of this image is missing (expected {extra[0].stem}.npy).")
    poses = []
    for pose_path, image in zip(pose_paths, images, strict=True):
        if not image.is_file():
            raise AnyViewError(f"{image}: the image of {pose_path.name} is missing.")
        poses.append(_pose(pose_path))
    sizes = {image_size(image) for image in images}
    if len(sizes) > 1:
        raise AnyViewError(f"{path}: images of different size in one capture: {sorted(sizes)}.")
    height, width = sizes.pop()
    focal = FOCAL_OVER_SIZE * height
    matrix = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
    try:
        cameras = Cameras(torch.stack(poses), matrix.expand(len(poses), 3, 3).contiguous(), (height, width))
    except AnyViewError as error:
        raise AnyViewError(f"{path}: {error}") from error
    name = path.parents[1].name if path.name == "model" else path.name
    return Capture(name, "eschernet", images, cameras, "object")


def _pose(path: Path) -> torch.Tensor:
    """``world_from_cam`` in OpenCV axes."""
    try:
        matrix = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise AnyViewError(f"{path}: not a readable array ({error}).") from error
    if matrix.shape != (3, 4):
        raise AnyViewError(f"{path}: a pose of shape {matrix.shape}, expected (3, 4).")
    opencv_from_blender = np.diag([1.0, -1.0, -1.0])
    cam_from_world = np.eye(4)
    cam_from_world[:3] = opencv_from_blender @ matrix
    return invert(torch.from_numpy(cam_from_world)).float()
