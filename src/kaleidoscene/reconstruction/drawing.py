"""Pictures of point clouds and of meshes, without OpenGL."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.texture import TexturedMesh
from kaleidoscene.reconstruction.triangles import between_corners, seen_from


def draw_points(cloud: SurfacePoints, camera: Cameras, *, size: float, lit: bool = False) -> Float[Tensor, "3 h w"]:
    """A cloud as squares that face the camera, the nearest in front, on white.

    Args:
        cloud: To draw.
        camera: One.
        size: Side of a square, world units; at least a pixel is drawn.
        lit: Grey points, bright where they face the camera, which shows the shape, in place of colours.
    """
    h, w = camera.image_size
    pixels, depth = project(camera, cloud.positions)
    front = (depth > 1e-6) & pixels.isfinite().all(-1)
    pixels, depth = pixels[front], depth[front]
    colours = _shading(cloud, camera)[front] if lit else cloud.colours[front]
    reach = (0.5 * size * camera.intrinsics[1, 1] / depth).clamp(0.5, 16)
    most = int(reach.max().ceil()) if len(reach) else 0
    nearest = depth.new_full((h * w,), torch.inf)
    covered: list[tuple[Tensor, Tensor]] = []
    for down in range(-most, most + 1):
        for right in range(-most, most + 1):
            place = pixels.floor() + pixels.new_tensor([right, down])
            near = ((place + 0.5 - pixels).abs() <= reach[:, None]).all(-1)
            inside = near & (place >= 0).all(-1) & (place[:, 0] < w) & (place[:, 1] < h)
            index = (place[inside, 1] * w + place[inside, 0]).long()
            nearest = nearest.scatter_reduce(0, index, depth[inside], "amin")
            covered.append((index, inside.nonzero()[:, 0]))
    image = torch.ones(h * w, 3)
    for index, number in covered:
        wins = depth[number] <= nearest[index]
        image[index[wins]] = colours[number[wins]]
    return image.T.reshape(3, h, w)


def _shading(cloud: SurfacePoints, camera: Cameras) -> Float[Tensor, "n 3"]:
    facing = torch.nn.functional.normalize(camera.centres - cloud.positions, dim=-1)
    light = 0.15 + 0.75 * (facing * cloud.normals).sum(-1, keepdim=True).abs()
    return light.expand(-1, 3)


def draw_cloud(
    cloud: SurfacePoints, camera: Cameras, *, size: float
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """A cloud in its colours, and lit; see :func:`draw_points`."""
    return draw_points(cloud, camera, size=size), draw_points(cloud, camera, size=size, lit=True)


def draw_mesh(
    textured: TexturedMesh, camera: Cameras, *, supersampling: int = 2
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "3 h w"]]:
    """A mesh on white: with its picture, and in grey, bright where the surface faces the camera.

    Args:
        textured: To draw.
        camera: One.
        supersampling: Samples of a pixel along each side.
    """
    h, w = camera.image_size
    mesh = textured.mesh
    seen = seen_from(mesh.vertices, mesh.faces, camera.resize(supersampling * h, supersampling * w))
    there = seen.face >= 0
    face, share = seen.face[there], seen.share[there]
    points = between_corners(mesh.vertices, mesh.faces, face, share)
    normals = torch.nn.functional.normalize(between_corners(mesh.normals, mesh.faces, face, share), dim=-1)
    surface = SurfacePoints(points, normals, torch.zeros_like(points), torch.ones(len(points)))
    place = between_corners(textured.places, mesh.faces, face, share)
    grid = torch.stack([2 * place[:, 0] - 1, 1 - 2 * place[:, 1]], dim=-1)[None, None]
    looked_up = torch.nn.functional.grid_sample(
        textured.picture[None], grid, padding_mode="border", align_corners=False
    )
    drawn = []
    for colours in (looked_up[0, :, 0].T, _shading(surface, camera)):
        image = torch.ones(*there.shape, 3)
        image[there] = colours
        drawn.append(torch.nn.functional.avg_pool2d(image.movedim(-1, 0)[None], supersampling)[0])
    return drawn[0], drawn[1]
