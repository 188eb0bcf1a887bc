"""One text file a pose: 7-Scenes (``frame-NNNNNN.pose.txt``) and ScanNet (``pose/N.txt``) folders.

Poses are 4x4 ``world_from_cam`` in OpenCV axes, metres; depth is in millimetres. Frames whose tracking was lost
(infinite or NaN poses) are left out and counted.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import natural_key, read_matrix
from kaleidoscene.images.files import SUFFIXES, image_size, list_images

EXPECTS_SEVEN_SCENES = "frame-NNNNNN.pose.txt with frame-NNNNNN.color.png (7-Scenes)"
EXPECTS_SCANNET = "color/ with pose/N.txt and intrinsic/intrinsic_color.txt (ScanNet)"
_KINECT_FOCAL = 585.0  # the 7-Scenes authors' default, at 480x640


def find_seven_scenes(path: Path) -> Path | None:
    """The folder if it holds ``frame-*.pose.txt``."""
    return path if path.is_dir() and any(path.glob("frame-*.pose.txt")) else None


def find_scannet(path: Path) -> Path | None:
    """The folder if it has ``color`` and ``pose``."""
    return path if (path / "color").is_dir() and (path / "pose").is_dir() else None


def read_seven_scenes(path: Path) -> Capture:
    """Read one sequence; intrinsics from ``camera-intrinsics.txt``, else the Kinect's, with a note.

    Raises:
        KaleidosceneError: A pose is no 4x4 matrix, or no frame is left.
    """
    poses = sorted(path.glob("frame-*.pose.txt"))
    stems = {pose.name.removesuffix(".pose.txt") for pose in poses}
    unposed = sum(image.name.split(".")[0] not in stems for image in path.glob("frame-*.color.*"))
    notes = (f"{unposed} images have no pose and are left out",) if unposed else ()
    triples = []
    for pose in poses:
        stem = pose.name.removesuffix(".pose.txt")
        depth = path / f"{stem}.depth.png"
        triples.append((_first(path, f"{stem}.color"), pose, depth if depth.is_file() else None))
    file = next((path / name for name in ("camera-intrinsics.txt", "intrinsics.txt") if (path / name).is_file()), None)
    matrix = read_matrix(file, ((3, 3), (4, 4)))[:3, :3] if file else None
    if matrix is not None:
        return _capture(path, "7scenes", triples, matrix, notes)
    h, w = image_size(triples[0][0])
    focal = _KINECT_FOCAL * w / 640
    matrix = torch.tensor([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]], dtype=torch.float64)
    note = f"no intrinsics here: the Kinect's focal length of {focal:.0f} px is taken"
    return _capture(path, "7scenes", triples, matrix, (*notes, note))


def read_scannet(path: Path) -> Capture:
    """Read one scene as ScanNet's own exporter writes it.

    Raises:
        KaleidosceneError: Intrinsics are missing, a pose is no 4x4 matrix, or no frame is left.
    """
    triples = []
    for image in sorted(list_images(path / "color"), key=natural_key):
        depth = path / "depth" / f"{image.stem}.png"
        triples.append((image, path / "pose" / f"{image.stem}.txt", depth if depth.is_file() else None))
    names = ("intrinsic/intrinsic_color.txt", "intrinsics_color.txt")
    file = next((path / name for name in names if (path / name).is_file()), None)
    if file is None:
        raise KaleidosceneError(f"{path}: no intrinsics (expected {' or '.join(names)}).")
    return _capture(path, "scannet", triples, read_matrix(file, ((3, 3), (4, 4)))[:3, :3], ())


def _first(folder: Path, stem: str) -> Path:
    found = (path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file())
    return next(found, folder / f"{stem}.png")


def _capture(
    path: Path, kind: str, triples: list[tuple[Path, Path, Path | None]], matrix: Tensor, notes: tuple[str, ...]
) -> Capture:
    frames, lost = [], 0
    for image, pose_file, depth in triples:
        pose = read_matrix(pose_file, ((4, 4),))
        if not bool(pose.isfinite().all()):
            lost += 1
            continue
        size = image_size(image) if image.is_file() else None
        frames.append(Frame(image, size, pose, matrix, depth=depth, depth_scale=0.001))
    if not frames:
        raise KaleidosceneError(f"{path}: no frame has a finite pose.")
    if lost:
        notes = (*notes, f"{lost} of {len(triples)} frames left out: their tracking was lost")
    return Capture(path.name, kind, path, tuple(frames), notes=notes)
