"""CO3D: ``frame_annotations.jgz`` of a category, or the ``gt_cameras.npz`` of PoseDiffusion's samples.

Cameras are PyTorch3D's: row vectors (``x_cam = x_world R + T``), axes left, up, forward, and focal lengths and
principal points in normalised device coordinates, whose axes run against those of pixels.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import inside, natural_key, read_json, read_npz
from kaleidoscene.geometry.poses import invert
from kaleidoscene.images.files import image_size, list_images

EXPECTS = "a sequence below frame_annotations.jgz (CO3D), or gt_cameras.npz with images"
_OPENCV_FROM_PYTORCH3D = torch.diag(torch.tensor([-1.0, -1.0, 1.0], dtype=torch.float64))
_ANNOTATIONS = "frame_annotations.jgz"


def find(path: Path) -> Path | None:
    """The sequence (a folder whose parent has annotations), the category, or the ``gt_cameras.npz``."""
    if path.is_file():
        return path if path.name == "gt_cameras.npz" else None
    if (path / "gt_cameras.npz").is_file():
        return path / "gt_cameras.npz"
    return path if (path / _ANNOTATIONS).is_file() or (path.parent / _ANNOTATIONS).is_file() else None


def sequences(path: Path) -> list[Path]:
    """The folders of all sequences of a category; empty if a folder is none."""
    file = path / _ANNOTATIONS
    return [path / name for name in _names(file, _entries(file))] if file.is_file() else []


def read(path: Path) -> Capture:
    """Read a sequence.

    Raises:
        KaleidosceneError: A category of several sequences was given, an annotation is incomplete, or counts do not
            match.
    """
    if path.suffix == ".npz":
        return _read_sample(path)
    whole_category = (path / _ANNOTATIONS).is_file()
    category = path if whole_category else path.parent
    file = category / _ANNOTATIONS
    entries = _entries(file)
    names = _names(file, entries)
    name = names[0] if whole_category and len(names) == 1 else path.name
    if name not in names:
        shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
        raise KaleidosceneError(f"{path}: give the folder of one sequence; {file.name} has {len(names)}: {shown}.")
    chosen = [entry for entry in entries if str(entry.get("sequence_name")) == name]
    frames = [_annotated(file, category.parent, entry) for entry in chosen]
    frames.sort(key=lambda pair: pair[0])
    return Capture(name, "co3d", path, tuple(frame for _, frame in frames))


def _entries(file: Path) -> list[dict[str, Any]]:
    return _read_entries(file, file.stat().st_mtime_ns)


@lru_cache(maxsize=1)  # of a category, whose sequences are read one after the other
def _read_entries(file: Path, modified: int) -> list[dict[str, Any]]:
    del modified
    entries = read_json(file)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise KaleidosceneError(f"{file}: expected a list of annotations.")
    return entries


def _names(file: Path, entries: list[dict[str, Any]]) -> list[str]:
    names = sorted({str(entry.get("sequence_name")) for entry in entries})
    if any(name in ("", ".", "..") or "/" in name for name in names):
        raise KaleidosceneError(f"{file}: a sequence has no name of a folder: {', '.join(names[:5])}.")
    return names


def _annotated(file: Path, root: Path, entry: dict[str, Any]) -> tuple[int, Frame]:
    try:
        number, viewpoint = int(entry["frame_number"]), entry["viewpoint"]
        h, w = (int(side) for side in entry["image"]["size"])
        image = inside(root, entry["image"]["path"], what=f"frame {number}")
        mask = entry.get("mask") or {}
        mask_path = inside(root, mask["path"], what=f"frame {number}") if mask.get("path") else None
        pose = opencv_pose(_tensor(viewpoint["R"], (3, 3)), _tensor(viewpoint["T"], (3,)))
        focal, principal = _tensor(viewpoint["focal_length"], (2,)), _tensor(viewpoint["principal_point"], (2,))
        kind = viewpoint.get("intrinsics_format", "ndc_norm_image_bounds")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, KaleidosceneError):
            raise
        raise KaleidosceneError(f"{file}: an annotation is incomplete or wrong ({error!r}).") from error
    if kind not in ("ndc_norm_image_bounds", "ndc_isotropic"):
        raise KaleidosceneError(f"{file}: frame {number} has intrinsics of format {kind!r}, which is not known.")
    matrix = pixel_intrinsics(focal, principal, (h, w), isotropic=kind == "ndc_isotropic")
    time = entry.get("frame_timestamp")
    seconds = float(time) if isinstance(time, int | float) else None
    return number, Frame(image, (h, w), pose, matrix, mask=mask_path, time=seconds)


def _tensor(value: Any, shape: tuple[int, ...]) -> Tensor:
    out = torch.tensor(value, dtype=torch.float64)
    if tuple(out.shape) != shape:
        raise ValueError(f"numbers of shape {list(out.shape)}, expected {list(shape)}")
    return out


def opencv_pose(rotation: Tensor, translation: Tensor) -> Tensor:
    """``world_from_cam`` in OpenCV axes of PyTorch3D's R and T."""
    cam_from_world = torch.eye(4, dtype=torch.float64)
    cam_from_world[:3, :3] = _OPENCV_FROM_PYTORCH3D @ rotation.mT
    cam_from_world[:3, 3] = _OPENCV_FROM_PYTORCH3D @ translation
    return invert(cam_from_world)


def pixel_intrinsics(focal: Tensor, principal: Tensor, size: tuple[int, int], *, isotropic: bool) -> Tensor:
    """Pinhole matrix in pixels; ``isotropic`` coordinates span [-1, 1] on the shorter side, the others on both."""
    h, w = size
    half = torch.tensor([min(h, w), min(h, w)] if isotropic else [w, h], dtype=torch.float64) / 2
    fx, fy = (focal * half).tolist()
    cx, cy = (torch.tensor([w, h], dtype=torch.float64) / 2 - principal * half).tolist()
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64)


def _read_sample(path: Path) -> Capture:
    arrays = read_npz(path)
    images = sorted(list_images(path.parent), key=natural_key)
    shapes = {"gtR": (3, 3), "gtT": (3,), "gtFL": (2,)}
    for name, shape in shapes.items():
        array = arrays.get(name)
        if array is None or array.shape[1:] != shape or array.dtype.kind != "f":
            raise KaleidosceneError(
                f"{path}: {name} is missing or not floats of shape (views, {', '.join(map(str, shape))})."
            )
        if len(array) != len(images):
            raise KaleidosceneError(f"{path}: {len(array)} cameras and {len(images)} images do not match.")
    frames = []
    for number, image in enumerate(images):
        rotation, translation, focal = (torch.from_numpy(arrays[name][number]).double() for name in shapes)
        size = image_size(image)
        matrix = pixel_intrinsics(focal, torch.zeros(2, dtype=torch.float64), size, isotropic=True)
        frames.append(Frame(image, size, opencv_pose(rotation, translation), matrix))
    return Capture(path.parent.name, "co3d", path, tuple(frames))
