"""A mesh in the colours of images: unwrapped onto a plane, every texel from the images that see it most squarely."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project, to_sampling_grid
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.reconstruction.meshing import write_mesh
from kaleidoscene.reconstruction.surface import eroded
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh
from kaleidoscene.reconstruction.triangles import between_corners, covered, seen_from

# An image counts by the power of the cosine between its rays and the normal; beyond about 75 degrees not at all.
_POWER, _ASIDE = 4, 0.25
# A surface is seen where the depth of the mesh differs by less than this share from the texel's.
_TOLERANCE = 0.02
# Texels around each part of the atlas that take the colour of its border, for lookups between texels.
_GUTTER = 4


@dataclass(frozen=True, eq=False)
class PaintViews:
    """Images of one size that a mesh takes its colours from.

    Attributes:
        images: RGB in [0, 1].
        masks: Pixels that show the object.
        cameras: ``(views,)``, in the world of the mesh.
        weight: How much they count beside others.
    """

    images: Float[Tensor, "views 3 h w"]
    masks: Bool[Tensor, "views h w"]
    cameras: Cameras
    weight: float = 1.0


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A mesh with a picture on it.

    Attributes:
        mesh: Its vertices are split where the picture is cut.
        places: Of the vertices in the picture, in [0, 1], from its lower left corner (glTF counts v from above).
        picture: RGB in [0, 1].
        painted: Share of its texels that some image sees; the others have colours of their neighbours.
    """

    mesh: TriangleMesh
    places: Float[Tensor, "v 2"]
    picture: Float[Tensor, "3 side side"]
    painted: float


def unwrapped(mesh: TriangleMesh, side: int) -> tuple[TriangleMesh, Float[Tensor, "v 2"]]:
    """A mesh cut into flat parts, and where its vertices lie in a picture, in [0, 1] from the upper left corner.

    Args:
        mesh: The surface.
        side: Of the picture, in texels.

    Raises:
        KaleidosceneError: xatlas is not there.
    """
    try:
        import xatlas  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Textures need xatlas: pip install 'kaleidoscene[reconstruction]'.") from error
    atlas: Any = xatlas.Atlas()
    atlas.add_mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32), mesh.normals.numpy())
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    packing.resolution, packing.padding, packing.bilinear = side, _GUTTER, True
    atlas.generate(chart_options=charts, pack_options=packing)
    source, faces, places = atlas[0]
    of = torch.from_numpy(source.astype(np.int64))
    cut = TriangleMesh(mesh.vertices[of], torch.from_numpy(faces.astype(np.int64)), mesh.normals[of], mesh.colours[of])
    return cut, torch.from_numpy(np.ascontiguousarray(places, dtype=np.float32))


def bake(mesh: TriangleMesh, views: Sequence[PaintViews], side: int = 1024) -> TexturedMesh:
    """Paint a mesh with images.

    Args:
        mesh: The surface; its own colours are where no image sees it and no neighbour is near.
        views: Sets of images.
        side: Of the picture, in texels.

    Raises:
        KaleidosceneError: xatlas is not there.
    """
    cut, places = unwrapped(mesh, side)
    texel, face, share = _texels(places, cut.faces, side)
    points = between_corners(cut.vertices, cut.faces, face, share)
    normals = torch.nn.functional.normalize(between_corners(cut.normals, cut.faces, face, share), dim=-1)
    own = between_corners(cut.colours, cut.faces, face, share)
    colours, is_painted = blended(mesh, points, normals, own, views)
    picture, known = torch.ones(3, side * side), torch.zeros(side * side)
    picture[:, texel], known[texel] = colours.T, is_painted.float()
    used = torch.zeros(side * side, dtype=torch.bool)
    used[texel] = True
    filled = _filled(picture.reshape(3, side, side), known.reshape(side, side), used.reshape(side, side))
    flipped = torch.stack([places[:, 0], 1 - places[:, 1]], dim=-1)
    return TexturedMesh(cut, flipped, filled, float(is_painted.float().mean()))


def _texels(
    places: Float[Tensor, "v 2"], faces: Int[Tensor, "f 3"], side: int
) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Texels whose centre lies in a triangle of the atlas, with the triangle and the place in it; each once."""
    parts = list(covered(places[faces] * side, (side, side)))
    texel, face, share = (torch.cat([getattr(part, name) for part in parts]) for name in ("pixel", "face", "share"))
    first = torch.full((side * side,), -1).index_copy(0, texel.flip(0), torch.arange(len(texel)).flip(0))
    once = first[first >= 0]
    return texel[once], face[once], share[once]


def coloured(mesh: TriangleMesh, views: Sequence[PaintViews]) -> TriangleMesh:
    """A mesh with the colours of images at its vertices; what none sees keeps its own."""
    return replace(mesh, colours=blended(mesh, mesh.vertices, mesh.normals, mesh.colours, views)[0])


def blended(
    mesh: TriangleMesh, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"], own: Float[Tensor, "n 3"],
    views: Sequence[PaintViews],
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"]]:  # fmt: skip
    """Mean colours of points of a mesh over the images that see them, and which are seen at all.

    Args:
        mesh: It hides what lies behind it.
        points: On it.
        normals: Of the points.
        own: Colours of what no image sees.
        views: Sets of images.
    """
    total, weight = torch.zeros(len(points), 3), torch.zeros(len(points))
    for some in views:
        for number in range(len(some.images)):
            seen, colour = _seen(mesh, points, normals, some, number)
            total += seen[:, None] * colour
            weight += seen
    is_seen = weight > 0
    return torch.where(is_seen[:, None], total / weight.clamp_min(1e-12)[:, None], own), is_seen


def _seen(
    mesh: TriangleMesh, points: Tensor, normals: Tensor, views: PaintViews, number: int
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 3"]]:
    """How well one image sees points of a mesh (0: not at all), and the colours it has there."""
    camera = views.cameras[number].to(points.dtype)
    facing = torch.nn.functional.normalize(camera.centres - points, dim=-1)
    squarely = (facing * normals).sum(-1)
    pixels, depth = project(camera, points)
    grid = to_sampling_grid(pixels, camera.image_size)[None, None]
    nearest = seen_from(mesh.vertices, mesh.faces, camera).depth
    # Colours are looked up between four pixels, of which all have to be of the object, and on the near side of it.
    whole = eroded(views.masks[number] & (nearest > 0), 3)
    planes = torch.cat([views.images[number], whole.float()[None], nearest[None]])
    found = torch.nn.functional.grid_sample(planes[None], grid, padding_mode="border", align_corners=False)[0, :, 0]
    sees = (grid[0, 0].abs() <= 1).all(-1) & (depth > 0) & (found[3] > 0.999) & (squarely > _ASIDE)
    sees &= (depth - found[4]).abs() < _TOLERANCE * depth
    return views.weight * squarely.clamp_min(0) ** _POWER * sees, found[:3].T


def _filled(
    picture: Float[Tensor, "3 h w"], known: Float[Tensor, "h w"], used: Bool[Tensor, "h w"]
) -> Float[Tensor, "3 h w"]:
    """Colours spread from texels that are known to used ones that are not, and over the gutter."""
    spread, there = picture * known, known.clone()
    for turn in range(64):
        if turn >= _GUTTER and bool((there[used] > 0).all()):
            break
        planes = torch.cat([spread, there[None]])
        near = torch.nn.functional.avg_pool2d(planes[None], 3, 1, 1)[0]
        new = (there == 0) & (near[3] > 0)
        spread = torch.where(new, near[:3] / near[3].clamp_min(1e-12), spread)
        there = torch.where(new, 1.0, there)
    return torch.where(there > 0, spread, picture)


def write_textured_mesh(path: Path, textured: TexturedMesh, up: Float[Tensor, " 3"]) -> None:
    """A GLB file whose y axis is up, with the picture in it.

    Args:
        path: Where to.
        textured: What to write.
        up: In the world of the mesh.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    try:
        from trimesh import visual  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Meshes need trimesh: pip install 'kaleidoscene[reconstruction]'.") from error
    picture = Image.fromarray(to_bytes(textured.picture))
    material = visual.material.PBRMaterial(baseColorTexture=picture, metallicFactor=0.0, roughnessFactor=1.0)
    looks = visual.TextureVisuals(uv=textured.places.numpy(), material=material)
    write_mesh(path, textured.mesh, up=up, visual=looks)
