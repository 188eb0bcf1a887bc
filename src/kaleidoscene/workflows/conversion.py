"""A capture for another tool, a point cloud, or training shards and latents of many."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from rich.progress import Progress

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.images import pinhole_capture
from kaleidoscene.captures.conversion.points import point_cloud
from kaleidoscene.captures.conversion.tools import WRITERS, dropped
from kaleidoscene.captures.formats import co3d
from kaleidoscene.captures.formats.re10k import camera_files
from kaleidoscene.captures.formats.registry import find_posed, read_capture
from kaleidoscene.captures.ply import write_ply
from kaleidoscene.datasets.clips import clips_of, videos_in
from kaleidoscene.datasets.from_captures import (
    LEFT_OUT,
    MANIFEST,
    ShardConfig,
    damaged_sources,
    scene_key,
    scene_of,
    write_shards,
)
from kaleidoscene.datasets.latents import NOTE, LatentConfig, write_latents
from kaleidoscene.datasets.pictures import CLASSES, class_folders, pictures_of
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder
from kaleidoscene.machine import check_device
from kaleidoscene.serialisation import write_aside, write_json

# Sources without a scene that are named on the screen.
_NAMED = 20


@dataclass(frozen=True, kw_only=True)
class ConversionOptions:
    """Write a capture (or what was rendered) for another tool; image files are copied as they are where that goes."""

    source: tyro.conf.Positional[Path]
    """Capture of any supported format; for shards also a folder of captures, a video or a folder of videos."""
    destination: tyro.conf.Positional[Path]
    """Folder to write; shards that are there from an interrupted run are kept."""
    to: Literal["nerfstudio", "colmap", "blender", "llff", "shards", "latents", "ply"]
    """ply writes the point cloud alone, as a file: from the capture's points or its depth maps; latents takes shards
    and makes the autoencoder's part of training ahead."""
    format: str | None = None
    """Read the capture as this format instead of detecting it; for shards also 'classes': single pictures in a folder
    for each class, to scenes of one view with a label (a class counts as a capture in --shards.scenes-per-shard)."""
    undistort: bool = False
    """Write pinhole images of one size (PNG) in place of the originals and their distortion."""
    shards: ShardConfig = ShardConfig()
    latents: LatentConfig = LatentConfig()
    overwrite: bool = False
    """Replace the destination if it is not empty (not for shards)."""


def convert(options: ConversionOptions) -> list[Path]:
    """Write what was asked for; returns the files.

    Raises:
        KaleidosceneError: The source cannot be read, or the destination not be written.
    """
    try:
        return _convert(options)
    except OSError as error:
        where = error.filename2 or (error.filename if error.filename is not None else options.destination)
        raise KaleidosceneError(f"{where}: cannot be written ({error.strerror}).") from error


def _convert(options: ConversionOptions) -> list[Path]:
    if options.to == "shards":
        return _classes_to_shards(options) if options.format == "classes" else _to_shards(options)
    if options.to == "latents":
        return _to_latents(options)
    capture = read_capture(options.source, format=options.format)
    if options.to == "ply":
        return _to_ply(capture, options)
    if not capture.is_posed:
        raise KaleidosceneError(
            f"{capture.name}: there are no cameras to convert; estimate them with 'kaleidoscene pose' first."
        )
    lost = dropped(capture, options.to)
    if options.undistort and capture.points is None:
        capture = replace(capture, points=point_cloud(capture))
    with whole_folder(options.destination, overwrite=options.overwrite, sources=[options.source]) as folder:
        if options.undistort:
            scratch = folder / ".undistorted"
            capture = pinhole_capture(capture, scratch)
            names = WRITERS[options.to](capture, folder)
            for path in scratch.iterdir():
                path.unlink()
            scratch.rmdir()
        else:
            names = WRITERS[options.to](capture, folder)
    print(f"{capture.name}: {len(capture)} frames of a {capture.format} capture.")
    if lost:
        print(lost)
    return [options.destination / name for name in names]


def _to_ply(capture: Capture, options: ConversionOptions) -> list[Path]:
    cloud = point_cloud(capture)
    if cloud is None:
        raise KaleidosceneError(f"{capture.name}: there are neither points nor depth maps.")
    if options.destination.is_dir() or options.destination.suffix != ".ply":
        raise KaleidosceneError(f"{options.destination}: the destination of a point cloud is a file that ends in .ply.")
    if options.destination.exists() and not options.overwrite:
        raise KaleidosceneError(f"{options.destination}: is there already; give --overwrite to replace it.")
    options.destination.parent.mkdir(parents=True, exist_ok=True)
    write_ply(options.destination, cloud)
    print(f"{capture.name}: {len(cloud.positions)} points.")
    return [options.destination]


def _to_shards(options: ConversionOptions) -> list[Path]:
    config, videos = options.shards, [] if options.format or _is_capture(options.source) else videos_in(options.source)
    if videos and videos != [options.source] and any(path.is_dir() for path in options.source.iterdir()):
        raise KaleidosceneError(
            f"{options.source}: videos and folders stand side by side; convert them one after the other."
        )

    if videos and not options.source.is_file() and camera_files(options.source):
        raise KaleidosceneError(
            f"{options.source}: camera files of RealEstate10K lie beside the videos; give --format re10k, or move them "
            "away for clips without cameras."
        )
    if videos and config.least_views != 1:
        raise KaleidosceneError("--shards.least-views is for captures; videos have --shards.clips.least.")
    if videos:
        _check_no_maps(config, "videos")
    unused: set[str] = set()

    def scenes(source: Path) -> Iterable[StoredScene]:
        if videos:
            return clips_of(source, scene_key(source.stem), config.image_size, config.clips)
        capture = _sound(source, options.format)
        unused.update(_unused(capture, config))
        return [scene_of(capture, _name(source), config)] if len(capture) >= config.least_views else []

    sources = videos or _captures_in(options)
    keys = [scene_key(source.stem if videos else _name(source)) for source in sources]
    with Progress(transient=True) as bar:
        task = bar.add_task("writing shards", total=len(sources))
        for done, _ in write_shards(sources, options.destination, config, scenes, keys):
            bar.update(task, completed=done)
    if not any(options.destination.glob("*.tar")):
        reasons = damaged_sources(options.destination).values()
        (options.destination / MANIFEST).unlink()
        what = f"{config.clips.least} frames" if videos else f"{config.least_views} views"
        but = f" but {len(reasons)}, which cannot be read ({next(iter(reasons))})" if reasons else ""
        raise KaleidosceneError(
            f"{options.source}: nothing to store, all of {len(sources)} have less than {what}{but}."
        )
    stored = ShardFolder(options.destination)
    print(f"{len(stored)} {'clips' if videos else 'scenes'} of {len(sources)} {'videos' if videos else 'captures'}.")
    if unused:
        print(f"Not stored: {' and '.join(sorted(unused))}.")
    files, unreadable = [options.destination / MANIFEST], damaged_sources(options.destination)
    short = [name for name in _left_out(stored, sources, keys, clips=bool(videos)) if name not in unreadable]
    few = f"too short for a clip of {config.clips.least} frames" if videos else f"under {config.least_views} views"
    for what, names in ((few, short), ("unreadable", list(unreadable))):
        if names:
            print(f"left out, {what}: {', '.join(names[:_NAMED])}{' ...' if len(names) > _NAMED else ''}")
    if short or unreadable:
        files.append(options.destination / LEFT_OUT)
        reasons = [f"{name}: {reason}" for name, reason in unreadable.items()]
        write_aside(files[-1], "".join(f"{line}\n" for line in short + reasons))
    return files


def _classes_to_shards(options: ConversionOptions) -> list[Path]:
    """Pictures in folders of classes; a class is a source, and its place among all is the label."""
    config, folders = options.shards, class_folders(options.source)
    if config.least_views != 1:
        raise KaleidosceneError("--shards.least-views is for captures; pictures are scenes of one view.")
    _check_no_maps(config, "pictures")
    if config.damaged_share:
        raise KaleidosceneError("--shards.damaged-share is for captures; a picture that does not read stops the work.")
    if config.field_of_view not in (None, ShardConfig().field_of_view):
        raise KaleidosceneError("--shards.field-of-view is for captures; pictures keep their lens.")
    labels = {folder: number for number, folder in enumerate(folders)}
    with Progress(transient=True) as bar:
        task = bar.add_task("writing shards", total=len(folders))
        for done, _ in write_shards(
            folders, options.destination, config, lambda folder: pictures_of(folder, labels[folder], config)
        ):
            bar.update(task, completed=done)
    write_json(options.destination / CLASSES, [folder.name for folder in folders])
    print(f"{len(ShardFolder(options.destination))} pictures of {len(folders)} classes.")
    return [options.destination / name for name in (MANIFEST, CLASSES)]


def _check_no_maps(config: ShardConfig, what: str) -> None:
    for flag, asked in (("masked", config.masked), ("depth", config.depth)):
        if asked:
            raise KaleidosceneError(f"--shards.{flag} is for captures; {what} have no such images beside them.")


def _unused(capture: Capture, config: ShardConfig) -> Iterable[str]:
    """What a capture has beside its images that is left behind, with the flag that takes it."""
    frames = capture.frames
    if not config.masked and all(frame.mask is not None for frame in frames):
        yield "masks (--shards.masked makes them the alpha of the views)"
    if not config.depth and all(frame.depth is not None for frame in frames):
        yield "depth maps (--shards.depth)"


def _name(source: Path) -> str:
    """What the scene of a capture is named after; camera files lie many in a folder, each with its own name."""
    return source.stem if source.suffix == ".txt" else source.name


def _is_capture(source: Path) -> bool:
    """Whether there are cameras: what is a capture is not taken for a folder of videos because one lies in it."""
    return source.is_dir() and find_posed(source) is not None


def _to_latents(options: ConversionOptions) -> list[Path]:
    if not options.latents.autoencoder:
        raise KaleidosceneError("Latents are made by an autoencoder: give --latents.autoencoder FOLDER.")
    check_device(options.latents.device)
    with Progress(transient=True) as bar:
        task, total = bar.add_task("encoding"), 0
        for done, total in write_latents(options.source, options.destination, options.latents):
            bar.update(task, completed=done, total=total)
    ShardFolder(options.destination)  # leaves the catalogue that runs start from
    print(f"{total} scenes.")
    return [options.destination / NOTE]


def _left_out(stored: ShardFolder, sources: list[Path], keys: list[str], *, clips: bool) -> list[str]:
    """Names of the sources that gave no scene; clips are named after their video, and their number and stride."""
    scenes = [stored.key(number) for number in range(len(stored))]
    given = {key.rsplit("-", 2)[0] for key in scenes} if clips else set(scenes)
    return [path.name for path, key in zip(sources, keys, strict=True) if key not in given]


def _sound(path: Path, format: str | None) -> Capture:
    capture = read_capture(path, format=format)
    if not capture.is_posed:
        raise KaleidosceneError(f"{path}: there are no cameras; training scenes need them.")
    return capture


def _captures_in(options: ConversionOptions) -> list[Path]:
    """The capture, or all captures of a folder; anything else in it is refused, not skipped."""
    if not options.source.exists():
        raise KaleidosceneError(f"{options.source}: no such file or folder.")
    if options.format in (None, "co3d") and (of_category := co3d.sequences(options.source)):
        return of_category
    try:
        if read_capture(options.source, format=options.format).is_posed:
            return [options.source]
    except KaleidosceneError as error:
        inside = list(options.source.iterdir()) if options.source.is_dir() else []
        if not any(path.is_dir() for path in inside) and not camera_files(options.source):
            raise
        if "no capture of a known format" not in str(error):
            raise
    paths = sorted(path for path in options.source.iterdir() if path.is_dir() and path.name[0] != ".")
    if cameras := camera_files(options.source) if options.format in (None, "re10k") else []:
        if alone := [path for path in paths if path.with_name(f"{path.name}.txt") not in cameras]:
            raise KaleidosceneError(
                f"{alone[0]}: no camera file {alone[0].name}.txt beside it, as the other captures have."
            )
        return cameras
    if not paths:
        raise KaleidosceneError(f"{options.source}: no captures with cameras here.")
    return paths
