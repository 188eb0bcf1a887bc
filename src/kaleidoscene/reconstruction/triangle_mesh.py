"""Surfaces of triangles, cut from signed distances in a grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError, NoSurface

_NONE = "The views agree on no surface"


@dataclass(frozen=True, eq=False)
class TriangleMesh:
    """A surface of triangles, world units.

    Attributes:
        vertices: In the world.
        faces: Numbers of their corners, counter-clockwise seen from outside.
        normals: Unit vectors outwards, one a vertex.
        colours: RGB in [0, 1], one a vertex.
    """

    vertices: Float[Tensor, "v 3"]
    faces: Int[Tensor, "f 3"]
    normals: Float[Tensor, "v 3"]
    colours: Float[Tensor, "v 3"]

    def __len__(self) -> int:
        return len(self.faces)


def cut_surface(
    distance: Float[Tensor, "x y z"], origin: Float[Tensor, " 3"], cell: float, least_part: float,
    is_kept: Callable[[np.ndarray], np.ndarray] | None = None,
) -> TriangleMesh:  # fmt: skip
    """Marching cubes where distances are zero, without small parts; grey.

    Args:
        distance: In a grid, positive outside; its outermost places count as outside, so that surfaces end there.
        origin: Of its first place, world.
        cell: Between places, world units.
        least_part: Parts that hang together and have a smaller share of the faces are dropped.
        is_kept: Which vertices (in cells) a face may have; by default all.

    Raises:
        KaleidosceneError: There is no surface, or scikit-image is not there.
    """
    try:
        from skimage.measure import marching_cubes  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Meshes need scikit-image: pip install 'kaleidoscene[reconstruction]'.") from error
    inner = torch.zeros_like(distance, dtype=torch.bool)
    inner[1:-1, 1:-1, 1:-1] = True
    try:
        vertices, faces, *_ = marching_cubes(
            torch.where(inner, distance, 1.0).numpy(), 0.0, gradient_direction="descent", allow_degenerate=False
        )
    except (ValueError, RuntimeError) as error:
        raise NoSurface(f"{_NONE} ({error}).") from error
    if is_kept is not None:
        faces = faces[is_kept(vertices)[faces].all(1)]
    if not len(faces):
        raise NoSurface(f"{_NONE}.")
    vertices, faces = _large_parts(vertices, faces, least_part)
    places = origin + cell * torch.from_numpy(vertices.astype(np.float32))
    corners = torch.from_numpy(faces.astype(np.int64))
    return TriangleMesh(places, corners, vertex_normals(places, corners), torch.full_like(places, 0.5))


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Mean directions of the faces about each vertex, weighted by their areas."""
    a, b, c = vertices[faces].unbind(1)
    twice = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices).index_add(0, faces.flatten(), twice.repeat_interleave(3, dim=0))
    return torch.nn.functional.normalize(total, dim=-1)


def _large_parts(vertices: np.ndarray, faces: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Without parts that hang together and have few faces."""
    from scipy.sparse import coo_matrix  # noqa: PLC0415  comes with scikit-image
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    ends = np.concatenate([faces[:, :2], faces[:, 1:]])
    edges = coo_matrix((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(len(vertices),) * 2)
    part = connected_components(edges, directed=False)[1][faces[:, 0]]
    kept = faces[np.bincount(part)[part] >= least * len(faces)]
    used = np.unique(kept)
    number = np.zeros(len(vertices), np.int64)
    number[used] = np.arange(len(used))
    return vertices[used], number[kept]
