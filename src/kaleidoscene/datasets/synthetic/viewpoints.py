"""Where cameras stand around an object that fits a unit box."""

import math
from dataclasses import replace
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import unknown_name
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at, rotation_about

ViewpointKind = Literal["eschernet", "wide", "near"]
FIELD_OF_VIEW = 2 * torch.atan(torch.tensor(128 / 280, dtype=torch.float64)).item()
"""49.1 degrees: focal length 280 at 256 px, as the EscherNet renders have it."""
UP = torch.tensor([0.0, 0.0, 1.0])


def sample_viewpoints(
    kind: ViewpointKind,
    count: int,
    image_size: tuple[int, int],
    generator: torch.Generator,
    angles: Float[Tensor, " views"] | None = None,
) -> Cameras:
    """Random cameras around the origin, z up.

    ``eschernet`` is the distribution of the GSO-30 renders: directions uniform on the sphere, distance uniform in
    [1.5, 2.2], looking at the centre, upright. ``wide`` has distances in [1.3, 2.8], looks beside the centre, rolls.
    ``near`` is ``eschernet`` with all directions around a random one, about 25 degrees off: views that share surface.

    Args:
        kind: Distribution.
        count: Cameras.
        image_size: ``(height, width)``.
        generator: Random numbers.
        angles: Fields of view in radians, one for each (:func:`stand_off` moves them); None: :data:`FIELD_OF_VIEW`.
    """
    if kind not in get_args(ViewpointKind):
        raise unknown_name("kind of viewpoints", kind, get_args(ViewpointKind))
    direction = torch.randn(count, 3, generator=generator)
    if kind == "near":
        middle = torch.nn.functional.normalize(torch.randn(1, 3, generator=generator), dim=-1)
        direction = middle + 0.35 * direction
    direction = torch.nn.functional.normalize(direction, dim=-1)
    low, high = (1.3, 2.8) if kind == "wide" else (1.5, 2.2)
    distance = low + (high - low) * torch.rand(count, 1, generator=generator)
    target = torch.zeros(count, 3)
    if kind == "wide":
        target = 0.12 * torch.randn(count, 3, generator=generator)
    if angles is not None:
        distance = distance * stand_off(angles).to(distance)[:, None]
    poses = look_at(direction * distance, target, UP)
    if kind == "wide":
        poses = poses.clone()
        poses[:, :3, :3] = poses[:, :3, :3] @ rotation_about("z", 0.15 * torch.randn(count, generator=generator))
    return Cameras.from_field_of_view(poses, FIELD_OF_VIEW if angles is None else angles, image_size)


def random_angles(lenses: tuple[float, float] | None, count: int, generator: torch.Generator) -> Tensor:
    """Fields of view in radians of the cameras of a scene: one for all or, one time in four, one for each.

    Args:
        lenses: Least and greatest, in degrees, between which they are drawn evenly; None: all have the one of
            :data:`FIELD_OF_VIEW`.
        count: Cameras.
        generator: Random numbers.
    """
    if lenses is None:
        return torch.full((count,), FIELD_OF_VIEW, dtype=torch.float64)
    mixed = float(torch.rand((), generator=generator)) < 0.25
    drawn = torch.rand(count if mixed else 1, generator=generator, dtype=torch.float64)
    return torch.deg2rad(lenses[0] + (lenses[1] - lenses[0]) * drawn).expand(count).clone()


def stand_off(angles: Float[Tensor, " views"]) -> Float[Tensor, " views"]:
    """How much farther than at :data:`FIELD_OF_VIEW` a camera stands: objects keep about their size, within bounds."""
    return ((math.tan(FIELD_OF_VIEW / 2) / torch.tan(angles / 2)) ** 0.7).clamp(0.62, 1.6)


def shifted(cameras: Cameras, share: float, generator: torch.Generator) -> Cameras:
    """The same cameras with their principal points moved by up to ``share`` of the sides, as cropping does."""
    h, w = cameras.image_size
    matrix = cameras.intrinsics.clone()
    matrix[..., :2, 2] += share * (2 * torch.rand(len(cameras), 2, generator=generator) - 1) * torch.tensor([w, h])
    return replace(cameras, intrinsics=matrix)


def sample_path(count: int, image_size: tuple[int, int], generator: torch.Generator) -> Cameras:
    """The cameras of a film around the origin, one to eight degrees from frame to frame.

    They go along a circle that leans up to 40 degrees, come nearer or go away, and look a little beside the centre.
    """
    start, step, lean, rise, near, far = torch.rand(6, generator=generator).tolist()
    way = math.radians(1.0 + 7.0 * step) * (1 if start < 0.5 else -1)
    azimuth = 4 * math.pi * start + way * torch.arange(count)
    elevation = math.radians(80.0 * (rise - 0.5)) + math.radians(40.0 * (lean - 0.5)) * torch.sin(azimuth)
    distance = torch.linspace(1.4 + 0.9 * near, 1.4 + 0.9 * far, count)
    direction = torch.stack([
        elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin(),
    ], dim=-1)  # fmt: skip
    target = 0.1 * torch.randn(1, 3, generator=generator).expand(count, 3)
    return Cameras.from_field_of_view(look_at(direction * distance[:, None], target, UP), FIELD_OF_VIEW, image_size)
