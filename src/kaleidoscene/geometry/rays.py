"""Viewing rays of pinhole cameras and their Pluecker coordinates."""

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras


def pixel_centres(image_size: tuple[int, int], like: Tensor) -> Float[Tensor, "h w 2"]:
    """Pixel coordinates (x, y): pixel ``(row, col)`` has its centre at ``(col + 0.5, row + 0.5)``."""
    h, w = image_size
    y, x = torch.meshgrid(
        torch.arange(h, dtype=like.dtype, device=like.device) + 0.5,
        torch.arange(w, dtype=like.dtype, device=like.device) + 0.5,
        indexing="ij",
    )
    return torch.stack([x, y], dim=-1)


def camera_rays(cameras: Cameras) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch h w 3"]]:
    """Origins and unit directions, in world axes, of the ray through each pixel centre."""
    intrinsics = cameras.intrinsics
    pixels = pixel_centres(cameras.image_size, intrinsics)
    focal = intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2]
    xy = (pixels - intrinsics[..., None, None, :2, 2]) / focal[..., None, None, :]
    skew = intrinsics[..., 0, 1, None, None] / focal[..., 0, None, None]
    x = xy[..., 0] - skew * xy[..., 1]
    in_camera = torch.stack([x, xy[..., 1], torch.ones_like(x)], dim=-1)
    in_camera = torch.nn.functional.normalize(in_camera, dim=-1)
    directions = torch.einsum("...ij,...hwj->...hwi", cameras.world_from_cam[..., :3, :3], in_camera)
    return cameras.centres, directions


def plucker_rays(cameras: Cameras) -> Float[Tensor, "*batch h w 6"]:
    """Pluecker coordinates ``(d, o x d)`` of the viewing ray through each pixel centre.

    Returns:
        Unit direction in world axes (channels 0:3) and moment in world units (3:6).
    """
    origins, directions = camera_rays(cameras)
    moment = torch.linalg.cross(origins[..., None, None, :].expand_as(directions), directions)
    return torch.cat([directions, moment], dim=-1)


def project(
    cameras: Cameras, points: Float[Tensor, "*batch n 3"]
) -> tuple[Float[Tensor, "*batch n 2"], Float[Tensor, "*batch n"]]:
    """Pixel coordinates (x, y) and depth along the optical axis of world points."""
    cam_from_world = cameras.cam_from_world
    in_camera = points @ cam_from_world[..., :3, :3].mT + cam_from_world[..., None, :3, 3]
    image = in_camera @ cameras.intrinsics.mT
    return image[..., :2] / image[..., 2:], in_camera[..., 2]


def unproject(cameras: Cameras, depth: Float[Tensor, "*batch h w"]) -> Float[Tensor, "*batch h w 3"]:
    """World points of a depth map; depth is measured along the optical axis, in world units."""
    origins, directions = camera_rays(cameras)
    along_axis = torch.einsum("...hwi,...i->...hw", directions, cameras.directions)
    return origins[..., None, None, :] + directions * (depth / along_axis)[..., None]


def depth_along_axis(cameras: Cameras, points: Float[Tensor, "*batch h w 3"]) -> Float[Tensor, "*batch h w"]:
    """Depth along the optical axis of a world point for every pixel: the inverse of :func:`unproject`."""
    to_camera = cameras.cam_from_world.to(points)
    return torch.einsum("...hwi,...i->...hw", points, to_camera[..., 2, :3]) + to_camera[..., 2, 3, None, None]


def to_sampling_grid(pixels: Float[Tensor, "*batch n 2"], image_size: tuple[int, int]) -> Float[Tensor, "*batch n 2"]:
    """Pixel coordinates as ``grid_sample`` takes them (``align_corners=False``): -1 and 1 are the image's borders.

    What has no finite place in the image, as points in the plane of the camera, comes to lie outside of it.
    """
    h, w = image_size
    return torch.nan_to_num(pixels / pixels.new_tensor([w, h]) * 2 - 1, nan=2.0, posinf=2.0, neginf=-2.0)
