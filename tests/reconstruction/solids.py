"""Solids with known surfaces, as triangles and as pictures."""

import math

import torch

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.geometry.rays import camera_rays


def ball(radius: float, rings: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices and faces of a sphere about the origin, counter-clockwise seen from outside."""
    heights = torch.linspace(0, math.pi, rings + 1)[:, None]
    turns = torch.arange(2 * rings) * (math.pi / rings)
    vertices = radius * torch.stack(
        [heights.sin() * turns.cos(), heights.sin() * turns.sin(), heights.cos() + 0 * turns], dim=-1
    )
    here = torch.arange(rings)[:, None] * 2 * rings + torch.arange(2 * rings)
    beside = torch.arange(rings)[:, None] * 2 * rings + (torch.arange(2 * rings) + 1) % (2 * rings)
    below, across = here + 2 * rings, beside + 2 * rings
    # At the poles one triangle of two has no area.
    faces = torch.cat([
        torch.stack([here, below, across], -1)[:-1].reshape(-1, 3),
        torch.stack([here, across, beside], -1)[1:].reshape(-1, 3),
    ])  # fmt: skip
    return vertices.reshape(-1, 3), faces


def colour_of(directions: torch.Tensor) -> torch.Tensor:
    """A colour that changes slowly over a ball, never near white."""
    return 0.4 + 0.3 * directions


def pictures_of_ball(
    radius: float, image_size: tuple[int, int], count: int, centre: torch.Tensor | None = None
) -> tuple[torch.Tensor, Cameras]:
    """Pictures on white from ``count`` places all around, by intersection of rays with the sphere."""
    centre = torch.zeros(3) if centre is None else centre
    number = torch.arange(count)
    height = 1 - (2 * number + 1) / count
    angle = number * (math.pi * (3 - math.sqrt(5)))
    flat = (1 - height.square()).sqrt()
    eyes = 2.0 * torch.stack([flat * angle.cos(), flat * angle.sin(), height], dim=-1) + centre
    poses = look_at(eyes, centre.expand(count, 3), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras.from_field_of_view(poses, 0.8, image_size)
    images = []
    for view in range(count):
        origin, directions = camera_rays(cameras[view])
        offset = origin - centre
        along = (directions * offset).sum(-1)
        root = along.square() - (offset.square().sum() - radius**2)
        point = offset + (-along - root.clamp_min(0).sqrt())[..., None] * directions
        colour = colour_of(torch.nn.functional.normalize(point, dim=-1))
        images.append(torch.where(root[..., None] > 0, colour, 1.0).movedim(-1, 0))
    return torch.stack(images), cameras
