"""Whether poses are what they are said to be: camera-to-world, OpenCV axes after reading.

Every convention that users mix up is tried on the same cameras, and the evidence of the capture decides: details that
its pictures share, else its points, else whether its cameras look at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anyview.data.captures import Capture
from anyview.data.checking.matching import agreement, corners, match
from anyview.data.checking.pictures import thumbnail
from anyview.data.findings import Finding
from anyview.data.frames import frame_size
from anyview.data.undistortion import pinhole_of, undistort_image
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras
from anyview.geometry.normalisation import focus_point
from anyview.geometry.poses import invert, rotation_angle
from anyview.geometry.rays import project

_OTHER_AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_PAIRS, _SIDE = 12, 360  # pictures that are compared, and how large


@dataclass(frozen=True)
class _Convention:
    kind: str
    text: str
    remedy: str
    corrected: Callable[[Tensor], Tensor]
    """From the poses as given to what they would be if this were the fault."""


CONVENTIONS = (
    _Convention(
        "inverse", "the poses are camera-from-world (extrinsics), given as world-from-camera",
        "invert every matrix of the file", invert,
    ),
    _Convention(
        "axes", "the cameras look backwards: OpenGL axes are given as OpenCV axes, or the other way round",
        "negate the second and third column of every world-from-camera matrix", lambda poses: poses @ _OTHER_AXES,
    ),
    _Convention(
        "inverse-axes", "the poses are camera-from-world (extrinsics) of the other axes, given as world-from-camera",
        "invert every matrix of the file, then check again", lambda poses: invert(poses) @ _OTHER_AXES,
    ),
)  # fmt: skip
"""What users mix up. Changes of the world's axes are none: they leave the cameras' places to each other as they are."""


def convention_findings(capture: Capture, cameras: Cameras) -> Iterator[Finding]:
    """The convention that the capture's evidence speaks for, if it is another one than is given.

    Args:
        capture: Its images are read for some pairs of neighbours.
        cameras: Of all its frames, double precision.
    """
    if len(cameras) >= 3:
        yield from judge(Evidence.of(capture, cameras), cameras)


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against some cameras.

    Attributes:
        name: For users.
        share: How much of it agrees with cameras, 0 to 1.
    """

    name: str
    share: Callable[[Cameras], float]

    @classmethod
    def of(cls, capture: Capture, cameras: Cameras) -> Evidence:
        """The strongest evidence that a capture has; it is the same in whatever convention ``cameras`` are."""
        matches = _shared_points(capture, cameras)
        if sum(len(first) for _, first, _ in matches) >= 60:
            return cls("details that neighbouring pictures share", lambda tried: _agreeing(tried, matches))
        if capture.points is not None and len(capture.points.positions) >= 20:
            positions = capture.points.positions.double()
            chosen = positions[:: max(1, len(positions) // 2000)].expand(len(cameras), -1, -1)
            return cls("points of the scene that a camera sees", lambda tried: _seen(tried, chosen))
        return cls("cameras that see the point all look at", _centre)


def judge(evidence: Evidence, cameras: Cameras) -> Iterator[Finding]:
    """Compare the cameras as given with every convention they could be mistaken for."""
    given = evidence.share(cameras)
    others = {
        convention: evidence.share(replace(cameras, world_from_cam=convention.corrected(cameras.world_from_cam)))
        for convention in CONVENTIONS
    }
    best = max(others, key=lambda convention: others[convention])
    if given < 0.8 * others[best] and others[best] > 0.15:
        agree = f"{100 * given:.0f} % of them agree as given, {100 * others[best]:.0f} % so"
        yield Finding(
            "error", f"convention-{best.kind}", None, f"{best.text} (evidence: {evidence.name}; {agree})",
            "views are rendered from wrong places", best.remedy,
        )  # fmt: skip
    elif max(given, others[best]) < 0.15:
        share = f"{100 * given:.0f} % as given"
        yield Finding(
            "warning", "convention-unsure", None, f"the {evidence.name} agree with no convention ({share})",
            "the poses may be wrong in a way that is not known here", "look at the picture of the cameras",
        )  # fmt: skip


def _seen(cameras: Cameras, points: Tensor) -> float:
    pixels, depth = project(cameras, points)
    h, w = cameras.image_size
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < w) & (pixels[..., 1] < h) & (depth > 0)
    return float(inside.double().mean())


def _centre(cameras: Cameras) -> float:
    try:
        return _seen(cameras, focus_point(cameras).expand(len(cameras), 1, 3))
    except AnyViewError:
        return 0.0


def _agreeing(cameras: Cameras, matches: list[tuple[list[int], Tensor, Tensor]]) -> float:
    tolerance = 0.01 * max(cameras.image_size)
    agree = [agreement(cameras[pair], first, second, tolerance) for pair, first, second in matches]
    return float(torch.cat(agree).double().mean())


def _shared_points(capture: Capture, cameras: Cameras) -> list[tuple[list[int], Tensor, Tensor]]:
    """Matches between some pictures and those that look most alike in direction, in pixels of ``cameras``."""
    starts = torch.linspace(0, len(cameras) - 1, min(_PAIRS, len(cameras))).round().long().unique().tolist()
    rotations = cameras.world_from_cam[:, :3, :3]
    found = []
    for start in starts:
        # The angle between two views is the same in every convention that is tried.
        apart = rotation_angle(rotations[start].expand_as(rotations), rotations)
        moved = (cameras.centres - cameras.centres[start]).norm(dim=-1) > 1e-6
        apart[~moved] = torch.inf
        pair = [start, int(apart.argmin())]
        described = [_described(capture, number) for number in pair]
        if described[0] is None or described[1] is None:
            continue  # an image that cannot be read has its own finding
        first, second = match(described[0], described[1])
        if len(first) >= 8:
            found.append((pair, first, second))
    return found


def _described(capture: Capture, number: int) -> tuple[Tensor, Tensor] | None:
    """Corners of a small version of a frame, in pixels of ``capture.cameras``, with their descriptors."""
    frame = capture.frames[number]
    picture = thumbnail(frame, _SIDE)
    if picture is None or frame.intrinsics is None:
        return None
    size, (small_h, small_w) = frame_size(frame), (picture.height, picture.width)
    image = torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255
    scale = torch.tensor([small_w / size[1], small_h / size[0], 1.0], dtype=torch.float64)
    pinhole = pinhole_of(frame.intrinsics, frame.distortion, size)
    image = undistort_image(image, scale[:, None] * frame.intrinsics, frame.distortion, scale[:, None] * pinhole)
    places, descriptors = corners(image)
    return places.double() / scale[:2] - torch.tensor(capture.crop_offset(frame)[::-1]), descriptors
