"""kaleidoscene pose: cameras for photographs and videos."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
import tyro

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.posing import PoseConfig, PoseResult, estimate_poses
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder


@dataclass(frozen=True, kw_only=True)
class PoseOptions:
    """Estimate the cameras of a folder of photographs or a video (structure from motion, needs the colmap extra)."""

    photos: tyro.conf.Positional[Path]
    """Folder of images, or a video file."""
    out: Path
    """Folder for the capture: images/, sparse/0/ (COLMAP), transforms.json and points.ply."""
    frames: int | None = None
    """Of a video: how many frames to take, evenly; by default 40."""
    every: int | None = None
    """Of a video: take every k-th frame instead."""
    pose: PoseConfig = field(default_factory=PoseConfig)
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(PoseOptions, argv, "pose")
    capture = read_capture(options.photos)
    if capture.format not in ("photos", "video"):
        raise KaleidosceneError(f"{options.photos}: a {capture.format} capture, which has cameras already.")
    capture = _thinned(capture, options)
    for note in capture.notes:
        print(f"{capture.name}: {note}.")
    started = time.perf_counter()
    with whole_folder(options.out, overwrite=options.overwrite, sources=[options.photos]) as folder:
        result = estimate_poses(capture, folder, options.pose, on_stage=lambda stage: print(f"{stage} ...", flush=True))
    seconds = time.perf_counter() - started
    _report(options, result, seconds)
    if options.json:
        print_json({"out": str(options.out), "seconds": seconds, **asdict(result)})


def _thinned(capture: Capture, options: PoseOptions) -> Capture:
    """Some frames of a video; photographs are all taken."""
    if capture.format == "photos":
        if options.frames is not None or options.every is not None:
            raise KaleidosceneError("--frames and --every choose frames of a video; of photographs all are taken.")
        return capture
    if options.frames is not None and options.every is not None:
        raise KaleidosceneError("--frames and --every were both given; one of them chooses the frames.")
    if options.every is not None:
        if options.every < 1:
            raise KaleidosceneError(f"--every must be at least 1, got {options.every}.")
        chosen = list(range(0, len(capture), options.every))
    else:
        count = 40 if options.frames is None else options.frames
        if count < 2:
            raise KaleidosceneError(f"--frames must be at least 2, got {count}.")
        chosen = torch.linspace(0, len(capture) - 1, min(count, len(capture))).round().long().tolist()
    note = f"{len(chosen)} of {len(capture)} frames are taken"
    return replace(capture, frames=tuple(capture.frames[n] for n in chosen), notes=(*capture.notes, note))


def _report(options: PoseOptions, result: PoseResult, seconds: float) -> None:
    print(
        f"{result.registered} of {result.images} images have cameras, {result.points} points, mean reprojection error "
        f"{result.reprojection_error:.2f} px, in {seconds:.0f} s."
    )
    if result.others:
        print(f"{result.others} images hang together among themselves alone; pictures between them and the rest help.")
    if result.registered < 0.7 * result.images:
        print(
            "Few images were placed: take pictures with more overlap (half of each in the next), sharp and of a still "
            "scene; try --pose.max-image-size 3200, or --pose.shared-camera False if the zoom changed."
        )
    names = ("images/", "sparse/0/", "transforms.json", "points.ply")
    print("\n".join(f"wrote {options.out / name}" for name in names if (options.out / name).exists()))
