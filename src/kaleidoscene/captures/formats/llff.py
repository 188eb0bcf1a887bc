"""LLFF ``poses_bounds.npy``: rows of a 3x5 matrix (pose and height, width, focal) and two depth bounds.

The camera axes of a row are down, right, backward; height, width and focal are those of the original photographs,
which often lie beside reduced copies (``images_4``, ``images_8``). Images belong to rows in the order of their names'
letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import read_npy
from kaleidoscene.images.files import list_images, stored_size
from kaleidoscene.serialisation import save_aside

EXPECTS = "poses_bounds.npy with images/ or images_N/ (LLFF)"
_FOLDERS = ("images", "images_2", "images_4", "images_8")


def find(path: Path) -> Path | None:
    """The array if ``path`` is it, or a folder with it."""
    file = path if path.is_file() else path / "poses_bounds.npy"
    return file if file.name == "poses_bounds.npy" and file.is_file() else None


def read(path: Path) -> Capture:
    """Read a capture; of several image folders the largest.

    Raises:
        KaleidosceneError: The array is no (views, 17), or images and rows do not match in number.
    """
    rows = read_npy(path)
    if rows.ndim != 2 or rows.shape[1] != 17 or rows.dtype.kind != "f" or not len(rows):
        raise KaleidosceneError(
            f"{path}: an array of shape {rows.shape} and type {rows.dtype}, expected floats (views, 17)."
        )
    folder = next((path.parent / name for name in _FOLDERS if (path.parent / name).is_dir()), None)
    if folder is None:
        raise KaleidosceneError(f"{path.parent}: no images here (expected {', '.join(_FOLDERS)}).")
    images = list_images(folder)  # in the order of their letters, as LLFF itself has them: img_10 before img_2
    if len(images) != len(rows):
        raise KaleidosceneError(f"{path}: {len(rows)} cameras and {len(images)} images in {folder.name} do not match.")
    masks = _masks(path.parent / "masks", images)
    frames = tuple(_frame(row, image, mask) for row, image, mask in zip(rows, images, masks, strict=True))
    original = f"{rows[0, 4]:.0f}x{rows[0, 9]:.0f}"
    note = f"intrinsics of {original} reduced to the images in {folder.name}"
    return Capture(path.parent.name, "llff", path, frames, notes=(note,))


def _masks(folder: Path, images: list[Path]) -> list[Path | None]:
    found = {path.stem.removesuffix("_mask"): path for path in (list_images(folder) if folder.is_dir() else [])}
    return [found.get(image.stem) for image in images]


def _frame(row: np.ndarray, image: Path, mask: Path | None) -> Frame:
    matrix = torch.from_numpy(row[:15].reshape(3, 5).astype("float64"))
    pose = torch.eye(4, dtype=torch.float64)
    # Columns down, right, backward, centre to right, down, forward, centre.
    pose[:3] = torch.stack([matrix[:, 1], matrix[:, 0], -matrix[:, 2], matrix[:, 3]], dim=1)
    h, w, focal = matrix[:, 4].tolist()
    bounds = (float(row[15]), float(row[16]))
    if not (1 <= h < 1e6 and 1 <= w < 1e6):
        raise KaleidosceneError(f"{image}: poses_bounds.npy gives it a size of {h:.0f}x{w:.0f}.")
    try:
        size, upright = _size(image, h / w)
    except KaleidosceneError:  # said by the verification, with the frame
        return Frame(image, None, pose, None, mask=mask, bounds=bounds)
    height, width = size
    if abs(height - width * h / w) > 2 + 0.01 * height:
        raise KaleidosceneError(f"{image}: an image of {height}x{width}, poses_bounds.npy is for {h:.0f}x{w:.0f}.")
    fx, fy = focal * width / w, focal * height / h
    k = torch.tensor([[fx, 0, width / 2], [0, fy, height / 2], [0, 0, 1]], dtype=torch.float64)
    return Frame(image, size, pose, k, mask=mask, bounds=bounds, upright=upright)


def _size(image: Path, ratio: float) -> tuple[tuple[int, int], bool]:
    """Size of an image, and whether its EXIF orientation counts: the aspect ratio of its camera tells."""
    stored, sideways = stored_size(image)
    turned = (stored[1], stored[0]) if sideways else stored
    as_stored = abs(stored[0] / stored[1] / ratio - 1) < abs(turned[0] / turned[1] / ratio - 1)
    return (stored, False) if as_stored else (turned, True)


def write(path: Path, capture: Capture, bounds: Sequence[tuple[float, ...]]) -> None:
    """Write the array for a capture of pinholes with square pixels and centred principal points.

    Args:
        path: The array.
        capture: Its frames in the order of their names.
        bounds: Nearest and farthest depth of every frame.

    Raises:
        KaleidosceneError: A camera is none of these, which the format cannot say.
    """
    rows = []
    for number, frame in enumerate(capture.frames):
        world_from_cam, k, (h, w) = frame.camera()
        fx, fy = float(k[0, 0]), float(k[1, 1])
        off = max(abs(float(k[0, 2]) - w / 2), abs(float(k[1, 2]) - h / 2))
        if not frame.distortion.is_none or abs(fx / fy - 1) > 1e-3 or off > 0.5:
            raise KaleidosceneError(
                f"{capture.name}: frame {number} ({frame.name}) has distortion, oblong pixels or a shifted principal "
                "point, which poses_bounds.npy cannot say; convert to nerfstudio or colmap."
            )
        right, down, forward, centre = world_from_cam[:3].unbind(1)
        matrix = torch.stack([down, right, -forward, centre, torch.tensor([h, w, fx], dtype=torch.float64)], dim=1)
        rows.append(np.concatenate([matrix.flatten().numpy(), bounds[number]]))
    save_aside(path, lambda file: np.save(file, np.stack(rows)))
