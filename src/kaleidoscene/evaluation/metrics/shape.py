"""Surfaces against surfaces: Chamfer distances, each under a name of its own, and volume IoU."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from kaleidoscene.errors import KaleidosceneError

Points = Float[np.ndarray, "_ 3"]
VOLUME_SIDE = 64
# Of the search trees: scipy's 10 takes two to three times as long where surfaces are far apart, and no less elsewhere.
_LEAF = 64


def unit_box(points: Points) -> Points:
    """Points scaled so that the largest side of their box is 1, and centred (EscherNet's step before comparing).

    Raises:
        KaleidosceneError: There are none, or all are the same.
    """
    if not len(points):
        raise KaleidosceneError("A shape without points cannot be compared.")
    low, high = points.min(0), points.max(0)
    side = (high - low).max()
    if not np.isfinite(side) or side <= 0:
        raise KaleidosceneError("A shape without extent cannot be compared.")
    return (points - (low + high) / 2) / side


def chamfer(a: Points, b: Points, *, squared: bool = False, combine: Literal["mean", "sum"] = "mean") -> float:
    """Chamfer distance of two sets of points.

    Args:
        a: Points.
        b: Points.
        squared: Of squared distances.
        combine: ``mean`` or ``sum`` of the two directions. EscherNet: vertices, not squared, mean; point_cloud_utils,
            which RnG builds on: not squared, sum.

    Raises:
        KaleidosceneError: A set is empty, or scipy is not there.
    """
    if not (len(a) and len(b)):
        raise KaleidosceneError(f"A Chamfer distance needs points on both sides, got {len(a)} and {len(b)}.")
    try:
        from scipy.spatial import KDTree  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Chamfer distances need scipy: pip install 'kaleidoscene[eval]'.") from error
    power = 2 if squared else 1
    one, other = (np.mean(KDTree(to, leafsize=_LEAF).query(of)[0] ** power) for of, to in ((a, b), (b, a)))
    return float(one + other) / (2 if combine == "mean" else 1)


def chamfer_vertices(mesh: Any, truth: Any) -> float:
    """EscherNet's distance: between mesh vertices, in unit boxes, not squared, mean of both directions.

    It depends on how densely a mesh has vertices; :func:`chamfer_sampled` does not.

    Args:
        mesh: A ``trimesh.Trimesh``.
        truth: Likewise.
    """
    return chamfer(unit_box(np.asarray(mesh.vertices)), unit_box(np.asarray(truth.vertices)))


def chamfer_sampled(
    mesh: Any,
    truth: Any,
    *,
    samples: int = 100_000,
    seed: int = 0,
    squared: bool = False,
    combine: Literal["mean", "sum"] = "mean",
) -> float:
    """Between points drawn uniformly from both surfaces, after the steps of :func:`unit_box` on their vertices.

    Args:
        mesh: A ``trimesh.Trimesh``.
        truth: Likewise.
        samples: Points of each surface.
        seed: Of the draw.
        squared: As :func:`chamfer`.
        combine: As :func:`chamfer`.
    """
    clouds = []
    for number, surface in enumerate((mesh, truth)):
        moved = surface.copy()
        moved.vertices = unit_box(np.asarray(surface.vertices))
        clouds.append(np.asarray(moved.sample(samples, seed=np.random.default_rng([seed, number]))))
    return chamfer(*clouds, squared=squared, combine=combine)


def occupancy(mesh: Any) -> Bool[np.ndarray, "64 64 64"]:
    """Which points of a 64^3 grid over [-1, 1)^3 lie inside a closed mesh that fills the unit box.

    They are 1/32 apart, as those of ``mesh2sdf``.

    Args:
        mesh: A ``trimesh.Trimesh``.

    Raises:
        KaleidosceneError: The surface is not closed, so that it has no inside.
    """
    if not mesh.is_watertight:
        raise KaleidosceneError("Volume IoU needs closed surfaces; this mesh has holes.")
    moved = mesh.copy()
    moved.vertices = unit_box(np.asarray(mesh.vertices))
    line = -1 + 2 * np.arange(VOLUME_SIDE) / VOLUME_SIDE
    grid = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)
    inside = np.zeros((VOLUME_SIDE,) * 3, dtype=bool)
    near = (np.abs(grid) < 0.5).all(-1)  # the box is [-0.5, 0.5]^3; no ray need be shot beyond it
    inside[near] = moved.contains(grid[near])
    return inside


def volume_iou(mesh: Any, truth: Any) -> float:
    """Intersection over union of two closed meshes, each in its unit box, on the grid of EscherNet's code.

    EscherNet takes the sign of ``mesh2sdf``; here rays decide, so that surfaces with holes are refused.
    """
    a, b = occupancy(mesh), occupancy(truth)
    return float((a & b).sum() / max(1, int((a | b).sum())))
