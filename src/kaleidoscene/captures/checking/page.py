"""The cameras of a capture as one HTML file that turns in any browser, without a network."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.pictures import frustum_corners, frustum_size, level_axes, thumbnails
from kaleidoscene.captures.findings import Finding
from kaleidoscene.serialisation import write_aside

_SIDE, _MOST_POINTS = 160, 4000


def write_page(path: Path, capture: Capture, findings: list[Finding], *, numbers: list[int], total: int) -> None:
    """Write the page.

    Args:
        path: Where to.
        capture: With frames that can be drawn alone.
        findings: To be listed.
        numbers: Of these frames in the whole capture.
        total: Frames of the whole capture.
    """
    cameras = capture.cameras
    centre = cameras.centres.median(0).values
    extent = float((cameras.centres - centre).norm(dim=-1).max().clamp_min(1e-9))
    corners = frustum_corners(cameras, frustum_size(cameras.centres, capture.origin()))
    pictures = thumbnails(list(capture.frames), _SIDE)
    frames = [
        {"number": number, "name": frame.name, "at": at, "corners": ends, "picture": _data_uri(picture)}
        for number, frame, picture, at, ends in zip(
            numbers, capture.frames, pictures, cameras.centres.tolist(), corners.tolist(), strict=True
        )
    ]
    document = {
        "name": capture.name, "format": capture.format, "total": total, "frames": frames,
        "findings": [asdict(finding) for finding in findings], "points": _points(capture),
        "centre": centre.tolist(), "extent": extent, "middle": capture.origin().tolist(),
        "axes": _axes(capture.up()),
    }  # fmt: skip
    # Any "<" of a file's name could end the script element or open a comment in it.
    text = json.dumps(document, allow_nan=False).replace("<", "\\u003c")
    template = (Path(__file__).parent / "page.html").read_text()
    write_aside(path, template.replace("__DATA__", text))


def _data_uri(picture: Image.Image | None) -> str | None:
    if picture is None:
        return None
    buffer = io.BytesIO()
    picture.save(buffer, "jpeg", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _points(capture: Capture) -> list[list[float]]:
    if capture.points is None:
        return []
    step = max(1, len(capture.points.positions) // _MOST_POINTS)
    positions = capture.points.positions[::step].float()
    colours = capture.points.colours
    shown = torch.full_like(positions, 150) if colours is None else colours[::step].float()
    return torch.cat([positions, shown], dim=1).tolist()


def _axes(up: torch.Tensor) -> list[list[float]]:
    """Right, forward and up of the first view, in world axes."""
    return torch.stack(level_axes(up)).tolist()
