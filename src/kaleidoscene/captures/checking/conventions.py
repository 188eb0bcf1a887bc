"""Whether poses are what they are said to be: camera-to-world, OpenCV axes after reading.

Every convention that users mix up is tried on the same cameras, and the evidence of the capture decides: details that
its pictures share, else its points, else whether its cameras look at one place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.matching import agreement, corners, match
from kaleidoscene.captures.checking.pictures import thumbnails
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.frame_files import frame_size
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point
from kaleidoscene.geometry.poses import invert, rotation_angle
from kaleidoscene.geometry.rays import project
from kaleidoscene.images.undistortion import pinhole_of, undistort_image

_OTHER_AXES = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0], dtype=torch.float64))
_PAIRS, _SIDE = 40, 360  # pictures that are compared, and how large


Match = tuple[list[int], Tensor, Tensor]
"""Two frames, and where both show the same details, in pixels of each."""


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
    evidence = Evidence.of(capture, cameras)
    yield from judge(evidence, cameras)
    yield from _strangers(evidence, cameras)


@dataclass(frozen=True)
class Evidence:
    """What speaks for or against some cameras.

    Attributes:
        name: For users.
        share: How much of it agrees with cameras, 0 to 1.
    """

    name: str
    share: Callable[[Cameras], float]
    least: float = 0.5
    """Share that has to agree with another convention before it is an error; above 1 it never is."""
    matches: tuple[Match, ...] = ()

    @classmethod
    def of(cls, capture: Capture, cameras: Cameras) -> Evidence:
        """The strongest evidence that a capture has; it is the same in whatever convention ``cameras`` are."""
        matches = _shared_points(capture, cameras)
        if sum(len(first) for _, first, _ in matches) >= 60:
            name = "details that neighbouring pictures share"
            return cls(name, lambda tried: _agreeing(tried, matches), matches=tuple(matches))
        if capture.points is not None and len(capture.points.positions) >= 20:
            positions = capture.points.positions.double()
            chosen = positions[:: max(1, len(positions) // 2000)].expand(len(cameras), -1, -1)
            return cls("points of the scene that a camera sees", lambda tried: _seen(tried, chosen), least=0.15)
        # Cameras may look outward on purpose, so that this evidence alone convicts nobody.
        return cls("cameras that see the point all look at", _centre, least=1.1)


def judge(evidence: Evidence, cameras: Cameras) -> Iterator[Finding]:
    """Compare the cameras as given with every convention they could be mistaken for."""
    given = evidence.share(cameras)
    others = {
        convention: evidence.share(replace(cameras, world_from_cam=convention.corrected(cameras.world_from_cam)))
        for convention in CONVENTIONS
    }
    best = max(others, key=lambda convention: others[convention])
    if given < 0.8 * others[best] and others[best] > evidence.least:
        agree = f"{100 * given:.0f} % of them agree as given, {100 * others[best]:.0f} % so"
        yield Finding(
            "error", f"convention-{best.kind}", None, f"{best.text} (evidence: {evidence.name}; {agree})",
            "views are rendered from wrong places", best.remedy,
        )  # fmt: skip
    elif max(given, others[best]) < 0.15 and evidence.least < 1:
        share = f"{100 * given:.0f} % as given"
        yield Finding(
            "warning", "convention-unsure", None, f"the {evidence.name} agree with no convention ({share})",
            "the poses may be wrong in a way that is not known here", "look at the picture of the cameras",
        )  # fmt: skip


def _strangers(evidence: Evidence, cameras: Cameras) -> Iterator[Finding]:
    """Frames whose own matches speak against their poses, while those of most others do not."""
    if not evidence.matches or evidence.share(cameras) < 0.3:
        return
    best: dict[int, float] = {}
    for pair, first, second in evidence.matches:
        if len(first) < 20:
            continue
        share = _agreeing(cameras, [(pair, first, second)])
        for number in pair:
            best[number] = max(best.get(number, 0.0), share)
    for number, share in sorted(best.items()):
        if share < 0.25:
            yield Finding(
                "warning", "pose-disagrees", number,
                f"{100 * share:.0f} % of the details that it shares with its neighbour agree with its pose",
                "what it shows is put in the wrong place", "check its pose and whether it is its picture",
            )  # fmt: skip


def _seen(cameras: Cameras, points: Tensor) -> float:
    pixels, depth = project(cameras, points)
    h, w = cameras.image_size
    inside = (pixels >= 0).all(-1) & (pixels[..., 0] < w) & (pixels[..., 1] < h) & (depth > 0)
    return float(inside.double().mean())


def _centre(cameras: Cameras) -> float:
    try:
        return _seen(cameras, focus_point(cameras).expand(len(cameras), 1, 3))
    except KaleidosceneError:
        return 0.0


def _agreeing(cameras: Cameras, matches: list[Match]) -> float:
    tolerance = 0.01 * max(cameras.image_size)
    agree = [agreement(cameras[pair], first, second, tolerance) for pair, first, second in matches]
    return float(torch.cat(agree).double().mean())


def _shared_points(capture: Capture, cameras: Cameras) -> list[Match]:
    """Matches between some pictures and those that look most alike in direction, in pixels of ``cameras``."""
    starts = torch.linspace(0, len(cameras) - 1, min(_PAIRS, len(cameras))).round().long().unique().tolist()
    rotations = cameras.world_from_cam[:, :3, :3]
    pairs: list[list[int]] = []
    for start in starts:
        # The angle between two views is the same in every convention that is tried.
        apart = rotation_angle(rotations[start].expand_as(rotations), rotations)
        apart[start] = torch.inf
        pair = [start, int(apart.argmin())]
        pairs.append(pair)
    wanted = sorted({number for pair in pairs for number in pair})
    pictures = thumbnails([capture.frames[number] for number in wanted], _SIDE)
    described = {n: _described(capture, n, picture) for n, picture in zip(wanted, pictures, strict=True)}
    found = []
    for pair in pairs:
        one, other = described[pair[0]], described[pair[1]]
        if one is None or other is None:
            continue  # an image that cannot be read has its own finding
        first, second = match(one, other)
        if len(first) >= 8:
            found.append((pair, first, second))
    return found


def _described(capture: Capture, number: int, picture: Image.Image | None) -> tuple[Tensor, Tensor] | None:
    """Corners of a small version of a frame, in pixels of ``capture.cameras``, with their descriptors."""
    frame = capture.frames[number]
    if picture is None or frame.intrinsics is None:
        return None
    size, (small_h, small_w) = frame_size(frame), (picture.height, picture.width)
    image = torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255
    scale = torch.tensor([small_w / size[1], small_h / size[0], 1.0], dtype=torch.float64)
    pinhole = pinhole_of(frame.intrinsics, frame.distortion, size)
    image = undistort_image(image, scale[:, None] * frame.intrinsics, frame.distortion, scale[:, None] * pinhole)
    places, descriptors = corners(image)
    seen = capture.framing(frame).matrix
    return places.double() / scale[:2] * seen.diagonal()[:2] + seen[:2, 2], descriptors
