"""All capture formats; a new one is a file beside this one and a line here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats import (
    arkit,
    co3d,
    colmap,
    dtu,
    eschernet,
    llff,
    phones,
    photos,
    pose_files,
    re10k,
    rtmv,
    transforms_json,
    uco3d,
)
from kaleidoscene.captures.verification import verify
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.images.exr import SUFFIX as EXR


class Format(NamedTuple):
    """How a format is recognised and read, and whether it says how linear colours (OpenEXR) are to be shown."""

    find: Callable[[Path], Path | None]
    read: Callable[[Path], Capture]
    expects: str
    linear: bool = False


FORMATS: dict[str, Format] = {
    "transforms": Format(transforms_json.find, transforms_json.read, transforms_json.EXPECTS),
    "eschernet": Format(eschernet.find, eschernet.read, eschernet.EXPECTS),
    "rtmv": Format(rtmv.find, rtmv.read, rtmv.EXPECTS, linear=True),
    "colmap": Format(colmap.find, colmap.read, colmap.EXPECTS),
    "llff": Format(llff.find, llff.read, llff.EXPECTS),
    "dtu": Format(dtu.find, dtu.read, dtu.EXPECTS),
    "7scenes": Format(pose_files.find_seven_scenes, pose_files.read_seven_scenes, pose_files.EXPECTS_SEVEN_SCENES),
    "scannet": Format(pose_files.find_scannet, pose_files.read_scannet, pose_files.EXPECTS_SCANNET),
    "co3d": Format(co3d.find, co3d.read, co3d.EXPECTS),
    "uco3d": Format(uco3d.find, uco3d.read, uco3d.EXPECTS),
    "re10k": Format(re10k.find, re10k.read, re10k.EXPECTS),
    "polycam": Format(phones.find_polycam, phones.read_polycam, phones.EXPECTS_POLYCAM),
    "record3d": Format(phones.find_record3d, phones.read_record3d, phones.EXPECTS_RECORD3D),
    "3dscanner": Format(arkit.find_scanner, arkit.read_scanner, arkit.EXPECTS_SCANNER),
    "arkitscenes": Format(arkit.find_scenes, arkit.read_scenes, arkit.EXPECTS_SCENES),
    "video": Format(photos.find_video, photos.read_video, photos.EXPECTS_VIDEO),
    "photos": Format(photos.find_photos, photos.read_photos, photos.EXPECTS_PHOTOS),
}
"""In the order in which they are tried: what has cameras comes before bare images."""
BARE = ("video", "photos")
"""Those that have none."""


def read_capture(path: str | Path, *, format: str | None = None) -> Capture:
    """Read a capture of any supported format; the format is detected unless it is named.

    Args:
        path: Folder of the capture, its file of cameras, an image or a video.
        format: One of ``FORMATS``.

    Raises:
        KaleidosceneError: Nothing is there, no format fits, or what is there is bad.
    """
    return verify(scan_capture(path, format=format))


def find_posed(path: Path) -> str | None:
    """The format with cameras that a folder is in, by what lies there; None: there are images or films at most."""
    return next((name for name, kind in FORMATS.items() if name not in BARE and kind.find(path) is not None), None)


def read_photographs(images: Sequence[str | Path]) -> Capture:
    """Image files without cameras as a capture, in the order given.

    Raises:
        KaleidosceneError: There are none, or one is missing or cannot be read.
    """
    paths = [Path(image).absolute() for image in images]
    if not paths:
        raise KaleidosceneError("There are no photographs: the list is empty.")
    for path in paths:
        if not path.is_file():
            raise KaleidosceneError(f"{path}: no such image.")
    return verify(photos.photographs("photographs", paths[0].parent, paths))


def scan_capture(path: str | Path, *, format: str | None = None) -> Capture:
    """As :func:`read_capture`, but bad frames are kept as they are: for ``kaleidoscene check``.

    Raises:
        KaleidosceneError: Nothing is there, no format fits, or the files cannot be understood at all.
    """
    given, path = path, Path(path).absolute()
    if format is not None and format not in FORMATS:
        raise unknown_name("capture format", format, FORMATS)
    try:
        if not path.exists():
            raise KaleidosceneError(f"{given}: no such file or folder.")
        if path.is_dir() and not any(path.iterdir()):
            raise KaleidosceneError(f"{given}: the folder is empty.")
        return _scan(path, format)
    except OSError as error:
        raise KaleidosceneError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _scan(path: Path, format: str | None) -> Capture:
    names = [format] if format else list(FORMATS)
    for name in names:
        if (found := FORMATS[name].find(path)) is not None:
            capture = FORMATS[name].read(found)
            _stay_inside(capture, path)
            if not FORMATS[name].linear:
                _have_display_colours(capture)
            why = "as it was told to be" if format else f"there is {_shown(found, path)}"
            others = () if format or name in BARE else _others(path, name, found)
            return replace(capture, notes=(f"read as {capture.format}: {why}", *others, *capture.notes))
    expected = ", or ".join(FORMATS[name].expects for name in names)
    raise KaleidosceneError(f"{path}: no capture of a known format here (expected {expected}).")


def _others(path: Path, taken: str, found: Path) -> tuple[str, ...]:
    """What else could be read of a folder: other files of the same kind, and other formats."""
    if path.is_file():
        return ()
    splits = transforms_json.beside(found) if taken == "transforms" else []
    notes = [f"left out: {', '.join(splits)}; give the file itself to take one"] if splits else []
    for name, kind in FORMATS.items():
        if name not in (taken, *BARE) and (other := kind.find(path)) is not None:
            notes.append(f"there is {_shown(other, path)} as well (format {name})")
    return tuple(notes)


def _stay_inside(capture: Capture, path: Path) -> None:
    """Files of a capture lie below what the user named, or below the folder that the format says is the capture's.

    Raises:
        KaleidosceneError: A file lies elsewhere, for example behind a link.
    """
    folders = [folder if folder.is_dir() else folder.parent for folder in (path, capture.root)]
    roots = [folder.resolve() for folder in folders]
    for number, frame in enumerate(capture.frames):
        for file in (frame.image, frame.mask, frame.depth):
            if file is not None and not any(file.resolve().is_relative_to(root) for root in roots):
                raise KaleidosceneError(
                    f"{path}: frame {number} leads out of the capture folder: {file} is {file.resolve()}."
                )


def _have_display_colours(capture: Capture) -> None:
    """Raise where a format that does not say how linear colours are to be shown has some.

    Raises:
        KaleidosceneError: There is an OpenEXR image.
    """
    for number, frame in enumerate(capture.frames):
        if frame.image.suffix.lower() == EXR:
            raise KaleidosceneError(
                f"{capture.root}: frame {number}: {frame.image} is an OpenEXR image, which is read for RTMV only "
                "(its colours are linear); convert the images to PNG first."
            )


def _shown(found: Path, path: Path) -> str:
    """What a format was recognised by, relative to what the user gave."""
    return found.name if found == path or not found.is_relative_to(path) else str(found.relative_to(path))
