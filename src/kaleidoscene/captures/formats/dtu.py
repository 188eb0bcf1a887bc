"""DTU scans as IDR, NeuS and MonoSDF prepare them: ``cameras.npz`` with ``world_mat_i`` and ``scale_mat_i``.

``world_mat`` projects millimetres to pixels, ``scale_mat`` takes a unit sphere about the object to millimetres; their
product is used, so that the world is the one of the unit sphere. MonoSDF's images of 384 px are the middle square of
the 1600 x 1200 photographs, reduced, while its matrices stay those of the photographs: both forms are read.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import natural_key, read_npz
from kaleidoscene.geometry.poses import invert
from kaleidoscene.images.files import image_size, list_images

EXPECTS = "cameras.npz with world_mat_0 ... (DTU)"
_PHOTOGRAPH = (1200, 1600)


def find(path: Path) -> Path | None:
    """The archive if ``path`` is it, or a folder with it."""
    names = ("cameras.npz", "cameras_sphere.npz")
    if path.is_file():
        return path if path.name in names else None
    return next((path / name for name in names if (path / name).is_file()), None)


def read(path: Path) -> Capture:
    """Read a scan; images belong to matrices in the order of their names.

    Raises:
        KaleidosceneError: Matrices are missing or singular, do not match the images in number, or belong to other
            images.
    """
    arrays = read_npz(path)
    numbers = sorted(int(name[10:]) for name in arrays if name.startswith("world_mat_") and name[10:].isdecimal())
    if not numbers:
        raise KaleidosceneError(f"{path}: no world_mat_0, world_mat_1, ... in this archive.")
    images = _images(path.parent)
    if len(images) != len(numbers):
        raise KaleidosceneError(f"{path}: {len(numbers)} cameras and {len(images)} images do not match.")
    masks = sorted(list_images(path.parent / "mask"), key=natural_key) if (path.parent / "mask").is_dir() else []
    if masks and len(masks) != len(images):
        raise KaleidosceneError(f"{path.parent}: {len(images)} images and {len(masks)} masks do not match.")
    frames, notes = [], set()
    for index, (number, image) in enumerate(zip(numbers, images, strict=True)):
        matrix = _matrix(path, arrays, f"world_mat_{number}") @ _matrix(path, arrays, f"scale_mat_{number}")
        intrinsics, pose = decompose(matrix[:3], where=f"{path}: world_mat_{number}")
        size = image_size(image)
        intrinsics, note = _on_image(intrinsics, size, image)
        notes.add(note)
        mask = masks[index] if masks else None
        frames.append(Frame(image, size, pose, intrinsics, mask=mask))
    return Capture(
        path.parent.name, "dtu", path, tuple(frames), centre=torch.zeros(3), notes=tuple(sorted(notes - {""}))
    )


def _images(folder: Path) -> list[Path]:
    if (folder / "image").is_dir():
        return sorted(list_images(folder / "image"), key=natural_key)
    return sorted((path for path in list_images(folder) if path.stem.endswith("_rgb")), key=natural_key)


def _matrix(path: Path, arrays: dict, name: str) -> Tensor:
    array = arrays.get(name)
    if array is None or array.shape != (4, 4) or array.dtype.kind != "f":
        raise KaleidosceneError(f"{path}: {name} is missing or no 4x4 matrix of floats.")
    return torch.from_numpy(array).double()


def decompose(projection: Tensor, *, where: str) -> tuple[Tensor, Tensor]:
    """Intrinsics (last entry 1, positive focal lengths) and ``world_from_cam`` of a 3x4 projection matrix.

    Raises:
        KaleidosceneError: The matrix is singular or not finite.
    """
    left = projection[:, :3]
    if not bool(projection.isfinite().all()) or float(torch.linalg.svdvals(left)[-1]) < 1e-12:
        raise KaleidosceneError(f"{where}: the projection matrix is singular or not finite.")
    # RQ by QR of the matrix turned over both ways.
    flip = torch.eye(3, dtype=left.dtype).flip(0)
    q, r = torch.linalg.qr((flip @ left).mT)
    upper, rotation = flip @ r.mT @ flip, flip @ q.mT
    sign = torch.diag(torch.sign(upper.diagonal()))
    upper, rotation = upper @ sign, sign @ rotation
    if torch.linalg.det(rotation) < 0:  # the matrix is known up to a factor, which may be negative
        rotation = -rotation
        left_translation = -projection[:, 3]
    else:
        left_translation = projection[:, 3]
    cam_from_world = torch.eye(4, dtype=left.dtype)
    cam_from_world[:3, :3] = rotation
    cam_from_world[:3, 3] = torch.linalg.solve(upper, left_translation)
    return upper / upper[2, 2], invert(cam_from_world)


def _on_image(intrinsics: Tensor, size: tuple[int, int], image: Path) -> tuple[Tensor, str]:
    """Intrinsics of the image at hand: as they are, reduced, or of the middle square, whichever centres it best."""
    (h, w), (height, width) = size, _PHOTOGRAPH
    reduced, square = intrinsics.clone(), intrinsics.clone()
    reduced[:2] *= torch.tensor([[w / width], [h / height]])
    square[0, 2] -= (width - height) / 2
    square[:2] *= h / height
    tried = [(intrinsics, "")]
    if abs(w / h - width / height) < 0.01:
        tried.append((reduced, f"intrinsics of {height}x{width} reduced to {h}x{w}"))
    if h == w:
        tried.append((square, f"intrinsics brought to the middle square of {height}x{width}, reduced to {h}x{w}"))
    best, note = min(tried, key=lambda pair: _off_centre(pair[0], size))
    if _off_centre(best, size) > 0.2:
        x, y = intrinsics[:2, 2].tolist()
        raise KaleidosceneError(
            f"{image}: an image of {h}x{w}, its camera has the principal point at ({x:.0f}, {y:.0f})."
        )
    return best, "" if size == _PHOTOGRAPH else note


def _off_centre(intrinsics: Tensor, size: tuple[int, int]) -> float:
    """Distance of the principal point from the middle, in sides of the image."""
    h, w = size
    x, y = intrinsics[:2, 2].tolist()
    return max(abs(x / w - 0.5), abs(y / h - 0.5))
