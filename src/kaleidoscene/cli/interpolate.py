"""kaleidoscene interpolate: frames between the frames of a film."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.workflows.interpolation import FilmRequest, interpolate


@dataclass(frozen=True, kw_only=True)
class InterpolateOptions:
    """Put frames between the frames of a video, a folder of images or a rendering: frames/ and video.mp4.

    Frames that were made are marked in transforms.json, where the source has cameras, and are never scored.
    """

    source: tyro.conf.Positional[Path]
    """A video, a folder of images, or what 'render' wrote."""
    out: Path
    """Folder to write; it appears when everything is written."""
    doublings: int = 1
    """How many times the frames are doubled: 1, 3, 7 ... frames between two for 1, 2, 3 ..."""
    rate: float | None = None
    """Frames a second of the new film, in place of --doublings; other times than halves are not the paper's."""
    source_rate: float | None = None
    """Frames a second of images in a folder; by default that of a rendering, or 12."""
    model: str = "film"
    """'film', a checkpoint or run folder, or a hub id."""
    find_cuts: bool = True
    """Put nothing over the cuts of a video; the last frame stays instead."""
    device: str = "cpu"
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(InterpolateOptions, argv, "interpolate")
    started = time.perf_counter()
    done = interpolate(FilmRequest(
        source=options.source, out=options.out, doublings=options.doublings, rate=options.rate,
        source_rate=options.source_rate, model=options.model, find_cuts=options.find_cuts, device=options.device,
        overwrite=options.overwrite,
    ))  # fmt: skip
    seconds = time.perf_counter() - started
    print(f"{done.frames} frames at {done.rate:.4g} a second, {done.made} of them made, in {seconds:.1f} s.")
    if done.cuts:
        print(f"{done.cuts} cuts were found; nothing was put over them.")
    print(f"wrote {options.out / 'video.mp4'}")
    if options.json:
        print_json({"out": str(options.out), "frames": done.frames, "made": done.made, "seconds": seconds})
