"""Point clouds of captures."""

from __future__ import annotations

import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.geometry.rays import unproject

_POINTS_A_FRAME = 20_000


def point_cloud(capture: Capture) -> PointCloud | None:
    """The capture's own points, else those of its depth maps (evenly chosen pixels), None without either."""
    if capture.points is not None:
        return capture.points
    with_depth = [number for number, frame in enumerate(capture.frames) if frame.depth is not None and frame.is_posed]
    if not with_depth:
        return None
    parts = [_unprojected(capture, number) for number in with_depth]
    return PointCloud(torch.cat([positions for positions, _ in parts]), torch.cat([colours for _, colours in parts]))


def _unprojected(capture: Capture, number: int) -> tuple[Tensor, Tensor]:
    frame = capture.frames[number]
    assert frame.depth is not None
    depth = capture.depths(only=[number])[0]
    image = capture.images(only=[number])[0]
    world = unproject(capture.exact_cameras[number], depth.double())
    known = (depth > 0).flatten().nonzero().flatten()
    chosen = known[:: max(1, len(known) // _POINTS_A_FRAME)]
    colours = (image.movedim(0, -1).reshape(-1, 3)[chosen] * 255).round().to(torch.uint8)
    return world.reshape(-1, 3)[chosen], colours
