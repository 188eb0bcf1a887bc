"""Photographs and videos without cameras: a folder, a single image, a video file.

Frames have no pose. The focal length of a photograph comes from its EXIF, else it is estimated, and a note says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import ExifTags
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.files import inside, natural_key
from kaleidoscene.images.files import SUFFIXES, image_size, is_depth_map, list_images, read_exif
from kaleidoscene.images.videos import SUFFIXES as VIDEO_SUFFIXES
from kaleidoscene.images.videos import video_timing

EXPECTS_PHOTOS = "images, or a single image (photos without cameras)"
EXPECTS_VIDEO = "a video file (frames without cameras)"
_FULL_FRAME_DIAGONAL = math.hypot(36, 24)
_NOT_READ = (".heic", ".heif", ".avif", ".cr2", ".nef", ".arw", ".dng", ".exr")
ESTIMATED_FOCAL = 1.2  # times the longer side: 45 degrees, what COLMAP starts from


def find_photos(path: Path) -> Path | None:
    """The image, or the folder of images (itself or its ``images``)."""
    if path.is_file():
        return path if path.suffix.lower() in SUFFIXES else None
    return next((folder for folder in (path / "images", path) if folder.is_dir() and list_images(folder)), None)


def find_video(path: Path) -> Path | None:
    """The video file."""
    return path if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES else None


def read_photos(path: Path) -> Capture:
    """Read images in the natural order of their names; what cannot be read is left to the verification."""
    images = [path] if path.is_file() else sorted(list_images(path), key=natural_key)
    for image in images:
        inside(path if path.is_dir() else path.parent, image.name, what="an image")
    name = path.stem if path.is_file() else path.parent.name if path.name == "images" else path.name
    depth = [image for image in images if is_depth_map(image)]
    if 0 < len(depth) < len(images):
        images = [image for image in images if image not in depth]
    else:
        depth = []
    capture = photographs(name, path, images)
    others = 0 if path.is_file() else sum(file.suffix.lower() in _NOT_READ for file in path.iterdir())
    notes = []
    if depth:
        notes.append(f"{len(depth)} images of one channel and 16 bits are left out as depth maps ({depth[0].name})")
    if others:
        notes.append(f"{others} files are left out, whose kind is not read ({', '.join(_NOT_READ)})")
    return replace(capture, notes=(*notes, *capture.notes))


def photographs(name: str, root: Path, images: Sequence[Path]) -> Capture:
    """A capture of image files in the order given."""
    frames, estimated = [], 0
    for image in images:
        try:
            size = image_size(image)
        except ValueError:
            frames.append(Frame(image, None))
            continue
        focal = exif_focal(image, size)
        estimated += focal is None
        matrix = intrinsics_of(focal or ESTIMATED_FOCAL * max(size), size)
        frames.append(Frame(image, size, None, matrix, guessed_focal=focal is None))
    notes = []
    if len(images) > estimated:
        notes.append(f"focal length of {len(images) - estimated} images from their EXIF")
    if estimated:
        notes.append(f"focal length of {estimated} images estimated as {ESTIMATED_FOCAL} times the longer side")
    return Capture(name, "photos", root, tuple(frames), notes=tuple(notes))


def read_video(path: Path) -> Capture:
    """Read the frames of a video, with their times."""
    timing = video_timing(path)
    matrix = intrinsics_of(ESTIMATED_FOCAL * max(timing.image_size), timing.image_size)
    frames = tuple(
        Frame(path, timing.image_size, None, matrix, time=time, position=number, guessed_focal=True)
        for number, time in enumerate(timing.times)
    )
    note = f"focal length estimated as {ESTIMATED_FOCAL} times the longer side"
    return Capture(path.stem, "video", path, frames, notes=(note,))


def intrinsics_of(focal: float, size: tuple[int, int]) -> Tensor:
    """Pinhole with square pixels and a centred principal point."""
    h, w = size
    return torch.tensor([[focal, 0, w / 2], [0, focal, h / 2], [0, 0, 1]], dtype=torch.float64)


def exif_focal(image: Path, size: tuple[int, int]) -> float | None:
    """Focal length in pixels of a photograph of ``size``, from its 35 mm equivalent or its sensor; None without."""
    tags = read_exif(image)
    diagonal = math.hypot(*size)
    equivalent = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent:
        return equivalent / _FULL_FRAME_DIAGONAL * diagonal
    focal = _number(tags.get(ExifTags.Base.FocalLength))
    resolution = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
    original = _number(tags.get(ExifTags.Base.ExifImageWidth))
    if not (focal and resolution and original):
        return None
    millimetres = {2: 25.4, 3: 10.0, 4: 1.0}.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2))
    if millimetres is None:
        return None
    # The longer side counts: photographs were made smaller or turned since.
    longer = max(original, _number(tags.get(ExifTags.Base.ExifImageHeight)) or 0.0)
    pixels = focal / millimetres * resolution * max(size) / longer
    return pixels if 0.2 < pixels / max(size) < 50 else None


def _number(value) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None
