"""Places for objects to stand in: rooms with textured walls and furniture, and open ground under a sky."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8

from kaleidoscene.datasets.synthetic.mesh import TexturedMesh
from kaleidoscene.datasets.synthetic.procedural import random_object
from kaleidoscene.datasets.synthetic.textures import random_texture
from kaleidoscene.datasets.synthetic.viewpoints import UP, stand_off
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point, mean_centre
from kaleidoscene.geometry.poses import look_at

# Least distance of a camera from walls and furniture, in sides of the object's box; draws before it comes nearer.
_CLEARANCE, _ATTEMPTS = 0.3, 12
_OUTDOORS = 0.3

Images = list[UInt8[np.ndarray, "h w 3"]]
Box = Float[np.ndarray, "2 3"]


@dataclass(frozen=True, eq=False)
class Room:
    """A closed box around an object in the unit box, with more objects on its floor.

    Attributes:
        parts: The object, walls and furniture.
        inside: Lowest and highest corner.
        taken: Corners of what stands there: cameras keep out of it.
    """

    parts: list[TexturedMesh]
    inside: Box
    taken: list[Box]

    def is_free(self, place: Float[np.ndarray, " 3"]) -> bool:
        """Whether a camera may stand there."""
        if (place < self.inside[0] + _CLEARANCE).any() or (place > self.inside[1] - _CLEARANCE).any():
            return False
        return all((place < low - _CLEARANCE).any() or (place > high + _CLEARANCE).any() for low, high in self.taken)


def random_room(parts: list[TexturedMesh], draw: np.random.Generator, photographs: Images) -> Room:
    """Put an object into a room or, three times in ten, onto open ground; the ground is where its lowest point is."""
    outdoors = draw.random() < _OUTDOORS
    low, high = ((8.0, 20.0) if outdoors else (1.6, 7.0)), ((6.0, 15.0) if outdoors else (1.8, 5.0))
    ground = _corners(parts)[0, 2]
    half = np.exp(draw.uniform(math.log(low[0]), math.log(low[1]), 2))
    height = math.exp(draw.uniform(math.log(high[0]), math.log(high[1])))
    inside = np.array([[-half[0], -half[1], ground], [half[0], half[1], ground + height]])
    room, taken = [*parts, *_walls(inside, draw, photographs)], [_corners(parts)]
    for _ in range(int(draw.integers(0, 7))):
        piece = random_object(int(draw.integers(2**62)), photographs)
        size, angle = draw.uniform(0.3, 1.6), draw.uniform(0, 2 * math.pi)
        reach = min(draw.uniform(0.9, 4.0) + 0.4 * size, float(half.min()) - 0.3 * size)
        lowest = size * _corners(piece)[0, 2]
        place = np.array([reach * math.cos(angle), reach * math.sin(angle), ground - lowest], np.float32)
        moved = [part.transformed(size * np.eye(3, dtype=np.float32), place) for part in piece]
        if not _overlap(_corners(moved), taken[0]):
            room += moved
            taken.append(_corners(moved))
    return Room(room, inside, taken)


def sample_inside(
    room: Room, angles: Float[torch.Tensor, " views"], image_size: tuple[int, int], draw: np.random.Generator
) -> Cameras:
    """Random cameras in a room.

    Half go around the object (the whole circle, or a part of it), the others stand beside each other before it as in
    a forward-facing capture, or anywhere near a point of the room and look about.

    Args:
        room: Where they are.
        angles: Fields of view in radians, one for each; the wider it is, the nearer the camera stands.
        image_size: ``(height, width)``.
        draw: Random numbers.
    """
    style = draw.choice(["around", "beside", "about"], p=[0.5, 0.25, 0.25])
    azimuth, elevation = draw.uniform(0, 2 * math.pi), math.radians(draw.uniform(4, 45))
    spread = math.pi if draw.random() < 0.4 else math.radians(draw.uniform(15, 60))
    distance, reach = draw.uniform(1.3, 2.4), draw.uniform(0.1, 0.45)
    centre = np.zeros(3) if style == "around" else draw.normal(0, 0.3, 3) * (1, 1, 0.3)
    places, targets = [], []
    for longer in (distance * stand_off(angles)).tolist():
        place = centre
        for attempt in range(20 * _ATTEMPTS):
            if style == "around":
                way = _direction(azimuth + draw.uniform(-spread, spread), elevation + math.radians(draw.normal(0, 10)))
                place = longer * draw.uniform(0.85, 1.15) * way
            else:
                place = longer * _direction(azimuth, elevation) + draw.normal(0, reach * (1 + (style == "about")), 3)
            # Where there is no room at this distance the camera comes nearer, and at last it stands anywhere.
            place = centre + (place - centre) * 0.93 ** max(0, attempt - _ATTEMPTS)
            if attempt >= 3 * _ATTEMPTS:
                place = draw.uniform(*room.inside)
            if room.is_free(place):
                break
        places.append(place)
        targets.append(centre + draw.normal(0, 0.4 if style == "about" else 0.08, 3))
    poses = look_at(torch.tensor(np.array(places)).float(), torch.tensor(np.array(targets)).float(), UP)
    return Cameras.from_field_of_view(poses, angles, image_size)


def moved_to_focus(parts: list[TexturedMesh], cameras: Cameras) -> tuple[list[TexturedMesh], Cameras]:
    """The same world with its origin where a capture of it has it: in what the cameras look at."""
    try:
        origin = focus_point(cameras.to(torch.float64))
    except KaleidosceneError:
        origin = mean_centre(cameras.to(torch.float64))
    poses = cameras.world_from_cam.clone()
    poses[:, :3, 3] -= origin.to(poses)
    offset = -origin.numpy().astype(np.float32)
    moved = [part.transformed(np.eye(3, dtype=np.float32), offset) for part in parts]
    return moved, Cameras(poses, cameras.intrinsics, cameras.image_size)


def _direction(azimuth: float, elevation: float) -> Float[np.ndarray, " 3"]:
    flat = math.cos(elevation)
    return np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])


def _corners(parts: list[TexturedMesh]) -> Box:
    points = np.concatenate([part.vertices for part in parts])
    return np.stack([points.min(0), points.max(0)]).astype(np.float64)


def _overlap(one: Box, other: Box) -> bool:
    return bool((one[0] < other[1]).all() and (other[0] < one[1]).all())


def _walls(inside: Box, draw: np.random.Generator, photographs: Images) -> list[TexturedMesh]:
    """The six sides of a box, seen from within: a floor, a ceiling and walls of one or two kinds."""
    kinds = [(random_texture(draw, photographs), math.exp(draw.uniform(-0.7, 1.4))) for _ in range(4)]
    second = 2 if draw.random() < 0.5 else 3
    walls = []
    for axis in range(3):
        for side in range(2):
            texture, tile = kinds[side if axis == 2 else (2, second)[axis]]
            walls.append(_wall(inside, axis, side, texture, tile))
    return walls


def _wall(inside: Box, axis: int, side: int, texture: UInt8[np.ndarray, "h w 3"], tile: float) -> TexturedMesh:
    """One side, its texture repeated every ``tile`` units."""
    first, second = [(1, 2), (0, 2), (0, 1)][axis]
    corners = np.repeat(inside[side][None], 4, 0)
    corners[:, first] = inside[[0, 1, 1, 0], first]
    corners[:, second] = inside[[0, 0, 1, 1], second]
    normal = np.zeros((4, 3), np.float32)
    normal[:, axis] = 1.0 if side == 0 else -1.0
    uv = corners[:, [first, second]] / tile
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    return TexturedMesh(corners.astype(np.float32), normal, uv.astype(np.float32), faces, texture)
