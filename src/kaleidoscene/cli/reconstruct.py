"""kaleidoscene reconstruct: photographs to cameras, depth maps and a cloud of points, or to a mesh."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass

from kaleidoscene.cli.common import check_rate, check_seed, parse, print_json
from kaleidoscene.workflows.reconstruction_request import ReconstructionRequest, job_of


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(ReconstructionRequest):
    """Photographs of one object to a cloud of points, cameras and depth maps, or to a mesh with a texture.

    A model that renders points gives a complete cloud (PLY and GLB), splats, cameras (transforms.json), depth maps, a
    turntable video, a contact sheet and a scene file. One of images alone gives a mesh with a texture, and a capture
    with depth maps a mesh. Photographs need no cameras; those that have some fix the world, and say how well cameras
    were told.
    """

    json: bool = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(ReconstructOptions, argv, "reconstruct")
    check_seed(options.seed)
    check_rate(options.fps)
    job, notes = job_of(options)
    if notes:
        print("\n".join(notes))
    started = time.perf_counter()
    made = job.run()
    seconds = time.perf_counter() - started
    print("\n".join([*made.describe(seconds), *(f"wrote {options.out / name}" for name in job.files)]))
    if options.json:
        print_json({"out": str(options.out), "seconds": seconds, **dataclasses.asdict(made)})
