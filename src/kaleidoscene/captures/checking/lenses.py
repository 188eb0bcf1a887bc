"""Faults of intrinsics that are possible but implausible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.frames import Frame
from kaleidoscene.captures.framing import common_size, framing
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import intrinsics_fault
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.images.undistortion import pinhole_of

_POSSIBLE, _USUAL = (3.0, 170.0), (10.0, 130.0)  # angles of view of the longer side, degrees
_OFF_CENTRE = 0.2  # of the side
_LEAST_KEPT = 0.5  # of an image, by the crop to common sides
_MOST_ZOOM = 1.6  # of the pinhole that fits into a distorted image


def lens_findings(capture: Capture) -> Iterator[Finding]:
    """Everything that the intrinsics of all frames show."""
    sound = [
        (number, frame)
        for number, frame in enumerate(capture.frames)
        if frame.intrinsics is not None and frame.image_size is not None and not intrinsics_fault(frame.intrinsics)
    ]
    for number, frame in sound:
        yield from _one(number, frame)
    yield from _sizes(capture)
    relative = {number: _focal(frame) for number, frame in sound}
    if len(relative) >= 4:
        middle = median(relative.values())
        for number, focal in relative.items():
            if not 0.5 < focal / middle < 2:
                yield Finding(
                    "warning", "focal-outlier", number,
                    f"its focal length of {focal:.2f} image sides is {focal / middle:.2g} times that of the others",
                    "the frame shows another scale than the others",
                    "check the focal length, or the size it belongs to",
                )  # fmt: skip


def _sizes(capture: Capture) -> Iterator[Finding]:
    """Frames that lose much where sizes differ: those of a like resolution are cropped to one height and width."""
    known = {n: frame.image_size for n, frame in enumerate(capture.frames) if frame.image_size is not None}
    if len(set(known.values())) < 2:
        return
    every = tuple(set(known.values()))
    sizes, (h, w) = {n: framing(size, every).reduced for n, size in known.items()}, common_size(every)
    kept = {number: h * w / (size[0] * size[1]) for number, size in sizes.items()}
    number = min(kept, key=lambda n: kept[n])
    if kept[number] < _LEAST_KEPT:
        yield Finding(
            "warning", "sizes", number,
            f"frames of several sizes are cropped to {h}x{w}, which leaves {100 * kept[number]:.0f} % of this one",
            "most of what it shows is not used", "leave images of another shape out, or bring all to one",
        )  # fmt: skip


def _focal(frame: Frame) -> float:
    assert frame.intrinsics is not None and frame.image_size is not None
    return float(frame.intrinsics[0, 0]) / max(frame.image_size)


def _one(number: int, frame: Frame) -> Iterator[Finding]:
    assert frame.intrinsics is not None and frame.image_size is not None
    (h, w), k = frame.image_size, frame.intrinsics
    fx, fy, cx, cy = float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])
    angle = math.degrees(max(field_of_view(fx, w), field_of_view(fy, h)))
    if not _USUAL[0] < angle < _USUAL[1] and not (frame.distortion.kind == "fisheye" and angle > 90):
        possible = _POSSIBLE[0] < angle < _POSSIBLE[1]
        yield Finding(
            "warning" if possible else "error", "focal-range", number,
            f"a focal length of {fx:.4g} pixels for an image of {h}x{w}: {angle:.1f} degrees",
            "rays point in wrong directions if that is not so",
            "give the focal length in pixels of this image, not in millimetres or of another size",
        )  # fmt: skip
    inside = 0 < cx < w and 0 < cy < h  # else the verification has said so
    if inside and (abs(cx / w - 0.5) > _OFF_CENTRE or abs(cy / h - 0.5) > _OFF_CENTRE):
        yield Finding(
            "warning", "principal-off", number,
            f"the principal point ({cx:.0f}, {cy:.0f}) is far from the middle of {h}x{w}",
            "rays are shifted if the image was not cropped so",
            "check whether cx and cy are exchanged, or belong to another size",
        )  # fmt: skip
    if not 0.9 < fx / fy < 1.1:
        yield Finding(
            "warning", "oblong-pixels", number, f"fl_x and fl_y differ by a factor of {fx / fy:.2f}",
            "images are stretched if pixels are square", "check whether the images were resized in one direction alone",
        )  # fmt: skip
    try:
        zoom = float(pinhole_of(k, frame.distortion, frame.image_size)[0, 0]) / fx
        if zoom > _MOST_ZOOM:
            yield Finding(
                "error", "distortion", number,
                f"undistorting leaves {100 / zoom**2:.0f} % of the image, so strong are the coefficients",
                "most of the frame is lost, or bent the wrong way",
                "check the order of the coefficients: k1, k2, p1, p2",
            )  # fmt: skip
    except KaleidosceneError as error:
        yield Finding(
            "error", "distortion", number, str(error).rstrip("."), "the frame cannot be undistorted",
            "check the order of the coefficients: k1, k2, p1, p2",
        )  # fmt: skip
