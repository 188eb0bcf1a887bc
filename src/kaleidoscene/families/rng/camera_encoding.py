"""Cameras as nine numbers: translation, quaternion and two angles of view of the world-to-camera map (method B.6)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import invert, quaternion_of, rigid, rotation_of
from kaleidoscene.nn.precision import exact

NUMBERS = 9
# Angles of view that a camera can be made of; what the head says outside of them is brought to the nearest.
_NARROWEST, _WIDEST = 0.02, 3.0


def encode_cameras(cameras: Cameras) -> Float[Tensor, "*batch 9"]:
    """Numbers of cameras in the world of the first source: t, quaternion (x, y, z, w >= 0), angles of height and width.

    Angles are in radians; a principal point off the middle is not told.
    """
    pose = cameras.cam_from_world
    h, w = cameras.image_size
    quaternion = quaternion_of(pose[..., :3, :3]).roll(-1, dims=-1)
    focal = cameras.intrinsics.diagonal(dim1=-2, dim2=-1)
    angles = [2 * torch.atan(0.5 * side / focal[..., axis]) for side, axis in ((h, 1), (w, 0))]
    return torch.cat([pose[..., :3, 3], quaternion, torch.stack(angles, dim=-1)], dim=-1)


def decode_cameras(numbers: Float[Tensor, "*batch 9"], image_size: tuple[int, int]) -> Cameras:
    """Cameras of such numbers, with the principal point in the middle."""
    numbers = exact(numbers)
    rotation = rotation_of(numbers[..., 3:7].roll(1, dims=-1))
    h, w = image_size
    angles = numbers[..., 7:].clamp(_NARROWEST, _WIDEST)
    intrinsics = numbers.new_zeros(*numbers.shape[:-1], 3, 3)
    intrinsics[..., 1, 1], intrinsics[..., 0, 0] = (0.5 * side / torch.tan(a / 2) for side, a in zip(
        (h, w), angles.unbind(-1), strict=True
    ))  # fmt: skip
    intrinsics[..., 0, 2], intrinsics[..., 1, 2], intrinsics[..., 2, 2] = w / 2, h / 2, 1.0
    return Cameras(invert(rigid(rotation, numbers[..., :3])), intrinsics, image_size)
