"""Textured triangle meshes from GLB and OBJ files, normalised to a common size."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import unreadable

FloatArray = Float[np.ndarray, "..."]


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """One or more triangles with a texture; v = 0 of the texture is its bottom row (OpenGL and OBJ).

    Attributes:
        vertices: Positions in world units.
        normals: Unit normals at the vertices.
        uv: Texture coordinates at the vertices.
        faces: Vertex indices of the triangles.
        texture: 8-bit RGB, top row first.
    """

    vertices: Float[np.ndarray, "n 3"]
    normals: Float[np.ndarray, "n 3"]
    uv: Float[np.ndarray, "n 2"]
    faces: Int[np.ndarray, "m 3"]
    texture: UInt8[np.ndarray, "h w 3"]

    def transformed(self, matrix: FloatArray, offset: FloatArray) -> TexturedMesh:
        """``matrix @ x + offset`` on positions, the inverse transpose on normals; mirrors keep normals outward."""
        normals = self.normals @ np.linalg.inv(matrix)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)
        return replace(
            self,
            vertices=(self.vertices @ matrix.T + offset).astype(np.float32),
            normals=normals.astype(np.float32),
        )


def fit_unit_box(parts: list[TexturedMesh]) -> list[TexturedMesh]:
    """Centre the bounding box of all parts at the origin and make its longest side 1 (Zero-1-to-3, EscherNet)."""
    points = np.concatenate([part.vertices for part in parts])
    low, high = points.min(0), points.max(0)
    scale = 1.0 / float((high - low).max())
    return [part.transformed(np.eye(3) * scale, -scale * (low + high) / 2) for part in parts]


def read_mesh(path: Path) -> list[TexturedMesh]:
    """Read a GLB, glTF or OBJ file with its textures, in its own axes and units.

    A material without a texture gives its plain colour.

    Raises:
        KaleidosceneError: The file is missing or unreadable, has no faces, no texture coordinates or no extent.
    """
    import trimesh  # noqa: PLC0415  an extra, needed for training data only

    if not path.is_file():
        raise KaleidosceneError(f"{path}: no such mesh file.")
    try:
        scene: Any = trimesh.load_scene(path)
        meshes = [mesh for mesh in scene.dump() if isinstance(mesh, trimesh.Trimesh)]
        parts = [_convert(mesh, path) for mesh in meshes if len(mesh.faces)]
    except KaleidosceneError:
        raise
    except Exception as error:  # trimesh raises whatever its parsers do, and textures are read late
        raise unreadable(path, "mesh", error) from error
    if not parts:
        raise KaleidosceneError(f"{path}: the mesh has no faces.")
    points = np.concatenate([part.vertices for part in parts])
    if not 0 < float(np.ptp(points, axis=0).max()) < np.inf:  # NaN is not between them either
        raise KaleidosceneError(f"{path}: the vertices of the mesh are all in one place, or not finite.")
    return parts


def _convert(mesh: Any, path: Path) -> TexturedMesh:
    uv = getattr(mesh.visual, "uv", None)
    if uv is None:
        raise KaleidosceneError(f"{path}: the mesh has no texture coordinates; unwrap it first.")
    material = mesh.visual.material
    image = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    if image is None:
        colour = np.asarray(material.main_color, dtype=np.uint8)[:3]
        texture = np.broadcast_to(colour, (1, 1, 3)).copy()
    else:
        texture = np.asarray(image.convert("RGB"))
    return TexturedMesh(
        vertices=np.asarray(mesh.vertices, np.float32),
        normals=np.asarray(mesh.vertex_normals, np.float32),
        uv=np.asarray(uv, np.float32),
        faces=np.asarray(mesh.faces, np.int32),
        texture=texture,
    )
