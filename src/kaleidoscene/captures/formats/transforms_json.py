"""nerfstudio, Instant-NGP, Blender (NeRF-synthetic) and DL3DV ``transforms*.json``.

Poses are camera-to-world in OpenGL axes (x right, y up, z backward); intrinsics are given once or frame by frame, as
``fl_x, fl_y, cx, cy, w, h`` or as ``camera_angle_x``, with OPENCV or OPENCV_FISHEYE distortion. Where only reduced
images are there (``images_4`` for ``images``, as DL3DV and nerfstudio have them), intrinsics are reduced with them.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture, Centred
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.frames import Frame, PointCloud
from kaleidoscene.captures.ply import read_ply
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import inside, is_absolute, read_json, rerooted
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.images.files import image_size

NAMES = ("transforms.json", "transforms_train.json", "transforms_test.json", "transforms_val.json")
EXPECTS = "transforms*.json (nerfstudio, Instant-NGP, Blender, DL3DV)"
_FACTORS = (2, 4, 8)
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE")
_OPENCV_KEYS = ("k1", "k2", "p1", "p2", "k3")
CENTRE, UP, BOUNDS = "scene_centre", "scene_up", "depth_bounds"
"""Keys of our own, which other programs pass over."""
OPENGL_FROM_OPENCV = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))


def find(path: Path) -> Path | None:
    """The file to read if ``path`` is one, or a folder with one."""
    if path.is_file():
        return path if path.suffix == ".json" and path.name.startswith("transforms") else None
    folders = (path, path / "nerfstudio")  # DL3DV's archives have the folder inside
    return next((folder / name for folder in folders for name in NAMES if (folder / name).is_file()), None)


def beside(path: Path) -> list[str]:
    """Names of the other files of this kind beside one: its splits."""
    return [name for name in NAMES if name != path.name and (path.parent / name).is_file()]


def read(path: Path) -> Capture:
    """Read a ``transforms*.json``; frames keep the order of the file.

    Raises:
        KaleidosceneError: Not JSON, no frames, or a frame that is no camera.
    """
    document = read_json(path)
    if not isinstance(document, dict):
        raise KaleidosceneError(f'{path}: expected an object with "frames".')
    frames = document.get("frames")
    if not isinstance(frames, list) or not frames:
        raise KaleidosceneError(f'{path}: no frames (expected a list under "frames").')
    readers = []
    for number, frame in enumerate(frames):
        if not isinstance(frame, dict):
            raise KaleidosceneError(f"{path}: frame {number} is not an object.")
        readers.append(_FrameReader(path, {**document, **frame}, number))
    factor = _factor(path.parent, [reader.named() for reader in readers])
    read_frames = [reader.read(factor) for reader in readers]
    blender = "fl_x" not in document and "camera_angle_x" in document and "w" not in document
    notes = () if factor == 1 else (f"images reduced by {factor} are taken, and their intrinsics reduced with them",)
    if moved := sum(reader.moved for reader in readers):
        notes = (
            *notes,
            f"{moved} frames name files by absolute paths of another machine; those that end alike are taken",
        )
    points, missing = _points(path, document)
    findings = (*_findings(path, document), *missing)
    kind = "blender" if blender else "nerfstudio"
    return Capture(
        path.parent.name, kind, path, tuple(read_frames), _centred(document, blender),
        centre=_vector(path, document, CENTRE), upward=_vector(path, document, UP), points=points, notes=notes,
        findings=findings,
    )  # fmt: skip


def _points(path: Path, document: dict[str, Any]) -> tuple[PointCloud | None, tuple[Finding, ...]]:
    """Those of the file that is named for them, or why there are none."""
    name = document.get("ply_file_path")
    if name is None:
        return None, ()
    try:
        if not isinstance(name, str) or not name:
            raise KaleidosceneError(f"{path}: ply_file_path is no name: {name!r}.")
        if is_absolute(name) and (here := rerooted(path.parent, name)) is not None:
            name = here
        points = read_ply(inside(path.parent, name, what="ply_file_path"))
    except KaleidosceneError as error:
        return None, (Finding(
            "warning", "points", None, f"there are no points: {str(error).removesuffix('.')}",
            "where axes are nearly parallel nobody knows how far away anything is",
            "bring the points along, or take ply_file_path out of the file",
        ),)  # fmt: skip
    return (points if len(points) else None), ()


def _factor(root: Path, named: list[Path]) -> int:
    """By how much the images are reduced: by the first factor at which any of them is there."""
    in_folders = [image for image in named if image.parent != root]
    for factor in (1, *_FACTORS):
        if any(_variant(image, factor).is_file() for image in (in_folders if factor > 1 else named)):
            return factor
    return 1


def _variant(named: Path, factor: int) -> Path:
    """The file for a name in the folder of a factor; Blender's files name images without their suffix."""
    folder = named.parent if factor == 1 else named.parent.with_name(f"{named.parent.name}_{factor}")
    candidates = [folder / name for name in (named.name, named.name + ".png", named.name + ".jpg")]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _findings(path: Path, document: dict[str, Any]) -> tuple[Finding, ...]:
    """What the file says and nobody follows."""
    out = []
    between = [number for number, frame in enumerate(document["frames"]) if frame.get("interpolated") is True]
    if between:
        out.append(Finding(
            "warning", "interpolated", between[0], f"{len(between)} frames were put between others",
            "they are guesses: nothing is scored against them", "leave them out of references",
        ))  # fmt: skip
    entries = [{**document, **frame} for frame in document["frames"]]
    ignored = [n for n, e in enumerate(entries) if e.get("camera_model") in _PINHOLES and any(map(e.get, _OPENCV_KEYS))]
    if ignored:
        out.append(Finding(
            "warning", "distortion-ignored", ignored[0],
            f"camera_model is {entries[ignored[0]]['camera_model']}, so the distortion coefficients are not applied",
            "straight lines bend and rays miss by several pixels near the border",
            "set camera_model to OPENCV, or remove the coefficients if the images are undistorted",
        ))  # fmt: skip
    names = {os.path.normpath(str(entry.get("file_path"))) for entry in entries}
    for key in ("train_filenames", "val_filenames", "test_filenames"):
        listed = document.get(key)
        unknown = [n for n in listed if os.path.normpath(str(n)) not in names] if isinstance(listed, list) else []
        if unknown:
            out.append(Finding(
                "error", "split", None, f"{key} names {len(unknown)} images that are no frames: {unknown[0]}",
                "training and test views are not those that were meant", "correct the list",
            ))  # fmt: skip
    return tuple(out)


def _centred(document: dict[str, Any], blender: bool) -> Centred:
    # Files of earlier versions have a name before it.
    said = next((value for key, value in document.items() if key.endswith("_centred")), None)
    return said if said in ("object", "scene") else ("object" if blender else "scene")


def _vector(path: Path, document: dict[str, Any], key: str) -> Tensor | None:
    """Three numbers, if the key is there."""
    if (said := document.get(key)) is None:
        return None
    return torch.tensor(_numbers(path, key, said, 3))


def _numbers(path: Path, key: str, said: Any, count: int) -> list[float]:
    try:
        numbers = [float(value) for value in said]
    except (TypeError, ValueError) as error:
        raise KaleidosceneError(f"{path}: {key} is not {count} numbers: {said!r}.") from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise KaleidosceneError(f"{path}: {key} is not {count} finite numbers: {said!r}.")
    return numbers


class _FrameReader:
    """Reads one frame; ``values`` are those of the file with those of the frame over them."""

    def __init__(self, path: Path, values: dict[str, Any], number: int) -> None:
        self.path, self.values, self.number = path, values, number
        self.moved = False

    def named(self) -> Path:
        """The image as the file names it."""
        named = self._file("file_path")
        if named is None:
            raise self._bad("has no file_path")
        return named

    def read(self, factor: int) -> Frame:
        """The frame, with its image in the folder of a factor."""
        image = _variant(self.named(), factor)
        size = self._size(image, factor)
        mask, depth = self._file("mask_path"), self._file("depth_file_path")
        scale = self._value("depth_unit_scale_factor")
        if mask is not None:
            mask = _variant(mask, _factor(self.path.parent, [mask]))
        return Frame(
            image, size, self._pose(), None if size is None else self._intrinsics(size, factor), self._distortion(),
            mask=mask, depth=depth, depth_scale=0.001 if scale is None else scale, time=self._value("time"),
            interpolated=self.values.get("interpolated") is True, bounds=self._bounds(),
        )  # fmt: skip

    def _bounds(self) -> tuple[float, float] | None:
        if (said := self.values.get(BOUNDS)) is None:
            return None
        near, far = _numbers(self.path, f"{BOUNDS} of frame {self.number}", said, 2)
        return near, far

    def _bad(self, text: str) -> KaleidosceneError:
        return KaleidosceneError(f"{self.path}: frame {self.number} {text}.")

    def _file(self, key: str) -> Path | None:
        name = self.values.get(key)
        if name is None:
            return None
        if not isinstance(name, str) or not name:
            raise self._bad(f"has a {key} that is no name: {name!r}")
        if is_absolute(name) and (here := rerooted(self.path.parent, name)) is not None:
            self.moved = self.moved or not Path(name).is_file()
            name = here
        return inside(self.path.parent, name, what=f"frame {self.number}")

    def _size(self, image: Path, factor: int) -> tuple[int, int] | None:
        h, w = self._value("h"), self._value("w")
        if h is not None and w is not None and factor == 1:
            return int(h), int(w)
        try:
            return image_size(image)
        except KaleidosceneError:  # said by the verification, with the frame
            return (int(h), int(w)) if h is not None and w is not None else None

    def _pose(self) -> Tensor:
        try:
            pose = torch.tensor(self.values["transform_matrix"], dtype=torch.float64)
        except KeyError:
            raise self._bad("has no transform_matrix") from None
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise self._bad(f"has a transform_matrix that is no matrix ({error})") from error
        if pose.shape == (3, 4):
            pose = torch.cat([pose, pose.new_tensor([[0.0, 0.0, 0.0, 1.0]])])
        if pose.shape != (4, 4):
            raise self._bad(f"has a transform_matrix of {list(pose.shape)}, expected 4x4")
        return pose @ OPENGL_FROM_OPENCV

    def _value(self, key: str) -> float | None:
        """A finite number of a frame, None if it is not given."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e12:
            raise self._bad(f"has a {key} that is no number: {str(value)[:40]!r}")
        return float(value)

    def _intrinsics(self, size: tuple[int, int], factor: int) -> Tensor | None:
        h, w = float(size[0] * factor), float(size[1] * factor)
        if factor > 1:  # what the file says, where it does: the reduced image may have lost part of a pixel
            h, w = self._value("h") or h, self._value("w") or w
        fx, angle = self._value("fl_x"), self._value("camera_angle_x")
        if fx is None:
            if angle is None:
                return None
            if not 0 < angle < math.pi:
                raise self._bad(f"has a camera_angle_x of {angle}, it must be between 0 and pi")
            fx = 0.5 * w / math.tan(0.5 * angle)
        fy, cx, cy = (self._value(key) for key in ("fl_y", "cx", "cy"))
        fy, cx, cy = fx if fy is None else fy, w / 2 if cx is None else cx, h / 2 if cy is None else cy
        matrix = torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)
        return matrix * matrix.new_tensor([size[1] / w, size[0] / h, 1.0])[:, None] if factor > 1 else matrix

    def _distortion(self) -> Distortion:
        fisheye = self.values.get("is_fisheye") is True  # Instant-NGP says it so
        model = str(self.values.get("camera_model", "OPENCV_FISHEYE" if fisheye else "OPENCV"))
        if fisheye and "FISHEYE" not in model:
            raise self._bad(f"has camera model {model} and is_fisheye, which contradict each other")
        numbers = [self._value(key) or 0.0 for key in _OPENCV_KEYS]
        if model in _PINHOLES:
            return Distortion()
        if model == "FULL_OPENCV":
            return Distortion.opencv(*numbers, *(self._value(key) or 0.0 for key in ("k4", "k5", "k6")))
        if model in ("OPENCV", "SIMPLE_RADIAL", "RADIAL"):
            if self._value("k4"):
                raise self._bad(f"has k4 with camera model {model}, which programs read in different ways")
            return Distortion.opencv(*numbers)
        if model in ("OPENCV_FISHEYE", "FISHEYE"):
            return Distortion("fisheye", tuple(self._value(key) or 0.0 for key in ("k1", "k2", "k3", "k4")))
        raise self._bad(f"has camera model {model!r}, known are PINHOLE, OPENCV and OPENCV_FISHEYE")
