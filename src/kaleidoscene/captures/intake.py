"""What people hand in: photographs in a folder or an archive, a phone's scan, a film, one picture; HEIC and AVIF."""

from __future__ import annotations

import lzma
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.photos import find_photos
from kaleidoscene.captures.formats.registry import find_posed, read_capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.images.files import SUFFIXES, image_size, list_images
from kaleidoscene.images.panoramas import ANGLE, VIEWS, cameras_within, cut_panorama, may_be_panorama, says_panorama
from kaleidoscene.images.videos import SUFFIXES as VIDEO_SUFFIXES
from kaleidoscene.images.videos import video_frames

RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2")
ARCHIVES = (".zip", ".r3d")
CONVERTED = (".heic", ".heif", ".avif")
_QUALITY = 95
_CAMERAS = ("transforms.json", "transforms_train.json", "poses_bounds.npy", "lowres_wide.traj")
"""Files with the cameras of what lies beside them."""
_MOST_IN_A_WINDOW, _LOOKED_AT = 8, 480


def take_in(source: Path, scratch: Path, *, panoramas: bool = False) -> tuple[Capture, list[str]]:
    """A capture of what lies there, and what was done to read it, as sentences.

    Args:
        source: Folder, archive, film or picture.
        scratch: Empty folder for what has to be unpacked or converted; it must live as long as the capture.
        panoramas: Cut all images that are twice as wide as high, not only those whose metadata call them panoramas.

    Raises:
        KaleidosceneError: Camera raw, an archive without pictures or with bad names, or nothing that is read.
    """
    if not source.exists():
        raise KaleidosceneError(f"{source}: no such file or folder.")
    notes, name, folder = [], source.stem if source.is_file() else source.name, source
    if source.suffix.lower() in ARCHIVES:
        folder = scratch / "unpacked" / name
        if (posed := _unpack_scan(source, folder)) is not None:
            return replace(read_capture(posed), name=name), ["The archive holds cameras, which are kept."]
        notes.append(f"{_unpack(source, folder)} files were unpacked from the archive.")
    if folder.is_dir() and find_posed(folder) is not None:
        if panoramas:
            raise KaleidosceneError(f"{source}: --panoramas is for pictures without cameras.")
        return read_capture(folder), notes
    files = [folder] if folder.is_file() else sorted(path for path in folder.iterdir() if path.name[0] != ".")
    films = [] if folder.is_file() else [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    if films and any(path.suffix.lower() in (*SUFFIXES, *CONVERTED) for path in files):
        notes.append(f"Films beside the pictures are left out: {', '.join(path.name for path in films)}.")
    elif len(films) > 1:
        raise KaleidosceneError(f"{source}: there are {len(films)} films and no pictures; give one of them.")
    elif films:
        files, folder = films, films[0]
    raw = [path for path in files if path.suffix.lower() in RAW]
    if raw:
        raise KaleidosceneError(f"{raw[0]}: camera raw is not read; export JPEG, PNG or TIFF.")
    if any(path.suffix.lower() in CONVERTED for path in files):
        folder, count = _converted(files, scratch / "converted" / name)
        notes.append(f"{count} HEIC or AVIF pictures were converted to JPEG, with their EXIF.")
        files = [folder] if folder.is_file() else sorted(folder.iterdir())
    return _pictures(folder, scratch / "cut" / name, notes, panoramas=panoramas)


def _pictures(folder: Path, cut: Path, notes: list[str], *, panoramas: bool) -> tuple[Capture, list[str]]:
    """What lies in a folder (or is one file), with panoramas cut; the notes grow."""
    found = find_photos(folder)
    pictures = list_images(found) if found is not None and found.is_dir() else [found] if found is not None else []
    whole = [path for path in pictures if may_be_panorama(path)]
    round_about = [path for path in whole if panoramas or says_panorama(path)]
    notes += [
        f"{path.name} calls itself a panorama and does not show all directions: it is left as it is."
        for path in pictures if path not in whole and says_panorama(path)
    ]  # fmt: skip
    if round_about:
        return _cut(pictures, round_about, cut, notes)
    if panoramas:
        raise KaleidosceneError(f"{folder}: --panoramas: no picture is twice as wide as high.")
    if whole:
        notes.append(f"{whole[0].name} is twice as wide as high: if it shows all directions, give --panoramas.")
    return read_capture(folder), notes


def scan_within(names: Sequence[str]) -> PurePosixPath | None:
    """The folder of an archive in which a capture with cameras lies: a phone app's scan, or a tool's."""
    paths = [PurePosixPath("/", name) for name in names]
    for path in paths:
        keyframes = path.parent.parent
        if path.suffix == ".json" and keyframes.name == "keyframes" and path.parent.name.endswith("cameras"):
            return keyframes.parent.relative_to("/")
        recorded = path.name in ("metadata", "metadata.json") and any(
            path.parent / name in other.parents for other in paths for name in ("rgbd", "rgb")
        )
        scanned = path.name.startswith("frame_") and path.suffix == ".json" and path.with_suffix(".jpg") in paths
        if recorded or scanned or path.name in _CAMERAS:
            return path.parent.relative_to("/")
        if path.name in ("cameras.bin", "cameras.txt"):  # COLMAP's, in sparse or sparse/0 or colmap/sparse/0
            above = path.parent.parent if path.parent.name.isdecimal() else path.parent
            if above.name == "sparse":
                root = above.parent
                return (root.parent if root.name == "colmap" else root).relative_to("/")
    return None


def _unpack_scan(archive: Path, folder: Path) -> Path | None:
    """The tree of an archive that holds a capture with cameras, and where in it that lies; None: it holds none."""
    with _opened(archive) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        found = scan_within([member.filename for member in members if not _is_hidden(member.filename)])
        if found is None:
            return None
        for member in members:
            target = folder / member.filename
            if not target.resolve().is_relative_to(folder.resolve()):
                raise KaleidosceneError(f"{archive}: {member.filename} lies outside of the archive.")
            if _is_hidden(member.filename):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with opened.open(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
    if find_posed(folder / found) is None:  # named as a scan is, and none: labels beside pictures, say
        shutil.rmtree(folder)
        return None
    return folder / found


def _is_hidden(name: str) -> bool:
    """What systems put beside the files of an archive."""
    return any(part.startswith(("__MACOSX", ".")) for part in PurePosixPath(name).parts)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """An archive; what is wrong with it is told in one sentence."""
    try:
        with zipfile.ZipFile(archive) as opened:
            yield opened
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise KaleidosceneError(f"{archive}: not a readable archive ({error}).") from error


def _unpack(archive: Path, folder: Path) -> int:
    """Pictures and films of an archive, all in one folder; returns their number."""
    folder.mkdir(parents=True)
    wanted, count = (*SUFFIXES, *CONVERTED, *RAW, *VIDEO_SUFFIXES), 0
    with _opened(archive) as opened:
        for member in opened.infolist():
            path = Path(member.filename)
            if member.is_dir() or _is_hidden(member.filename) or path.suffix.lower() not in wanted:
                continue
            target = folder / path.name  # of the path in the archive nothing but the last part counts
            if target.exists():
                raise KaleidosceneError(f"{archive}: two files of the archive are called {path.name}.")
            with opened.open(member) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
            count += 1
    if not count:
        raise KaleidosceneError(f"{archive}: there are no pictures and no film in the archive.")
    return count


def _converted(files: list[Path], folder: Path) -> tuple[Path, int]:
    """Pictures with JPEGs in place of what other readers do not know; folder, or the one picture, and how many."""
    folder.mkdir(parents=True)
    count = 0
    for path in files:
        if path.suffix.lower() in CONVERTED:
            if (folder / f"{path.stem}.jpg").exists() or path.with_suffix(".jpg") in files:
                raise KaleidosceneError(f"{path}: there is another picture of that name; keep one of them.")
            if path.suffix.lower() != ".avif":
                _know_heic()
            try:
                with Image.open(path) as picture:
                    picture.convert("RGB").save(
                        folder / f"{path.stem}.jpg", quality=_QUALITY, exif=picture.getexif().tobytes()
                    )
            except Exception as error:  # plug-ins raise what they like
                raise KaleidosceneError(f"{path}: not a readable picture ({error or type(error).__name__}).") from error
            count += 1
        elif path.suffix.lower() in SUFFIXES:
            shutil.copyfile(path, folder / path.name)
    return (next(folder.iterdir()) if len(files) == 1 else folder), count


def _cut(pictures: list[Path], panoramas: list[Path], folder: Path, notes: list[str]) -> tuple[Capture, list[str]]:
    """Pictures with what pinholes see of panoramas in place of these; of one panorama alone, with its cameras."""
    folder.mkdir(parents=True)
    for path in pictures:
        if path not in panoramas:
            shutil.copyfile(path, folder / path.name)
    for path in panoramas:
        cut_panorama(path, folder)
    notes.append(f"{len(panoramas)} panoramas were cut into {VIEWS * len(panoramas)} pictures of {ANGLE:.0f} degrees.")
    capture = read_capture(folder)
    if len(pictures) > 1:
        return capture, notes
    notes.append("All of them look from one place, so that nothing tells how far away things are.")
    cameras = cameras_within(image_size(panoramas[0])[0])
    frames = [
        replace(frame, world_from_cam=pose.double(), intrinsics=cameras.intrinsics[0].double())
        for frame, pose in zip(capture.frames, cameras.world_from_cam, strict=True)
    ]
    return replace(capture, name=panoramas[0].stem, format="panorama", frames=tuple(frames), notes=()), notes


def _know_heic() -> None:
    try:
        import pillow_heif  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("HEIC needs pillow-heif: pip install 'kaleidoscene[heic]'.") from error
    pillow_heif.register_heif_opener()


def sharpness(pixels: np.ndarray) -> float:
    """Variance of the Laplacian of the brightness of an 8-bit picture ``(h, w, 3)``, looked at from a distance."""
    step = max(1, max(pixels.shape[:2]) // _LOOKED_AT)
    grey = pixels[::step, ::step].astype(np.float32).mean(-1)
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * inner).var())


def sharpest(film: Capture, count: int) -> Capture:
    """Of a film cut into so many equal parts, the sharpest frame of each.

    Args:
        film: All frames of a video.
        count: Parts; at most one a frame.
    """
    count = min(count, len(film))
    edges = np.linspace(0, len(film), count + 1).round().astype(int)
    windows = [
        np.unique(np.linspace(low, high - 1, min(_MOST_IN_A_WINDOW, high - low)).round().astype(int))
        for low, high in pairwise(edges)
    ]
    of_position = {film.frames[number].position: int(number) for number in np.concatenate(windows)}
    positions = [position for position in of_position if position is not None]
    scores: dict[int, float] = {}
    for position, pixels in video_frames(film.frames[0].image, positions):
        scores[of_position[position]] = sharpness(pixels)
    chosen = [max(window.tolist(), key=lambda number: scores[number]) for window in windows]
    note = f"{count} of {len(film)} frames are taken, the sharpest of each part of the film"
    return replace(film, frames=tuple(film.frames[n] for n in chosen), notes=(*film.notes, note))
