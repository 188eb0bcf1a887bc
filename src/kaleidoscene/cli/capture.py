"""kaleidoscene capture: ordinary photographs to a capture that renders."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from kaleidoscene.captures.posing import PoseConfig
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.reconstruction.cutting import CutOutConfig
from kaleidoscene.workflows.capturing import PAGE, CapturingJob
from kaleidoscene.workflows.unposed import Place


@dataclass(frozen=True, kw_only=True)
class CaptureOptions:
    """Photographs, an archive of them, a film or one picture to a capture with cameras, checked; 'render' takes it."""

    source: tyro.conf.Positional[Path]
    """Folder of photographs (JPEG, PNG, TIFF, WebP, HEIC, AVIF), .zip of them or of a phone app's scan (.r3d as well),
    video file, or one picture."""
    out: Path
    """Folder for the capture, and capture.html, which tells what was done."""
    frames: int = 40
    """Of a film: how many are taken, the sharpest of each part."""
    panoramas: bool = False
    """Cut all images that are twice as wide as high into pictures of pinholes, not only those whose metadata call them
    panoramas."""
    pose: PoseConfig = field(default_factory=PoseConfig)
    pose_model: str | None = None
    """A model that tells cameras of one object before white ('rng', whose weights tell them badly as yet) in place of
    structure from motion, for few pictures or such without texture."""
    distance: float | None = None
    """Of the camera of a single picture from the middle of the object, in lengths of the object's longest side (1.85
    where nobody says so)."""
    elevation: float | None = None
    """Of the camera of a single picture above the object's middle, degrees (20 where nobody says so)."""
    cut_out: bool = False
    """Cut out the object that all cameras look at: masks/, and cut_out.png to look at them; of a capture that has
    cameras already, too. Masks and alpha that are there are kept."""
    cut: CutOutConfig = field(default_factory=CutOutConfig)
    masks: Path | None = None
    """Folder of masks made by others, by the names of the images, in place of --cut-out."""
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: bool = False
    """Print one line of JSON at the end."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(CaptureOptions, argv, "capture")
    place = Place.of(options.distance, options.elevation)
    if not options.cut_out and options.cut != CutOutConfig():
        raise KaleidosceneError("--cut.* says how objects are cut out, which --cut-out asks for.")
    started = time.perf_counter()
    done = CapturingJob(
        source=options.source, out=options.out, frames=options.frames, pose=options.pose, place=place,
        pose_model=options.pose_model, cut=options.cut if options.cut_out else None,
        masks=options.masks, panoramas=options.panoramas, overwrite=options.overwrite,
    ).run(lambda stage: print(f"{stage} ...", flush=True))  # fmt: skip
    seconds = time.perf_counter() - started
    counts = {kind: sum(f.severity == kind for f in done.findings) for kind in ("error", "warning")}
    print("\n".join([*done.steps, *(f"better: {sentence}" for sentence in done.advice)]))
    print(f"{done.posed} of {done.images} images have cameras; {counts['error']} errors, {counts['warning']} warnings.")
    masked = " --masked" if done.masked else ""
    masked += "" if done.moves else " --camera-path PATH.json --model places"
    print(f"wrote {options.out / PAGE}\nnext: kaleidoscene render {options.out}{masked} --out OUT")
    if options.json:
        print_json({"out": str(options.out), "images": done.images, "posed": done.posed, **counts, "seconds": seconds})
