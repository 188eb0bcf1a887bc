"""Point clouds of captures, as PLY."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.geometry.rays import unproject
from kaleidoscene.serialisation import save_aside

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


def write_ply(path: Path, cloud: PointCloud) -> None:
    """Write a binary PLY with float positions and, where there are some, 8-bit colours."""
    fields = [("x", "<f4"), ("y", "<f4"), ("z", "<f4")]
    header = "".join(f"property float {name}\n" for name in "xyz")
    if cloud.colours is not None:
        fields += [(name, "u1") for name in ("red", "green", "blue")]
        header += "".join(f"property uchar {name}\n" for name in ("red", "green", "blue"))
    rows = np.empty(len(cloud.positions), dtype=fields)
    for axis, name in enumerate("xyz"):
        rows[name] = cloud.positions[:, axis].float().numpy()
    if cloud.colours is not None:
        for axis, name in enumerate(("red", "green", "blue")):
            rows[name] = cloud.colours[:, axis].numpy()
    start = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{header}end_header\n"
    save_aside(path, lambda file: file.write(start.encode() + rows.tobytes()))
