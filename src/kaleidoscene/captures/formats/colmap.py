"""COLMAP reconstructions, binary or text, read and written by pycolmap.

Damaged binary files can make pycolmap hang or end the process, so that their structure is walked first. Images without
a pose are left out and counted. Each image may have its own camera; distortion stays with the frame.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame, PointCloud
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import inside, read_bytes, read_text
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.geometry.poses import invert
from kaleidoscene.images.files import SUFFIXES, stored_size

EXPECTS = "sparse/0/cameras.bin or .txt with images/ (COLMAP)"
_FILES = ("cameras", "images", "points3D")
_PLACES = ("sparse/0", "sparse", "colmap/sparse/0", "colmap/sparse", ".")
# Number of parameters of COLMAP's camera models, by their id (COLMAP's documentation, "Camera Models").
_PARAMETERS = dict(enumerate((3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6)))


def find(path: Path) -> Path | None:
    """The folder of the reconstruction if ``path`` is one or leads to one."""
    if path.is_file():
        return None
    for place in _PLACES:
        folder = path / place
        if any((folder / f"cameras{suffix}").is_file() for suffix in (".bin", ".txt")):
            return folder
    return None


def read(path: Path) -> Capture:
    """Read a reconstruction; images in the order of their names.

    Raises:
        KaleidosceneError: A file is damaged, no image is posed, or a camera model is not known here.
    """
    pycolmap = load_pycolmap()
    reconstruction = _reconstruction(pycolmap, path)
    root, folder = _image_folder(path)
    posed = [image for image in reconstruction.images.values() if image.has_pose]
    left_out = len(reconstruction.images) - len(posed)
    if not posed:
        raise KaleidosceneError(
            f"{path}: none of the {len(reconstruction.images)} images of the reconstruction has a pose."
        )
    posed.sort(key=lambda image: image.name)
    frames = tuple(_frame(path, folder, image, reconstruction.cameras[image.camera_id]) for image in posed)
    not_named = _not_named(folder, {frame.image for frame in frames})
    notes = []
    if left_out or not_named:
        without = left_out + not_named
        notes.append(f"{without} of {len(posed) + without} images have no pose and are left out")
    points = list(reconstruction.points3D.values())
    cloud = None
    if points:
        positions = torch.tensor([list(point.xyz) for point in points], dtype=torch.float64)
        cloud = PointCloud(positions, torch.tensor([list(point.color) for point in points], dtype=torch.uint8))
    return Capture(root.resolve().name, "colmap", root, frames, points=cloud, notes=tuple(notes))


def load_pycolmap() -> Any:
    """The pycolmap module, told to keep quiet.

    Raises:
        KaleidosceneError: It is not installed.
    """
    try:
        import pycolmap  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError(
            "COLMAP files and pose estimation need pycolmap: pip install 'kaleidoscene[colmap]'."
        ) from error
    pycolmap.logging.minloglevel = 3
    return pycolmap


def _reconstruction(pycolmap: Any, path: Path) -> Any:
    suffix = ".bin" if (path / "cameras.bin").is_file() else ".txt"
    files = {name: path / f"{name}{suffix}" for name in _FILES}
    for name, file in files.items():
        if suffix == ".bin":
            _walk(name, file)
        else:
            read_text(file)
    with tempfile.TemporaryDirectory() as scratch:
        # The three files alone: what else lies there (rigs, frames) has not been checked.
        for file in files.values():
            os.symlink(file.resolve(), Path(scratch) / file.name)
        try:
            return pycolmap.Reconstruction(scratch)
        except Exception as error:  # pycolmap raises ValueError, IndexError, RuntimeError ... on damaged files
            reason = str(error).strip().splitlines()[-1][:160] if str(error).strip() else type(error).__name__
            raise KaleidosceneError(f"{path}: not a readable reconstruction ({reason}).") from error


class _Bytes:
    """A cursor that refuses to read beyond the end."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.place = path, read_bytes(path, largest=1 << 32), 0

    def take(self, form: str) -> tuple[Any, ...]:
        size = struct.calcsize("<" + form)
        self.skip(size)
        return struct.unpack_from("<" + form, self.data, self.place - size)

    def skip(self, size: int) -> None:
        if size > len(self.data) - self.place:
            raise KaleidosceneError(f"{self.path}: the file is damaged or truncated (at byte {self.place}).")
        self.place += size

    def word(self) -> None:
        end = self.data.find(b"\0", self.place)
        if end < 0:
            raise KaleidosceneError(
                f"{self.path}: the file is damaged or truncated (a name at byte {self.place} has no end)."
            )
        try:
            self.data[self.place : end].decode()
        except UnicodeDecodeError as error:
            raise KaleidosceneError(f"{self.path}: an image name at byte {self.place} is not UTF-8.") from error
        self.place = end + 1


def _walk(name: str, path: Path) -> None:
    """Go through a binary file without keeping anything.

    Raises:
        KaleidosceneError: Its counts lead beyond its end, bytes are left over, or a camera model is not known.
    """
    file = _Bytes(path)
    (count,) = file.take("Q")
    for _ in range(count):
        if name == "cameras":
            _, model, width, height = file.take("IiQQ")
            if model not in _PARAMETERS or not (0 < height < 1 << 20 and 0 < width < 1 << 20):
                raise KaleidosceneError(f"{path}: a camera of model {model} and size {height}x{width} is not possible.")
            file.skip(8 * _PARAMETERS[model])
        elif name == "images":
            file.skip(4 + 7 * 8 + 4)
            file.word()
            file.skip(24 * file.take("Q")[0])
        else:
            file.skip(8 + 3 * 8 + 3 + 8)
            file.skip(8 * file.take("Q")[0])
    if file.place != len(file.data):
        raise KaleidosceneError(f"{path}: {len(file.data) - file.place} bytes are left over after {count} {name}.")


def _image_folder(path: Path) -> tuple[Path, Path]:
    """The capture's folder and the one that image names are relative to."""
    for parent in (path, path.parent, path.parent.parent, path.parent.parent.parent):
        if (parent / "images").is_dir():
            return parent, parent / "images"
    return path, path


def _not_named(folder: Path, used: set[Path]) -> int:
    """Images on disk that the reconstruction does not name."""
    return sum(path.suffix.lower() in SUFFIXES and path not in used for path in folder.rglob("*"))


def _frame(path: Path, folder: Path, image: Any, camera: Any) -> Frame:
    file = inside(folder, image.name, what="an image of the reconstruction")
    model, parameters = camera.model.name, [float(value) for value in camera.params]
    matrix, distortion = _lens(path, model, parameters)
    cam_from_world = torch.eye(4, dtype=torch.float64)
    cam_from_world[:3] = torch.from_numpy(image.cam_from_world().matrix().copy())
    size = (camera.height, camera.width)
    return Frame(file, size, invert(cam_from_world), matrix, distortion, upright=_upright(file, size))


def _upright(file: Path, size: tuple[int, int]) -> bool:
    """Whether the camera belongs to the photograph as its EXIF turns it: COLMAP takes it as stored."""
    try:
        stored, _ = stored_size(file)
    except KaleidosceneError:
        return True
    return stored != size


def _lens(path: Path, model: str, p: list[float]) -> tuple[torch.Tensor, Distortion]:
    one_focal = model.startswith("SIMPLE_") or model in ("RADIAL", "RADIAL_FISHEYE")
    fx, fy, cx, cy, *rest = (p[0], *p) if one_focal else p
    if model in ("SIMPLE_PINHOLE", "PINHOLE"):
        distortion = Distortion()
    elif model in ("SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV"):
        distortion = Distortion.opencv(*rest)
    elif model in ("OPENCV_FISHEYE", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"):
        distortion = Distortion("fisheye", tuple(rest))
    else:
        raise KaleidosceneError(
            f"{path}: camera model {model} is not supported; undistort with COLMAP's image_undistorter."
        )
    return torch.tensor([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=torch.float64), distortion


_WRITTEN_MODELS = {
    "none": ("PINHOLE", 0),
    "opencv": ("OPENCV", 4),
    "full": ("FULL_OPENCV", 8),
    "fisheye": ("OPENCV_FISHEYE", 4),
}


def write(path: Path, capture: Capture) -> None:
    """Write a binary reconstruction of the frames: one camera for each different lens, points without tracks.

    Raises:
        KaleidosceneError: A frame has no camera.
    """
    pycolmap = load_pycolmap()
    reconstruction = pycolmap.Reconstruction()
    ids: dict[tuple[Any, ...], int] = {}
    for number, frame in enumerate(capture.frames):
        world_from_cam, _, _ = frame.camera()
        lens = _written_lens(frame)
        if lens not in ids:
            ids[lens] = len(ids) + 1
            model, (h, w), parameters = lens
            camera = pycolmap.Camera(model=model, width=w, height=h, params=list(parameters), camera_id=ids[lens])
            reconstruction.add_camera_with_trivial_rig(camera)
        image = pycolmap.Image(name=frame.image.name, camera_id=ids[lens], image_id=number + 1)
        pose = pycolmap.Rigid3d(invert(_rigid(world_from_cam.double()))[:3].numpy())
        reconstruction.add_image_with_trivial_frame(image, pose)
    if capture.points is not None:
        colours = capture.points.colours
        for number, xyz in enumerate(capture.points.positions.double().numpy()):
            colour = [128, 128, 128] if colours is None else colours[number].tolist()
            reconstruction.add_point3D(xyz, pycolmap.Track(), colour)
    path.mkdir(parents=True, exist_ok=True)
    reconstruction.write_binary(str(path))


def _rigid(pose: torch.Tensor) -> torch.Tensor:
    """The pose with the nearest rotation: files round, and quaternions cannot say what is not orthonormal."""
    u, _, vh = torch.linalg.svd(pose[:3, :3])
    out = pose.clone()
    out[:3, :3] = u @ vh
    return out


def _written_lens(frame: Frame) -> tuple[str, tuple[int, int], tuple[float, ...]]:
    _, k, size = frame.camera()
    kind = frame.distortion.kind
    if kind == "opencv" and any(frame.distortion.padded()[4:]):
        kind = "full"
    model, count = _WRITTEN_MODELS[kind]
    pinhole = (float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]))
    return model, size, pinhole + frame.distortion.padded()[:count]
