"""Whether poses are what they are said to be: camera-to-world, OpenCV axes after reading.

Every convention that users mix up is tried on the same cameras, and the evidence of the capture decides: details that
its pictures share, else its points, else whether its cameras look at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from anyview.data.captures import Capture
from anyview.data.checking.matching import agreement, corners, match
from anyview.data.findings import Finding
from anyview.data.images import resize_image
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras
from anyview.geometry.normalisation import focus_point
from anyview.geometry.poses import invert, rotation_angle
from anyview.geometry.rays import project

_OTHER_AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_PAIRS, _WIDTH = 12, 320  # pictures that are compared, and how wide


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
    if len(cameras) < 3:
        return
    name, score = _evidence(capture, cameras)
    given = score(cameras)
    others = {
        convention: score(replace(cameras, world_from_cam=convention.corrected(cameras.world_from_cam)))
        for convention in CONVENTIONS
    }
    best = max(others, key=lambda convention: others[convention])
    if given < 0.5 * others[best] and others[best] > 0.15:
        agree = f"{100 * given:.0f} % of them agree as given, {100 * others[best]:.0f} % so"
        yield Finding(
            "error", f"convention-{best.kind}", None, f"{best.text} (evidence: {name}; {agree})",
            "views are rendered from wrong places", best.remedy,
        )  # fmt: skip
    elif max(given, others[best]) < 0.15:
        yield Finding(
            "warning", "convention-unsure", None, f"the {name} agree with no convention ({100 * given:.0f} % as given)",
            "the poses may be wrong in a way that is not known here", "look at the picture of the cameras",
        )  # fmt: skip


Score = Callable[[Cameras], float]


def _evidence(capture: Capture, cameras: Cameras) -> tuple[str, Score]:
    """The strongest evidence that a capture has, and the share of it that agrees with some cameras."""
    matches = _shared_points(capture, cameras)
    if sum(len(first) for _, first, _ in matches) >= 60:
        return "details that neighbouring pictures share", lambda tried: _agreeing(tried, matches)
    if capture.points is not None and len(capture.points.positions) >= 20:
        positions = capture.points.positions.double()
        chosen = positions[:: max(1, len(positions) // 2000)].expand(len(cameras), -1, -1)
        return "points of the scene that a camera sees", lambda tried: _seen(tried, chosen)
    return "cameras that see the point all look at", _centre


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
    h, w = cameras.image_size
    size = (max(32, round(h * _WIDTH / max(h, w))), max(32, round(w * _WIDTH / max(h, w))))
    scale = torch.tensor([w / size[1], h / size[0]])
    rotations = cameras.world_from_cam[:, :3, :3]
    found = []
    for start in starts:
        # The angle between two views is the same in every convention that is tried.
        apart = rotation_angle(rotations[start].expand_as(rotations), rotations)
        apart[start] = torch.inf
        moved = (cameras.centres - cameras.centres[start]).norm(dim=-1) > 1e-6
        apart[~moved] = torch.inf
        pair = [start, int(apart.argmin())]
        try:
            images = resize_image(capture.images(only=pair), size)
        except AnyViewError:
            continue  # an image that cannot be read has its own finding
        first, second = match(corners(images[0]), corners(images[1]))
        if len(first) >= 8:
            found.append((pair, first * scale, second * scale))
    return found
