"""Triangles on a plane of pixels: which pixels each covers, and depth maps and pictures of meshes, without OpenGL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project

# Pairs of a triangle and a pixel of its box that are looked at together.
_AT_ONCE = 2**22


@dataclass(frozen=True, eq=False)
class Covered:
    """Pairs of a triangle and a pixel whose centre lies in it.

    Attributes:
        pixel: Number of the pixel, row by row.
        face: Number of the triangle.
        share: Weights of the corners there (barycentric coordinates), which sum to 1.
    """

    pixel: Int[Tensor, " pairs"]
    face: Int[Tensor, " pairs"]
    share: Float[Tensor, "pairs 3"]


def covered(corners: Float[Tensor, "f 3 2"], image_size: tuple[int, int]) -> Iterator[Covered]:
    """Pixels that triangles cover, in parts that fit the memory.

    Args:
        corners: Of triangles, in pixels (x, y); the centre of the first pixel is (0.5, 0.5). Those that are not finite
            cover nothing.
        image_size: ``(height, width)``.
    """
    h, w = image_size
    limit = corners.new_tensor([w, h])
    low = (corners.nan_to_num(-1).amin(1) - 0.5).ceil().clamp_min(0).minimum(limit)
    high = (corners.nan_to_num(-1).amax(1) - 0.5).floor().minimum(limit - 1)
    extent = (high - low + 1).clamp_min(0).long() * corners.isfinite().all(-1).all(-1, keepdim=True)
    boxes = extent.prod(-1)
    ends = boxes.cumsum(0)
    start = 0
    while start < len(corners):
        before = int(ends[start - 1]) if start else 0
        end = max(start + 1, int(torch.searchsorted(ends, before + _AT_ONCE, right=True)))
        face = torch.arange(start, end).repeat_interleave(boxes[start:end])
        place = torch.arange(len(face)) - (ends - boxes)[face] + before
        row = torch.div(place, extent[face, 0], rounding_mode="floor")
        pixel = low[face].long() + torch.stack([place - row * extent[face, 0], row], dim=-1)
        share, inside = _shares(corners[face], pixel + 0.5)
        yield Covered((pixel[:, 1] * w + pixel[:, 0])[inside], face[inside], share[inside])
        start = end


def _shares(corners: Float[Tensor, "n 3 2"], points: Float[Tensor, "n 2"]) -> tuple[Tensor, Tensor]:
    """Barycentric coordinates of points, and whether they lie inside; triangles without an area have no inside."""
    a, b, c = corners.double().unbind(1)
    p = points.double()

    def twice(u: Tensor, v: Tensor, x: Tensor) -> Tensor:
        return (v[:, 0] - u[:, 0]) * (x[:, 1] - u[:, 1]) - (v[:, 1] - u[:, 1]) * (x[:, 0] - u[:, 0])

    area = twice(a, b, c)
    share = torch.stack([twice(b, c, p), twice(c, a, p), twice(a, b, p)], dim=-1) / area[:, None]
    return share.to(corners), (area != 0) & (share >= 0).all(-1)


@dataclass(frozen=True, eq=False)
class Seen:
    """The nearest triangle of every pixel of a view.

    Attributes:
        depth: Along the optical axis, world units; 0 where there is none.
        face: Its number; -1 where there is none.
        share: Weights of its corners on the surface.
    """

    depth: Float[Tensor, "h w"]
    face: Int[Tensor, "h w"]
    share: Float[Tensor, "h w 3"]


def seen_from(vertices: Float[Tensor, "v 3"], faces: Int[Tensor, "f 3"], camera: Cameras) -> Seen:
    """What one camera sees of a mesh, at the centres of its pixels; triangles that reach behind it are left out.

    Args:
        vertices: In the world.
        faces: Numbers of their corners.
        camera: One.
    """
    h, w = camera.image_size
    pixels, depth = project(camera.to(vertices.dtype), vertices)
    pixels = torch.where(depth[:, None] > 1e-6, pixels, torch.nan)
    nearest = vertices.new_full((h * w,), torch.inf)
    face = torch.full((h * w,), -1)
    share = vertices.new_zeros(h * w, 3)
    for part in covered(pixels[faces], (h, w)):
        # Along a triangle in the image it is the inverse of depth that changes evenly.
        weighed = part.share / depth[faces[part.face]]
        inverse = weighed.sum(-1)
        behind = 1 / inverse
        before = nearest.scatter_reduce(0, part.pixel, behind, "amin")
        wins = (behind <= before[part.pixel]) & (behind < nearest[part.pixel])
        face[part.pixel[wins]] = part.face[wins]
        share[part.pixel[wins]] = weighed[wins] / inverse[wins, None]
        nearest = before
    depths = torch.where(face >= 0, nearest, 0.0)
    return Seen(depths.reshape(h, w), face.reshape(h, w), share.reshape(h, w, 3))


def between_corners(
    values: Float[Tensor, "v c"], faces: Int[Tensor, "f 3"], face: Int[Tensor, "*n"], share: Float[Tensor, "*n 3"]
) -> Float[Tensor, "*n c"]:
    """What vertices have, at places of faces."""
    return (values[faces[face]] * share[..., None]).sum(-2)
