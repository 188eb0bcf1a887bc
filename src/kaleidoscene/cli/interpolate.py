"""kaleidoscene interpolate: frames between the frames of a film."""

from __future__ import annotations

import time
from dataclasses import dataclass

from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.workflows.interpolation import FilmRequest, interpolate


@dataclass(frozen=True, kw_only=True)
class InterpolateOptions(FilmRequest):
    """Put frames between the frames of a video, a folder of images or a rendering: frames/ and video.mp4.

    Frames that were made are marked in transforms.json, where the source has cameras, and are never scored.
    """

    json: bool = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(InterpolateOptions, argv, "interpolate")
    started = time.perf_counter()
    done = interpolate(options)
    seconds = time.perf_counter() - started
    print(f"{done.frames} frames at {done.rate:.4g} a second, {done.made} of them made, in {seconds:.1f} s.")
    if done.cuts:
        print(f"{done.cuts} cuts were found; nothing was put over them.")
    print(f"wrote {options.out / 'video.mp4'}")
    if options.json:
        print_json({"out": str(options.out), "frames": done.frames, "made": done.made, "seconds": seconds})
