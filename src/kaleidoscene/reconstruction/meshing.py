"""Views with points become one mesh with colours, and files of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.upright import rotation_between
from kaleidoscene.reconstruction.fusion import FusionConfig, PointViews, object_pixels, pixels_that_count, recoloured
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh, vertex_normals
from kaleidoscene.reconstruction.tsdf import MeshConfig, mesh_of


def mesh_of_views(
    sources: PointViews,
    new: PointViews | None,
    fusion: FusionConfig,
    config: MeshConfig,
    *,
    on_slab: Callable[[int, int], None] | None = None,
) -> TriangleMesh:
    """The surface that sources and new views agree on, in the colours of those that see it most squarely.

    Args:
        sources: Photographs with the points that were told at their cameras; their colours come first.
        new: Views of the rest.
        fusion: Which pixels count.
        config: Size of the grid.
        on_slab: Progress.

    Raises:
        KaleidosceneError: No pixel counts, or they agree on no surface.
    """
    kinds = [(sources, True, fusion.source_erosion)]
    if new is not None:
        kinds.append((new, False, fusion.new_erosion))
    surface = torch.cat([pixels_that_count(views, fusion, is_source=is_source) for views, is_source, _ in kinds])
    depths = torch.cat([views.depths for views, *_ in kinds])
    together = Cameras.concatenate([views.cameras for views, *_ in kinds])
    mesh = mesh_of(depths, together, surface=surface, config=config, on_slab=on_slab)
    parts = []
    for views, _, erosion in kinds:
        inner = max(erosion, 3 / views.images.shape[-2])
        parts.append(replace(views, depths=views.depths * object_pixels(views, 0.0, inner, fusion.white)))
    return painted(mesh, parts, fusion.tolerance)


def painted(mesh: TriangleMesh, views: Sequence[PointViews], tolerance: float) -> TriangleMesh:
    """A mesh in the colours of the views that see it most squarely; what none sees is grey.

    Args:
        mesh: The surface.
        views: Sets of them; the first that sees a vertex is taken. Depth 0 is where nothing is to be taken from.
        tolerance: A view sees a vertex if its depth differs by less than this share.
    """
    points = SurfacePoints(mesh.vertices, mesh.normals, mesh.colours, torch.ones(len(mesh.vertices)))
    for some in reversed(views):
        points = recoloured(points, some, tolerance)
    return replace(mesh, colours=points.colours)


def write_mesh(path: Path, mesh: TriangleMesh, *, up: Float[Tensor, " 3"] | None = None, visual: Any = None) -> None:
    """A mesh as a file of the kind that its ending names (.ply, .glb).

    Args:
        path: Where to.
        mesh: What to write.
        up: In the world of the mesh; it is turned so that y is up, as viewers of GLB expect.
        visual: Of trimesh, in place of the colours at the vertices.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    try:
        import trimesh  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Meshes need trimesh: pip install 'kaleidoscene[reconstruction]'.") from error
    turn = torch.eye(3) if up is None else rotation_between(up.to(mesh.vertices), mesh.vertices.new_tensor([0.0, 1, 0]))
    colours = (mesh.colours.clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    looks: dict[str, Any] = {"vertex_colors": colours} if visual is None else {"visual": visual}
    made: Any = trimesh.Trimesh(
        (mesh.vertices @ turn.T).numpy(), mesh.faces.numpy(), vertex_normals=(mesh.normals @ turn.T).numpy(),
        process=False, **looks,
    )  # fmt: skip
    made.export(path)


def write_meshes(folder: Path, mesh: TriangleMesh, up: Float[Tensor, " 3"]) -> None:
    """A mesh as ``mesh.ply`` in its own world, and as ``mesh.glb`` whose y axis is up, both with colours at vertices.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    write_mesh(folder / "mesh.ply", mesh)
    write_mesh(folder / "mesh.glb", mesh, up=up)


def simplified(mesh: TriangleMesh, faces: int) -> TriangleMesh:
    """A mesh of fewer faces in about the same place (edges collapse where that moves the surface least).

    Args:
        mesh: To simplify; it is given back as it is if it has no more faces.
        faces: How many are to be left.

    Raises:
        KaleidosceneError: fast_simplification is not there.
    """
    if len(mesh) <= faces:
        return mesh
    try:
        import fast_simplification  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError(
            "Textures need fast-simplification: pip install 'kaleidoscene[reconstruction]'."
        ) from error
    before = mesh.vertices.numpy(), mesh.faces.numpy()
    made: Any = fast_simplification.simplify(*before, target_count=faces, return_collapses=True)
    points, corners, collapses = made
    of = torch.from_numpy(fast_simplification.replay_simplification(*before, collapses)[2].astype(np.int64))
    places, triangles = torch.from_numpy(np.asarray(points, np.float32)), torch.from_numpy(corners.astype(np.int64))
    total = torch.zeros(len(places), 3).index_add(0, of, mesh.colours)
    count = torch.zeros(len(places)).index_add(0, of, torch.ones(len(of)))
    return TriangleMesh(places, triangles, vertex_normals(places, triangles), total / count.clamp_min(1)[:, None])
