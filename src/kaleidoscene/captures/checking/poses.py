"""Faults of poses that are rigid: cameras on one spot, far away, or all in another convention."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.geometry.cameras import Cameras

_FAR = 8.0  # times the median distance from the middle


def pose_findings(capture: Capture, cameras: Cameras) -> Iterator[Finding]:
    """What places and directions of all cameras show.

    Args:
        capture: For the names of its frames.
        cameras: Of all its frames, double precision.
    """
    if len(cameras) < 2:
        return
    yield from _identical(capture, cameras)
    yield from _far_away(cameras.centres)
    yield from _jumps(capture, cameras)


def _identical(capture: Capture, cameras: Cameras) -> Iterator[Finding]:
    extent = float((cameras.centres - cameras.centres.median(0).values).norm(dim=-1).median())
    seen: dict[tuple[float, ...], int] = {}
    for number, pose in enumerate(cameras.world_from_cam):
        unit = max(extent, 1e-9)
        key = tuple((torch.cat([pose[:3, :3].flatten(), pose[:3, 3] / unit]) * 1e5).round().tolist())
        if key in seen:
            yield Finding(
                "warning", "identical-cameras", number, f"its camera is that of frame {seen[key]}",
                "two pictures are said to be seen from one place",
                "export the cameras again, or leave one out if the picture is the same",
            )  # fmt: skip
        seen.setdefault(key, number)
    if extent < 1e-9 and len(capture) > 2:
        turned = (cameras.directions - cameras.directions[0]).norm(dim=-1).max() > 1e-3
        yield Finding(
            "warning" if turned else "error", "one-place", None, "all cameras are at one place",
            "there is no scale and no parallax",
            "fine if the camera only turned; else check whether the positions were lost",
        )  # fmt: skip


def _far_away(centres: Float[Tensor, "views 3"]) -> Iterator[Finding]:
    if len(centres) < 5:
        return
    distance = (centres - centres.median(0).values).norm(dim=-1)
    usual = float(distance.median())
    for number, value in enumerate(distance.tolist()):
        if usual > 1e-9 and value > _FAR * usual:
            yield Finding(
                "error" if value > 5 * _FAR * usual else "warning", "far-camera", number,
                f"its camera is {value / usual:.0f} times as far from the others as these are from each other",
                "the scale of the whole scene is taken from the farthest camera, so everything else becomes tiny",
                "check its position and unit, or leave the frame out",
            )  # fmt: skip


def _jumps(capture: Capture, cameras: Cameras) -> Iterator[Finding]:
    """A frame that leaves the path of a video for one frame."""
    if len(cameras) < 8 or capture.frames[0].time is None:
        return
    steps = (cameras.centres[1:] - cameras.centres[:-1]).norm(dim=-1)
    usual = float(steps.median())
    far = (steps > 10 * max(usual, 1e-9)).nonzero().flatten().tolist()
    for before, after in pairwise(far):
        if after == before + 1:
            yield Finding(
                "warning", "jump", after, "its camera leaves the path and comes back",
                "the frame does not fit the others", "leave the frame out",
            )  # fmt: skip
