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
    """Write a binary PLY with float positions and, where there are some, normals, 8-bit colours and confidence."""
    columns: dict[str, Tensor] = dict(zip("xyz", cloud.positions.float().T, strict=True))
    if cloud.normals is not None:
        columns |= zip(("nx", "ny", "nz"), cloud.normals.float().T, strict=True)
    if cloud.colours is not None:
        columns |= zip(("red", "green", "blue"), cloud.colours.T, strict=True)
    if cloud.confidence is not None:
        columns["confidence"] = cloud.confidence.float()
    kinds = {name: ("uchar", "u1") if x.dtype == torch.uint8 else ("float", "<f4") for name, x in columns.items()}
    rows = np.empty(len(cloud), dtype=[(name, kind) for name, (_, kind) in kinds.items()])
    for name, column in columns.items():
        rows[name] = column.numpy()
    properties = "".join(f"property {word} {name}\n" for name, (word, _) in kinds.items())
    start = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(rows)}\n{properties}end_header\n"
    save_aside(path, lambda file: file.write(start.encode() + rows.tobytes()))
