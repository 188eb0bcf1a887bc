"""What checking leaves on disk."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.page import write_page
from kaleidoscene.captures.checking.pictures import write_frusta_picture
from kaleidoscene.captures.checking.run import sound_frames
from kaleidoscene.captures.findings import Finding
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import write_json


def write_findings(folder: Path, capture: Capture | None, findings: list[Finding]) -> list[str]:
    """Write ``check.json``, and where there are cameras ``frusta.png`` and ``frusta.html``; returns their names.

    Args:
        folder: Where to.
        capture: That was checked; None of one that does not read.
        findings: All of it.
    """
    document = {
        "version": 1,
        "format": capture and capture.format,
        "frames": capture and len(capture),
        "findings": [asdict(finding) for finding in findings],
    }
    write_json(folder / "check.json", document)
    names = ["check.json"]
    numbers = [] if capture is None else sound_frames(capture, findings)
    if capture is not None and numbers:
        drawn = replace(capture, frames=tuple(capture.frames[number] for number in numbers))
        try:
            write_frusta_picture(folder / "frusta.png", drawn, numbers=numbers)
            write_page(folder / "frusta.html", drawn, findings, numbers=numbers, total=len(capture))
            names = ["frusta.png", "frusta.html", *names]
        except KaleidosceneError as error:
            print(f"no picture of the cameras: {error}")
    return names
