"""kaleidoscene reconstruct: photographs to cameras, depth maps and a cloud of points."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from kaleidoscene.api import load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.reconstruction.fusion import FusionConfig
from kaleidoscene.workflows.reconstruction import WRITTEN, ReconstructionJob, choose_sources


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions:
    """Photographs of one object to a complete cloud of points (PLY and GLB), cameras (transforms.json), depth maps,
    a turntable video, a contact sheet and a scene file.

    Photographs need no cameras; those that have some fix the world, and say how well cameras were told.
    """

    capture: tyro.conf.Positional[Path]
    """Folder of photographs or of any supported capture format, or a single image."""
    out: Path
    """Folder to write; it appears when everything is written."""
    model: str = "rng"
    """A shipped model that renders points, a checkpoint or run folder, or a hub id."""
    format: str | None = None
    """Read the capture as this format instead of detecting it."""
    references: str | None = None
    """Which images to use, for example 0,8,16 or 0-4; the first one fixes the world."""
    num_references: int = 6
    """How many images are taken, evenly spaced, where none are named."""
    masked: bool = False
    """Lay the capture's masks on white."""
    frames: int = 24
    """Views around the object beside those of the photographs, whose points complete the cloud."""
    fusion: FusionConfig = FusionConfig()
    turntable: int = 72
    """Frames of the video."""
    fps: float = 24.0
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(ReconstructOptions, argv, "reconstruct")
    model = load(options.model, device=options.device, precision=options.precision)
    model.require("renders_points", f"Reconstructing {options.capture.name}")
    capture = read_capture(options.capture, format=options.format)
    chosen, notes = choose_sources(
        capture, options.references, options.num_references, estimates=model.capabilities.estimates_cameras
    )
    print("\n".join(notes))
    started = time.perf_counter()
    done = ReconstructionJob(
        out=options.out, model=model, capture=chosen, masked=options.masked, frames=options.frames,
        fusion=options.fusion, turntable=options.turntable, fps=options.fps, overwrite=options.overwrite,
        sources=(options.capture, Path(options.model)),
    ).run()  # fmt: skip
    seconds = time.perf_counter() - started
    print(f"{done.points} points from {len(chosen)} images in {seconds:.1f} s.")
    if done.poses is not None:
        poses = done.poses
        print(
            f"Cameras told by the model, against those of the capture: RA@5 {poses.ra5:.1f} %, RT@5 {poses.rt5:.1f} %, "
            f"AUC@30 {poses.auc30:.1f} %."
        )
    print("\n".join(f"wrote {options.out / name}" for name in WRITTEN))
    if options.json:
        poses = None if done.poses is None else vars(done.poses)
        print_json({"out": str(options.out), "points": done.points, "seconds": seconds, "poses": poses})
