"""Rigid transforms as 4x4 matrices: inverse, exponential, logarithm, interpolation, look-at.

Names read right to left: ``a_from_c = a_from_b @ b_from_c``. See docs/conventions.md.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

# Below this the closed forms cancel; their series to a^4 is then exact in fp64.
_SMALL_ANGLE = 1e-2


def rigid(rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """Assemble ``[[R, t], [0, 1]]``."""
    top = torch.cat([rotation, translation[..., None]], dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat([top, bottom], dim=-2)


def invert(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of a rigid transform in closed form, ``[[R^T, -R^T t], [0, 1]]``.

    By sums and not by a product of matrices, which autocast would round to half precision.
    """
    rotation_t = transform[..., :3, :3].mT
    return rigid(rotation_t, -(rotation_t * transform[..., None, :3, 3]).sum(-1))


def transform_points(
    a_from_b: Float[Tensor, "*batch 4 4"], points: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3"]:
    """Take points of frame b to frame a."""
    return points @ a_from_b[..., :3, :3].mT + a_from_b[..., None, :3, 3]


def hat(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Skew-symmetric matrix with ``hat(a) @ b = a x b``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*vector.shape[:-1], 3, 3)


def _sinc_terms(angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``sin(a)/a``, ``(1 - cos a)/a^2``, ``(a - sin a)/a^3`` with their series near zero."""
    small = angle < _SMALL_ANGLE
    a = torch.where(small, torch.ones_like(angle), angle)
    a2 = angle * angle
    return (
        torch.where(small, 1 - a2 / 6 + a2**2 / 120, torch.sin(a) / a),
        torch.where(small, 0.5 - a2 / 24 + a2**2 / 720, (1 - torch.cos(a)) / (a * a)),
        torch.where(small, 1 / 6 - a2 / 120 + a2**2 / 5040, (a - torch.sin(a)) / (a * a * a)),
    )


def exp_se3(twist: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 4 4"]:
    """Exponential map of SE(3) in closed form (Rodrigues).

    Args:
        twist: Rotation vector in radians (0:3) and the translation part in world units (3:6).
    """
    omega, rho = twist[..., :3], twist[..., 3:]
    first, second, third = (term[..., None, None] for term in _sinc_terms(omega.norm(dim=-1)))
    cross = hat(omega)
    eye = torch.eye(3, dtype=twist.dtype, device=twist.device)
    rotation = eye + first * cross + second * cross @ cross
    left_jacobian = eye + second * cross + third * cross @ cross
    return rigid(rotation, (left_jacobian @ rho[..., None])[..., 0])


def log_so3(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Rotation vector (radians) of a rotation matrix, stable at angle 0 and at angle pi."""
    quaternion = quaternion_of(rotation)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    norm = xyz.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(norm, w)
    scale = torch.where(norm < 1e-9, 2 * torch.ones_like(norm), angle / norm.clamp_min(1e-12))
    return xyz * scale


def log_se3(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 6"]:
    """Inverse of :func:`exp_se3`, for rotations of less than pi."""
    omega = log_so3(transform[..., :3, :3])
    angle = omega.norm(dim=-1)
    first, second, _ = _sinc_terms(angle)
    small = angle < _SMALL_ANGLE
    safe = torch.where(small, torch.ones_like(angle), angle)
    series = 1 / 12 + angle**2 / 720 + angle**4 / 30240
    factor = torch.where(small, series, (1 - first / (2 * second)) / (safe * safe))
    cross = hat(omega)
    eye = torch.eye(3, dtype=transform.dtype, device=transform.device)
    inverse_jacobian = eye - 0.5 * cross + factor[..., None, None] * cross @ cross
    return torch.cat([omega, (inverse_jacobian @ transform[..., :3, 3:])[..., 0]], dim=-1)


def quaternion_of(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternion (w, x, y, z) with w >= 0, by the largest of the four pivots (Shepperd)."""
    m = rotation
    m00, m11, m22 = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = torch.stack(
        [
            torch.stack([1 + m00 + m11 + m22, wx, wy, wz], dim=-1),
            torch.stack([wx, 1 + m00 - m11 - m22, xy, xz], dim=-1),
            torch.stack([wy, xy, 1 - m00 + m11 - m22, yz], dim=-1),
            torch.stack([wz, xz, yz, 1 - m00 - m11 + m22], dim=-1),
        ],
        dim=-2,
    )
    pivot = rows.diagonal(dim1=-2, dim2=-1).argmax(dim=-1)
    row = torch.take_along_dim(rows, pivot[..., None, None].expand(*pivot.shape, 1, 4), dim=-2)[..., 0, :]
    unit = row / row.norm(dim=-1, keepdim=True)
    return torch.where(unit[..., :1] < 0, -unit, unit)


def rotation_of(quaternion: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation of a quaternion (w, x, y, z) of any length; of one that is zero, the identity."""
    length = quaternion.norm(dim=-1, keepdim=True)
    one = quaternion.new_tensor([1.0, 0.0, 0.0, 0.0])
    w, x, y, z = torch.where(length > 1e-12, quaternion / length.clamp_min(1e-12), one).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def interpolate_poses(
    start: Float[Tensor, "*batch 4 4"], end: Float[Tensor, "*batch 4 4"], fraction: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 4 4"]:
    """Rotation along the geodesic and position along the straight line, at ``fraction`` in [0, 1]."""
    relative = log_so3(start[..., :3, :3].mT @ end[..., :3, :3])
    twist = torch.cat([relative * fraction[..., None], torch.zeros_like(relative)], dim=-1)
    rotation = start[..., :3, :3] @ exp_se3(twist)[..., :3, :3]
    position = torch.lerp(start[..., :3, 3], end[..., :3, 3], fraction[..., None])
    return rigid(rotation, position)


def rotation_angle(a: Float[Tensor, "*batch 3 3"], b: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Geodesic angle between two rotations, in radians."""
    return log_so3(a.mT @ b).norm(dim=-1)


def look_at(
    eye: Float[Tensor, "*batch 3"], target: Float[Tensor, "*batch 3"], up: Float[Tensor, " 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """``world_from_cam`` of a camera at ``eye`` that looks at ``target`` (OpenCV axes).

    Where the view direction is parallel to ``up``, another axis takes its place, so that the result is always rigid.
    """
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    up = torch.nn.functional.normalize(up.to(forward), dim=-1).expand_as(forward)
    parallel = (forward * up).sum(-1, keepdim=True).abs() > 1 - 1e-6
    other = torch.where(
        up[..., :1].abs() > 0.9, forward.new_tensor([0.0, 1.0, 0.0]), forward.new_tensor([1.0, 0.0, 0.0])
    )
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, torch.where(parallel, other, up)), dim=-1)
    down = torch.linalg.cross(forward, right)
    return rigid(torch.stack([right, down, forward], dim=-1), eye)


def beside_object(distance: float, elevation: float) -> Float[Tensor, "4 4"]:
    """A camera that looks at the origin, z up, from ``-y``; fp64.

    Args:
        distance: From the origin.
        elevation: Above it, degrees.
    """
    angle = math.radians(elevation)
    eye = distance * torch.tensor([0.0, -math.cos(angle), math.sin(angle)], dtype=torch.float64)
    return look_at(eye, torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def rotation_about(axis: str, angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation by ``angle`` (radians) about the coordinate axis ``"x"``, ``"y"`` or ``"z"``."""
    vector = torch.zeros(*angle.shape, 6, dtype=angle.dtype, device=angle.device)
    vector[..., "xyz".index(axis)] = angle
    return exp_se3(vector)[..., :3, :3]


def random_rotation(
    *batch: int, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*batch 3 3"]:
    """Rotations drawn uniformly from SO(3)."""
    q = torch.nn.functional.normalize(torch.randn(*batch, 4, generator=generator, dtype=dtype), dim=-1)
    w, x, y, z = q.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*batch, 3, 3)


def random_rigid(
    *batch: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
    translation: float = 1.0,
) -> Float[Tensor, "*batch 4 4"]:
    """Uniform rotations with normal translations of standard deviation ``translation``."""
    offset = translation * torch.randn(*batch, 3, generator=generator, dtype=dtype)
    return rigid(random_rotation(*batch, generator=generator, dtype=dtype), offset)


def focal_over_side(degrees: float) -> float:
    """Focal length over the side of an image that is seen at a full angle of view in degrees."""
    return 0.5 / math.tan(0.5 * math.radians(degrees))


def field_of_view(focal: float, size: int | float) -> float:
    """Full angle of view in radians of ``size`` pixels at ``focal`` pixels."""
    return 2 * math.atan(0.5 * size / focal)
