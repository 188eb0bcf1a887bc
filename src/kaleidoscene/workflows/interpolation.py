"""A video, a folder of images or a rendering becomes a denser film."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.datasets.clips import ClipConfig, CutFinder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.registry import load_interpolator
from kaleidoscene.files import natural_key, read_json
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import interpolate_poses
from kaleidoscene.images.files import list_images, read_image, write_image
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.images.videos import SUFFIXES, video_frames, video_timing
from kaleidoscene.rendering.outputs import write_video

_MOST_DOUBLINGS = 6


@dataclass(frozen=True, kw_only=True)
class FilmRequest:
    """Put frames between the frames of a video, a folder of images or a rendering: frames/ and video.mp4.

    Frames that were made are marked in transforms.json, where the source has cameras, and are never scored.
    """

    source: tyro.conf.Positional[Path]
    """A video, a folder of images, or what 'render' wrote; frames of a capture are taken in their order."""
    out: Path
    """Folder to write; it appears when everything is written."""
    doublings: int | None = None
    """How many times the frames are doubled: 1, 3, 7 ... frames between two for 1, 2, 3 ...; by default once."""
    rate: float | None = None
    """Frames a second of the new film, in place of --doublings; other times than halves are not the paper's."""
    source_rate: float | None = None
    """Frames a second of images in a folder; by default that of a rendering, or 12."""
    model: str = "film"
    """'film', a checkpoint or run folder, or a hub id."""
    find_cuts: bool = True
    """Put nothing over the cuts of a video, or of images without cameras; the last frame stays instead."""
    device: str = "cpu"
    overwrite: bool = False
    """Replace the output folder if it is not empty."""

    def __post_init__(self) -> None:
        if self.doublings is not None and self.rate is not None:
            raise KaleidosceneError("--doublings and --rate were both given; the frames come from one of them.")
        check_doublings(self.doublings or 0, "--doublings")
        for name in ("rate", "source_rate"):
            value = getattr(self, name)
            if value is not None and not 0 < value <= 1000:
                flag = name.replace("_", "-")
                raise KaleidosceneError(f"--{flag} must be above 0 and at most 1000 frames a second, got {value}.")


def check_doublings(doublings: int, flag: str) -> None:
    """Raise unless frames can be doubled so many times.

    Raises:
        KaleidosceneError: Less often than never, or more often than makes sense.
    """
    if not 0 <= doublings <= _MOST_DOUBLINGS:
        raise KaleidosceneError(f"{flag} must be from 0 to {_MOST_DOUBLINGS}, got {doublings}.")


@dataclass(frozen=True)
class Densified:
    """What came of it.

    Attributes:
        frames: Of the new film.
        made: Those that were put between.
        rate: Frames a second.
        cuts: Places where nothing was put between.
    """

    frames: int
    made: int
    rate: float
    cuts: int

    def describe(self, video: Path) -> str:
        """For users."""
        return f"wrote {video}: {self.frames} frames at {self.rate:g} a second, {self.made} of them made."


def interpolate(request: FilmRequest) -> Densified:
    """Write the denser film; the folder appears when everything is written.

    Raises:
        KaleidosceneError: The source is no film of two frames or more, its frames differ in size, or the folder cannot
            be written.
    """
    film = open_film(request.source, request.source_rate)
    interpolator = load_interpolator(request.model, request.device)
    with whole_folder(request.out, overwrite=request.overwrite, sources=(request.source,)) as folder:
        (folder / "frames").mkdir()
        times, rate = _new_times(film.times, request)
        cuts = list[int]()
        finder = CutFinder(ClipConfig().threshold) if request.find_cuts and film.cameras is None else None
        pictures, names, made = _marked(film, finder, cuts), list[str](), list[bool]()
        dense = interpolator.at(pictures, times) if request.rate else interpolator.denser(pictures, _doublings(request))
        for _, picture, is_made in track(dense, "interpolating", total=len(times)):
            names.append(f"frames/{len(names):06d}.png")
            made.append(is_made)
            write_image(folder / names[-1], picture)
        write_video(folder / "video.mp4", [folder / name for name in names], fps=rate)
        if film.cameras is not None:
            cameras = cameras_at(film.cameras, film.times, times)
            write_cameras(folder / "transforms.json", names, cameras, centred=film.centred, interpolated=made)
    return Densified(len(names), sum(made), rate, len(cuts))


def interpolate_rendering(rendering: Path, doublings: int, *, rate: float, model: str, device: str) -> Densified:
    """Double the frames of a rendering, into its folder ``interpolated``.

    Args:
        rendering: Folder that was rendered.
        doublings: How many times.
        rate: Its frames a second.
        model: See :class:`FilmRequest`.
        device: To compute on.

    Raises:
        KaleidosceneError: As :func:`interpolate` does.
    """
    return interpolate(FilmRequest(
        source=rendering, out=rendering / "interpolated", doublings=doublings, source_rate=rate, model=model,
        device=device, overwrite=True,
    ))  # fmt: skip


@dataclass(frozen=True, eq=False)
class Film:
    """Frames in their order.

    Attributes:
        path: Where they lie.
        images: Files, or a capture, whose images are taken as its cameras see them; None for a video.
        times: Seconds since the first one.
        cameras: Of the frames, if they have any.
        centred: See :class:`kaleidoscene.captures.capture.Capture`.
    """

    path: Path
    images: tuple[Path, ...] | Capture | None
    times: tuple[float, ...]
    cameras: Cameras | None = None
    centred: str = "scene"

    def __iter__(self) -> Iterator[Float[Tensor, "3 h w"]]:
        if self.images is None:
            for _, frame in video_frames(self.path, range(len(self.times))):
                yield torch.from_numpy(frame.copy()).movedim(-1, 0).float() / 255
        elif isinstance(self.images, Capture):
            yield from (self.images.images(only=[number])[0] for number in range(len(self.images)))
        else:
            yield from (read_image(file)[0] for file in self.images)


def open_film(path: Path, rate: float | None) -> Film:
    """The frames of a video, of a folder of images, or of a capture.

    Args:
        path: Of either.
        rate: Frames a second of images; None: what camera_path.json beside them says, or 12.

    Raises:
        KaleidosceneError: There are fewer than two frames.
    """
    if path.suffix.lower() in SUFFIXES:
        film = Film(path, None, video_timing(path).times)
    else:
        rate = rate or _rate_of(path)
        capture = read_capture(path) if (path / "transforms.json").is_file() else None
        images = capture or tuple(sorted(list_images(path), key=natural_key) if path.is_dir() else ())
        film = Film(path, images, tuple(number / rate for number in range(len(images))))
        if capture is not None and capture.is_posed:
            film = replace(film, cameras=capture.cameras, centred=capture.centred)
    if len(film.times) < 2:
        raise KaleidosceneError(
            f"{path}: {len(film.times)} frames; expected a video, or a folder with two images or more."
        )
    return film


def _rate_of(folder: Path) -> float:
    path = folder / "camera_path.json"
    said = read_json(path).get("fps") if path.is_file() else None
    return float(said) if isinstance(said, int | float) and math.isfinite(said) and said > 0 else 12.0


def _doublings(request: FilmRequest) -> int:
    return 1 if request.doublings is None else request.doublings


def _new_times(times: Sequence[float], request: FilmRequest) -> tuple[list[float], float]:
    """When the frames of the new film are, and how many a second."""
    mean = (len(times) - 1) / max(times[-1], 1e-9)
    if request.rate:
        count = int(times[-1] * request.rate + 1e-6) + 1
        return [number / request.rate for number in range(count)], request.rate
    parts = 2 ** _doublings(request)
    dense = [before + (after - before) * part / parts for before, after in pairwise(times) for part in range(parts)]
    return [*dense, times[-1]], mean * parts


def _marked(
    film: Film, finder: CutFinder | None, cuts: list[int]
) -> Iterator[tuple[float, Float[Tensor, "3 h w"], bool]]:
    """Time, picture, and whether another shot begins with it; such frames are added to ``cuts`` as they come."""
    size = None
    for number, (time, picture) in enumerate(zip(film.times, film, strict=True)):
        if size is not None and picture.shape[-2:] != size:
            raise KaleidosceneError(
                f"{film.path}: frame {number} is {picture.shape[-2]}x{picture.shape[-1]}, those before it are "
                f"{size[0]}x{size[1]}."
            )
        size = picture.shape[-2:]
        is_cut = finder is not None and finder.is_cut(to_bytes(picture)) and number > 0
        if is_cut:
            cuts.append(number)
        yield time, picture, is_cut


def cameras_at(cameras: Cameras, times: Sequence[float], at: Sequence[float]) -> Cameras:
    """Cameras of frames between frames: rotation along the geodesic, all else in proportion.

    Args:
        cameras: Of the frames at ``times``.
        times: Ascending.
        at: Of the new frames, none outside of ``times``.
    """
    before = [min(bisect_right(times, time + 1e-9) - 1, len(times) - 2) for time in at]
    shares = torch.tensor([
        (time - times[n]) / (times[n + 1] - times[n]) for time, n in zip(at, before, strict=True)
    ], dtype=torch.float64)  # fmt: skip
    after = [number + 1 for number in before]
    poses = cameras.world_from_cam.double()
    intrinsics = cameras.intrinsics.double()
    return replace(
        cameras,
        world_from_cam=interpolate_poses(poses[before], poses[after], shares),
        intrinsics=torch.lerp(intrinsics[before], intrinsics[after], shares[:, None, None]),
    )
