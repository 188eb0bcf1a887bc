"""What ARKit tracked, as other apps and Apple's own data set store it: 3D Scanner App's raw export, ARKitScenes."""

from __future__ import annotations

import bisect
from pathlib import Path

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.phones import Y_UP, pinhole
from kaleidoscene.captures.formats.transforms_json import OPENGL_FROM_OPENCV
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import natural_key, read_json, read_matrix
from kaleidoscene.geometry.poses import hat, interpolate_poses, invert, rigid
from kaleidoscene.images.files import image_size, list_images

EXPECTS_SCANNER = "frame_NNNNN.jpg with frame_NNNNN.json (3D Scanner App)"
EXPECTS_SCENES = "lowres_wide/ with lowres_wide_intrinsics/ and lowres_wide.traj (ARKitScenes)"
_UNITS_OF_DEPTH = 0.001
_Z_UP = torch.tensor([0.0, 0.0, 1.0])
"""Of the data set's worlds."""
_IMAGES = ("wide", "vga_wide", "lowres_wide")
_TRAJECTORY = "lowres_wide.traj"
_SAME, _NEAR = 0.005, 0.25
"""Seconds between a picture and a pose that is taken as it is, and between two poses that others are put between."""


def find_scanner(path: Path) -> Path | None:
    """The folder if pictures in it have their camera beside them."""
    if not path.is_dir():
        return None
    first = next((image.with_suffix(".json") for image in sorted(path.glob("frame_*.jpg"))), None)
    if first is None or not first.is_file():
        return None
    said = first.read_text(errors="replace")  # other programs lay other notes beside such names
    return path if '"cameraPoseARFrame"' in said else None


def read_scanner(path: Path) -> Capture:
    """Read a raw export of the 3D Scanner App: camera-to-world poses with OpenGL axes by rows, depth in millimetres.

    Raises:
        KaleidosceneError: A camera is missing or damaged.
    """
    found = []
    for image in sorted(path.glob("frame_*.jpg"), key=natural_key):
        file, depth = image.with_suffix(".json"), path / f"{image.stem.replace('frame', 'depth', 1)}.png"
        if not file.is_file():
            raise KaleidosceneError(f"{image}: its camera {file.name} is missing.")
        said = read_json(file)
        try:
            pose = torch.tensor([float(value) for value in said["cameraPoseARFrame"]], dtype=torch.float64).view(4, 4)
            lens = torch.tensor([float(value) for value in said["intrinsics"]], dtype=torch.float64).view(3, 3)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise KaleidosceneError(f"{file}: not a camera of the 3D Scanner App ({error!r}).") from error
        has_depth = depth if depth.is_file() else None
        found.append(Frame(image, image_size(image), pose @ OPENGL_FROM_OPENCV, lens, depth=has_depth,
                           depth_scale=_UNITS_OF_DEPTH))  # fmt: skip
    notes = ("the cameras are the phone's own tracking",)
    return Capture(path.name, "3dscanner", path, tuple(found), upward=Y_UP.clone(), notes=notes)


def find_scenes(path: Path) -> Path | None:
    """The folder with the trajectory of one video."""
    folder = path.parent if path.name == _TRAJECTORY else path
    posed = (folder / _TRAJECTORY).is_file() and _pictures_of(folder) is not None
    return folder if posed else None


def _pictures_of(folder: Path) -> str | None:
    """The largest pictures that have lenses."""
    return next(
        (kind for kind in _IMAGES if (folder / kind).is_dir() and (folder / f"{kind}_intrinsics").is_dir()), None
    )


def read_scenes(path: Path) -> Capture:
    """Read one video of ARKitScenes: camera-from-world poses by time, lenses by time, depth of the smallest pictures.

    Raises:
        KaleidosceneError: The trajectory or a lens is damaged, or no picture has a pose.
    """
    kind = _pictures_of(path)
    assert kind is not None
    times, poses = _trajectory(path / _TRAJECTORY)
    lenses = {_time(file): file for file in (path / f"{kind}_intrinsics").glob("*.pincam")}
    if not lenses:
        raise KaleidosceneError(f"{path / f'{kind}_intrinsics'}: there are no .pincam files.")
    stamps, images = sorted(lenses), sorted(list_images(path / kind), key=natural_key)
    found, between = [], 0
    for image in images:
        time = _time(image)
        pose, is_between = _pose_at(times, poses, time)
        if pose is None:
            continue
        between += is_between
        size, matrix = _lens(lenses[_nearest(stamps, time)])
        depth = path / "lowres_depth" / f"{image.stem}.png"
        has_depth = depth if kind == "lowres_wide" and depth.is_file() else None
        found.append(Frame(image, size, pose, matrix, depth=has_depth, depth_scale=_UNITS_OF_DEPTH))
    if not found:
        raise KaleidosceneError(f"{path}: none of the {len(images)} pictures of {kind} has a pose of its time.")
    notes = [f"the pictures are those of {kind}"]
    if between:
        notes.append(f"{between} cameras lie between two of the trajectory, by their time")
    if len(found) < len(images):
        notes.append(f"{len(images) - len(found)} pictures have no pose of their time and are left out")
    return Capture(path.name, "arkitscenes", path, tuple(found), upward=_Z_UP.clone(), notes=tuple(notes))


def _trajectory(file: Path) -> tuple[list[float], Tensor]:
    """Times in seconds, and poses; a line is the time, a rotation as axis times angle, and a translation."""
    try:
        rows = torch.tensor([[float(word) for word in line.split()] for line in file.read_text().splitlines() if line],
                            dtype=torch.float64)  # fmt: skip
        times, turns, places = rows[:, 0], rows[:, 1:4], rows[:, 4:]
        if rows.shape[1] != 7 or not bool(rows.isfinite().all()):
            raise ValueError("lines are not of 7 numbers")
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise KaleidosceneError(f"{file}: not a trajectory of ARKitScenes ({error}).") from error
    order = times.argsort()
    poses = invert(rigid(torch.linalg.matrix_exp(hat(turns)), places))
    return times[order].tolist(), poses[order]


def _pose_at(times: list[float], poses: Tensor, time: float) -> tuple[Tensor | None, bool]:
    """The pose of a time, and whether it was put between two others; None where none is near."""
    number = bisect.bisect_left(times, _nearest(times, time))
    if abs(times[number] - time) <= _SAME:
        return poses[number], False
    after = bisect.bisect_left(times, time)
    if not 0 < after < len(times) or times[after] - times[after - 1] > _NEAR:
        return None, False
    share = torch.tensor([(time - times[after - 1]) / (times[after] - times[after - 1])], dtype=torch.float64)
    return interpolate_poses(poses[after - 1 : after], poses[after : after + 1], share)[0], True


def _lens(file: Path) -> tuple[tuple[int, int], Tensor]:
    """Image size and intrinsics: width, height, focal lengths, principal point."""
    w, h, fx, fy, cx, cy = read_matrix(file, ((1, 6),))[0].tolist()
    return (int(h), int(w)), pinhole(fx, fy, cx, cy)


def _time(file: Path) -> float:
    """Seconds, behind the last underscore of a name."""
    try:
        return float(file.stem.rpartition("_")[2])
    except ValueError:
        raise KaleidosceneError(f"{file}: the name does not end in a time (expected VIDEO_SECONDS).") from None


def _nearest(times: list[float], time: float) -> float:
    after = bisect.bisect_left(times, time)
    return min(times[max(0, after - 1) : after + 1], key=lambda other: abs(other - time))
