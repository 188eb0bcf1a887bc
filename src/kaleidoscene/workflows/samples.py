"""Several drawn answers to one request: a rendering each, and all of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import FRUSTA
from kaleidoscene.images.files import read_image
from kaleidoscene.rendering.outputs import SheetRow, frame_name, write_contact_sheet, write_grid_video
from kaleidoscene.workflows.rendering import WRITTEN, Rendered, RenderingJob

SHEET, GRID = "contact_sheet.png", "samples.mp4"
_OWN = {SHEET, GRID, FRUSTA, f"{SHEET}.partial", f"partial-{GRID}"}
_MOST = 1000
_SHEET_FRAMES = 12


def sample_name(number: int) -> str:
    """Folder of a sample, counted from 1."""
    return f"sample-{number:02d}"


def check_samples(count: int, out: Path, *, overwrite: bool) -> None:
    """Raise unless so many samples can be written into a folder, which has nothing but samples.

    Raises:
        KaleidosceneError: With what is wrong.
    """
    if not 1 <= count <= _MOST:
        raise KaleidosceneError(f"--samples must be from 1 to {_MOST}, got {count}.")
    if out.exists() and not out.is_dir():
        raise KaleidosceneError(f"{out}: the output folder is a file.")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    others = sorted(name for name in names - _OWN if not name.lstrip(".").startswith("sample-"))
    if others and not overwrite:
        raise KaleidosceneError(f"{out}: the folder has more than samples ({others[0]}); give another.")


def check_drawn(job: RenderingJob) -> None:
    """Raise unless answers to a request may differ.

    Raises:
        KaleidosceneError: With what the model does instead.
    """
    references = len(job.request.references)
    if job.model.route(references) == "decode":
        raise KaleidosceneError(
            f"--samples: {job.model.system.family} decodes {references} references, and every answer would be the "
            "same; give fewer references, or --steps, to draw scenes."
        )


def render_samples(job: RenderingJob, count: int) -> list[Rendered]:
    """Render a request so many times, each time with the next seed; what is there is not rendered again.

    Raises:
        KaleidosceneError: All answers would be alike, or one cannot be rendered; those before it are kept.
    """
    check_drawn(job)
    references = job.request.references
    done = [
        replace(job, out=job.out / sample_name(number + 1), seed=job.seed + number).run() for number in range(count)
    ]
    seen = list(job.model.prepare(references, masked=job.request.masked)[0])
    frames = len(job.request.cameras)
    write_side_by_side(job.out, count, frames, fps=job.fps, above=[SheetRow("references", seen)])
    return done


def describe(job: RenderingJob, done: Sequence[Rendered], seconds: float) -> tuple[list[str], dict[str, Any]]:
    """What came of a request, as lines for users and as values for machines.

    Args:
        job: The request.
        done: One answer, or several samples.
        seconds: It took.
    """
    count, (h, w) = len(job.request.cameras), job.model.image_size
    if not any(one.is_new for one in done):
        return [f"{job.out}: all {count} views are there already, nothing is rendered again."], {"seconds": 0.0}
    made = count * sum(one.is_new for one in done)
    lines = [f"{made} views of {h}x{w} in {seconds:.1f} s."]
    for number, one in enumerate(done):
        if one.mean is not None:
            said = f"PSNR against the {len(job.request.scored)} real views: {one.mean:.2f} dB."
            lines.append(said if len(done) == 1 else f"sample {number + 1}: {said}")
    if len(done) == 1:
        lines += [f"wrote {job.out / name}" for name in ((*WRITTEN, "depth/") if job.depth else WRITTEN)]
        return lines, {"seconds": seconds, "psnr": done[0].mean, "psnr_each": done[0].scores}
    lines += [f"wrote {job.out / name}" for name in ("sample-*/", GRID, SHEET)]
    return lines, {"seconds": seconds, "samples": len(done), "psnr_samples": [one.mean for one in done]}


def write_side_by_side(out: Path, samples: int, frames: int, *, fps: float, above: Sequence[SheetRow] = ()) -> None:
    """Write ``OUT/contact_sheet.png``, a row for each sample, and ``OUT/samples.mp4``, all of them in a grid.

    Args:
        out: Folder of the samples.
        samples: How many there are.
        frames: Of each.
        fps: Of the video.
        above: Rows that stand above the samples.
    """
    films = [[out / sample_name(number + 1) / frame_name(i) for i in range(frames)] for number in range(samples)]
    shown = range(0, frames, -(-frames // _SHEET_FRAMES))
    rows = [
        SheetRow(f"sample {number + 1}", [read_image(film[i])[0] for i in shown]) for number, film in enumerate(films)
    ]
    write_contact_sheet(out / SHEET, [*above, *rows])
    write_grid_video(out / GRID, films, fps=fps)
