"""The image files of a written capture: the bytes of the original where they can stay."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frame_files import frame_size
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.images.exr import SUFFIX as EXR
from kaleidoscene.images.files import is_turned, read_image
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.images.videos import video_frames


def pinhole_capture(capture: Capture, folder: Path) -> Capture:
    """The capture as its :attr:`~Capture.cameras` see it, with undistorted images of one size written as PNG.

    Args:
        capture: With cameras.
        folder: For the images; they keep their names, ending in .png.
    """
    folder.mkdir(parents=True, exist_ok=True)
    cameras = capture.exact_cameras
    frames = []
    for number, name in enumerate(file_names(capture)):
        path = (folder / name).with_suffix(".png")
        Image.fromarray(rgba_of(capture, number)).save(path)
        frame = capture.frames[number]
        frames.append(replace(
            frame, image=path, image_size=cameras.image_size, intrinsics=cameras.intrinsics[number],
            distortion=Distortion(), position=None, upright=True,
            mask=_seen(capture, number, "mask", path), depth=_seen(capture, number, "depth", path),
        ))  # fmt: skip
    return replace(capture, frames=tuple(frames))


def _seen(capture: Capture, number: int, key: Literal["mask", "depth"], image: Path) -> Path | None:
    """The mask or depth map of a frame as :attr:`Capture.cameras` see it, beside its image."""
    frame = capture.frames[number]
    if getattr(frame, key) is None:
        return None
    path = image.with_name(f"{image.stem}.{key}.png")
    if key == "mask":
        Image.fromarray(to_bytes(capture.masks(only=[number])[0].expand(3, -1, -1))[..., 0]).save(path)
    else:
        levels = (capture.depths(only=[number])[0] / frame.depth_scale).round().to(torch.int32).numpy()
        Image.fromarray(levels.astype(np.uint16)).save(path)
    return path


def rgba_of(capture: Capture, number: int) -> np.ndarray:
    """One image as :attr:`Capture.cameras` see it, 8 bits; RGB, or RGBA with straight alpha where it has alpha."""
    image = capture.images(only=[number])[0]
    alpha = capture.alphas(only=[number])
    if alpha is None:
        return to_bytes(image)
    a = alpha[0]
    # The image lies on white; colours under the alpha are what gives it back.
    straight = torch.where(a > 0, (image - (1 - a)) / a.clamp_min(1 / 255), torch.zeros_like(image))
    return np.dstack([to_bytes(straight), to_bytes(a.expand(3, -1, -1))[..., :1]])


def file_names(capture: Capture) -> list[str]:
    """A name for every image, unique without regard to case; names of the originals where that goes."""
    names = [
        frame.image.name if frame.position is None else f"{frame.image.stem}_{frame.position:06d}.png"
        for frame in capture.frames
    ]
    stems = [Path(name).stem.lower() for name in names]
    if len(set(stems)) == len(stems):
        return names
    return [f"{number:05d}_{name}" for number, name in enumerate(names)]


def write_images(capture: Capture, folder: Path, *, as_png: Collection[str] = ()) -> Capture:
    """Copy the images, masks and depth maps of a capture below a folder; what has no file of its own becomes PNG.

    Photographs that their EXIF turns are stored turned, as other programs do not agree on who turns them; OpenEXR
    images become PNG, since few programs take them.

    Args:
        capture: The capture.
        folder: Where to.
        as_png: Further endings, in small letters, of images that become PNG.

    Returns:
        The capture with the copies as its files.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    names: dict[tuple[Path, int], list[str]] = {}
    for frame, name in zip(capture.frames, file_names(capture), strict=True):
        if frame.position is not None:  # several frames may show one of a slower video
            names.setdefault((frame.image, frame.position), []).append(name)
    for video in {path for path, _ in names}:
        for number, pixels in video_frames(video, [position for path, position in names if path == video]):
            for name in names[video, number]:
                Image.fromarray(pixels).save(folder / "images" / name)
    frames = []
    for frame, name in zip(capture.frames, file_names(capture), strict=True):
        path = folder / "images" / name
        if frame.position is not None:
            pass  # written above, while its video was read
        elif frame.image.suffix.lower() == EXR:
            path = path.with_suffix(".png")
            Image.fromarray(to_bytes(read_image(frame.image)[0])).save(path)
        elif is_turned(frame.image) or frame.image.suffix.lower() in as_png:
            path = path.with_suffix(".png")
            _store_turned(frame, path)
        else:
            shutil.copyfile(frame.image, path)
        moved = replace(frame, image=path, image_size=frame_size(frame), position=None, upright=True)
        frames.append(_with_copies(moved, folder, Path(name).stem))
    return replace(capture, root=folder, frames=tuple(frames))


def _store_turned(frame: Frame, path: Path) -> None:
    with Image.open(frame.image) as image:
        picture = ImageOps.exif_transpose(image) if frame.upright else image
        # Written without the orientation, which has been followed or must not be; the rest tells the lens.
        exif = image.getexif()
        exif.pop(ExifTags.Base.Orientation, None)
        picture = picture.copy()
        if picture.mode not in ("RGB", "RGBA", "L", "I;16"):
            picture = picture.convert("RGBA" if "A" in picture.getbands() else "RGB")
        picture.save(path, exif=exif)


def _with_copies(frame: Frame, folder: Path, stem: str) -> Frame:
    out = frame
    for key in ("mask", "depth"):
        source = getattr(frame, key)
        if source is None:
            continue
        if not source.is_file():
            raise KaleidosceneError(f"{source}: the {key} of {frame.name} is missing.")
        (folder / f"{key}s").mkdir(exist_ok=True)
        copy = folder / f"{key}s" / f"{stem}{source.suffix}"
        shutil.copyfile(source, copy)
        out = replace(out, **{key: copy})
    return out
