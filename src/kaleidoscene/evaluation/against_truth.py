"""Meshes and cameras beside true ones: every number under the name of its variant."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.poses import relative_pose_scores, trajectory_errors
from kaleidoscene.evaluation.metrics.shape import (
    Points,
    chamfer,
    chamfer_sampled,
    chamfer_vertices,
    unit_box,
    volume_iou,
)

MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl")
"""Files that are taken for meshes, by their ending."""
_SHAPE_METRICS: dict[str, Callable[[Any, Any], float]] = {
    "chamfer of vertices, mean of both directions (EscherNet)": chamfer_vertices,
    "chamfer of 100000 samples, mean": chamfer_sampled,
    "chamfer of 100000 samples, sum": partial(chamfer_sampled, combine="sum"),
    "chamfer of 100000 samples, squared, mean": partial(chamfer_sampled, squared=True),
    "chamfer of 100000 samples, squared, sum": partial(chamfer_sampled, squared=True, combine="sum"),
}
_IOU = "volume IoU at 64^3 (EscherNet)"


def compare_meshes(mesh: Path, truth: Path) -> dict[str, float | None]:
    """Distances of two surfaces, each scaled into its unit box, by the names of their variants.

    The volume IoU is None where a surface has holes, so that it has no inside.

    Raises:
        KaleidosceneError: A file is no mesh, or a library is missing.
    """
    both = [read_surface(path) for path in (mesh, truth)]
    numbers: dict[str, float | None] = {name: measure(*both) for name, measure in _SHAPE_METRICS.items()}
    for surface in both:  # textured meshes have vertices twice along the seams of their texture
        surface.merge_vertices(merge_tex=True, merge_norm=True)
    closed = all(surface.is_watertight for surface in both)
    return {**numbers, _IOU: volume_iou(*both) if closed else None}


def compare_cloud(cloud: Path, truth: Path) -> dict[str, float | None]:
    """Chamfer distances of a cloud of points and 100000 points drawn from a true surface, by the names of variants.

    Raises:
        KaleidosceneError: A file is not readable, or a library is missing.
    """
    points, samples = read_points(cloud), read_samples(truth)
    boxed = unit_box(points), unit_box(samples)
    return {
        "chamfer of points and 100000 samples, in unit boxes, mean": chamfer(*boxed),
        "chamfer of points and 100000 samples, in unit boxes, sum": chamfer(*boxed, combine="sum"),
        "chamfer of points and 100000 samples, as they stand, sum": chamfer(points, samples, combine="sum"),
    }


def is_cloud(path: Path) -> bool:
    """Whether a PLY or GLB file has points and no faces.

    Raises:
        KaleidosceneError: It is not readable.
    """
    return not _faces(_load(path))


def read_points(path: Path) -> Points:
    """All points of a file without faces.

    Raises:
        KaleidosceneError: It is not readable, or has none.
    """
    loaded = _load(path)
    parts = loaded.dump() if hasattr(loaded, "dump") else [loaded]  # of a scene each where its node places it
    found = [np.asarray(part.vertices, dtype=np.float64).reshape(-1, 3) for part in parts]
    if not sum(map(len, found)):
        raise KaleidosceneError(f"{path}: a cloud without points.")
    return np.concatenate(found)


def read_samples(path: Path, count: int = 100_000) -> Points:
    """Points drawn uniformly from a surface, the same ones each time.

    Raises:
        KaleidosceneError: It is not readable, or has no faces.
    """
    return np.asarray(read_surface(path).sample(count, seed=np.random.default_rng([0, 1])), dtype=np.float64)


def read_surface(path: Path) -> Any:
    """A file as one ``trimesh.Trimesh``.

    Raises:
        KaleidosceneError: It is missing, damaged, or has no faces.
    """
    import trimesh  # noqa: PLC0415  an extra; _load says so

    loaded = _load(path, force="mesh")
    if not isinstance(loaded, trimesh.Trimesh) or not len(loaded.faces):
        raise KaleidosceneError(f"{path}: a mesh without faces.")
    return loaded


def _faces(loaded: Any) -> bool:
    parts = loaded.geometry.values() if hasattr(loaded, "geometry") else [loaded]
    return any(len(getattr(part, "faces", ())) for part in parts)


def _load(path: Path, **options: Any) -> Any:
    try:
        import trimesh  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Meshes need trimesh: pip install 'kaleidoscene[eval]'.") from error
    if path.suffix.lower() not in MESHES or not path.is_file():
        raise KaleidosceneError(f"{path}: no mesh file (expected {', '.join(MESHES)}).")
    try:
        return trimesh.load(path, **options)
    except Exception as error:  # trimesh raises whatever its parsers do
        raise KaleidosceneError(f"{path}: not a readable mesh ({error}).") from error


def compare_cameras(capture: Capture, truth: Capture) -> dict[str, float]:
    """Cameras of the images that two captures have in common (by name), after Sim(3) where that is asked for.

    Raises:
        KaleidosceneError: A capture has no cameras, two images share a name, or fewer than three are in both.
    """
    ours, true = ({frame.name: number for number, frame in enumerate(one.frames)} for one in (capture, truth))
    for one, names in ((capture, ours), (truth, true)):
        if len(names) < len(one):
            raise KaleidosceneError(
                f"{one.root}: two images have one name; cameras are matched by the names of images."
            )
    common = [name for name in true if name in ours]
    if len(common) < 3:
        raise KaleidosceneError(
            f"{capture.root} and {truth.root} have {len(common)} images of the same name; at least 3 are needed."
        )
    poses = [
        one.exact_cameras.world_from_cam[[names[name] for name in common]]
        for one, names in ((capture, ours), (truth, true))
    ]
    path, pairs = trajectory_errors(*poses), relative_pose_scores(*poses)
    focal = [
        torch.stack([
            one.exact_cameras.intrinsics[names[name], 1, 1] / one.framing(one.frames[names[name]]).reduced[0]
            for name in common
        ])
        for one, names in ((capture, ours), (truth, true))
    ]  # fmt: skip
    return {
        "images in both": float(len(common)),
        "images of the truth": float(len(truth)),
        "ATE_t after Sim(3), over the distance of the farthest camera from the first": path.ate_t,
        "ATE_r after Sim(3), degrees": path.ate_r,
        "RA@5, percent": pairs.ra5,
        "RT@5, percent": pairs.rt5,
        "AUC@30, percent": pairs.auc30,
        "focal length over image height, mean relative error": float(torch.abs(focal[0] / focal[1] - 1).mean()),
    }
