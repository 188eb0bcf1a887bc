"""Camera paths: orbit, spiral, lemniscate, dolly, dolly-zoom, pan, roll, move, and splines through keyframes.

Every path starts from a ``View``, the camera and centre that it moves about, so that it lies in the scene's own frame
and scale. Angles are in degrees, lengths in world units unless a parameter says otherwise.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import interpolate_poses, look_at, rotation_about
from kaleidoscene.geometry.view import Start, View, as_view


def _repeat(view: View, poses: Float[Tensor, "frames 4 4"]) -> Cameras:
    return Cameras(poses, view.camera.intrinsics.expand(len(poses), 3, 3).clone(), view.camera.image_size)


def _check_frames(frames: int) -> None:
    if frames < 1:
        raise KaleidosceneError(f"A path needs at least one frame, got {frames}.")


def _fractions(frames: int, view: View, *, closed: bool) -> Float[Tensor, " frames"]:
    _check_frames(frames)
    like = view.camera.world_from_cam
    count = frames if closed else max(frames - 1, 1)
    return torch.arange(frames, dtype=like.dtype, device=like.device) / count


def _turned_about_up(view: View, angle: Float[Tensor, " frames"]) -> Float[Tensor, "frames 3"]:
    """Offsets from the centre: the start's, turned about the up axis (Rodrigues)."""
    up = torch.nn.functional.normalize(view.up, dim=0)
    offset = view.camera.centres - view.centre
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    return offset * cos + torch.linalg.cross(up, offset, dim=-1) * sin + up * (up @ offset) * (1 - cos)


def orbit(start: Start, frames: int, *, degrees: float = 360.0, elevation: float | None = None) -> Cameras:
    """A circle about the up axis through the centre, looking at the centre.

    Args:
        start: Where the path starts.
        frames: Number of cameras; a full circle does not repeat its first.
        degrees: Angle of the arc, positive counter-clockwise seen from above.
        elevation: Elevation of the circle above the centre; by default that of the start.
    """
    view = as_view(start)
    closed = abs(abs(degrees) - 360) < 1e-9
    angle = math.radians(degrees) * _fractions(frames, view, closed=closed)
    if elevation is not None:
        view = _at_elevation(view, math.radians(elevation))
    return _repeat(view, look_at(view.centre + _turned_about_up(view, angle), view.centre.expand(frames, 3), view.up))


def _at_elevation(view: View, elevation: float) -> View:
    up = torch.nn.functional.normalize(view.up, dim=0)
    offset = view.camera.centres - view.centre
    level = offset - up * (up @ offset)
    if level.norm() < 1e-6 * offset.norm():
        level = view.camera.world_from_cam[:3, 0]
    level = torch.nn.functional.normalize(level, dim=0)
    position = view.centre + offset.norm() * (math.cos(elevation) * level + math.sin(elevation) * up)
    pose = look_at(position, view.centre, view.up)
    return replace(view, camera=replace(view.camera, world_from_cam=pose))


def sphere(start: Start, frames: int) -> Cameras:
    """All around the centre at the distance of the start, evenly spread (Fibonacci's lattice), looking at the centre.

    Args:
        start: Its distance and up count.
        frames: Number of cameras.
    """
    view = as_view(start)
    _check_frames(frames)
    like = view.camera.world_from_cam
    number = torch.arange(frames, dtype=like.dtype, device=like.device)
    height = 1 - (2 * number + 1) / frames
    angle = number * (math.pi * (3 - math.sqrt(5)))
    level = _at_elevation(view, 0.0).camera.centres - view.centre
    up = torch.nn.functional.normalize(view.up, dim=0)
    other = torch.linalg.cross(up, level, dim=-1)
    flat = (1 - height.square()).sqrt()[:, None] * (angle.cos()[:, None] * level + angle.sin()[:, None] * other)
    offsets = flat + height[:, None] * view.distance * up
    return _repeat(view, look_at(view.centre + offsets, view.centre.expand(frames, 3), view.up))


def rings(start: Start, *, azimuths: int = 12, elevations: Sequence[float] = (-30.0, 0.0, 30.0)) -> Cameras:
    """Circles at several elevations, one after the other; by default the 36 views that EscherNet and Kaleido fit a
    mesh to (method A.15).

    Args:
        start: Its distance, direction and up count.
        azimuths: Cameras of a circle.
        elevations: Of the circles, degrees.
    """
    view = as_view(start)
    return Cameras.concatenate([orbit(view, azimuths, elevation=elevation) for elevation in elevations])


def spiral(
    start: Start, frames: int, *, turns: float = 2.0, radius: float | None = None, depth: float | None = None
) -> Cameras:
    """Circles in the image plane with a swing along the optical axis, looking at the centre (LLFF's path).

    Args:
        start: Where the path starts.
        frames: Number of cameras.
        turns: Number of circles.
        radius: Of the circles, in distances to the centre; by default a quarter, or less where the cameras of the
            capture stand closer together.
        depth: Swing along the axis, in distances to the centre; by default 0.8 of the radius.
    """
    view = as_view(start)
    radius = view.within_reach(0.25) if radius is None else radius
    depth = 0.8 * radius if depth is None else depth
    phase = 2 * math.pi * turns * _fractions(frames, view, closed=True)
    offsets = torch.stack([radius * phase.cos(), radius * phase.sin(), depth * (phase / (2 * turns)).sin()], -1)
    return _offset_path(view, view.distance * offsets)


def lemniscate(start: Start, frames: int, *, radius: float | None = None) -> Cameras:
    """A lying figure eight in the image plane, looking at the centre.

    ``radius`` is in distances to the centre; by default 0.4, or less where the cameras of the capture stand closer
    together.
    """
    view = as_view(start)
    radius = view.within_reach(0.4) if radius is None else radius
    phase = 2 * math.pi * _fractions(frames, view, closed=True)
    scale = view.distance * radius / (1 + phase.sin() ** 2)
    offsets = torch.stack([scale * phase.cos(), scale * phase.sin() * phase.cos(), torch.zeros_like(phase)], dim=-1)
    return _offset_path(view, offsets)


def _offset_path(view: View, offsets: Float[Tensor, "frames 3"]) -> Cameras:
    """Positions offset in the start camera's axes, looking at the centre."""
    positions = view.camera.centres + offsets @ view.camera.world_from_cam[:3, :3].mT
    return _repeat(view, look_at(positions, view.centre.expand_as(positions), view.up))


def move(start: Start, frames: int, *, direction: str = "forward", amount: float = 0.5) -> Cameras:
    """A straight line without turning; ``amount`` in distances to the centre.

    ``direction`` is forward, backward, left, right, up or down, in the camera's own axes.
    """
    view = as_view(start)
    axes = {
        "forward": (0, 0, 1), "backward": (0, 0, -1), "left": (-1, 0, 0),
        "right": (1, 0, 0), "up": (0, -1, 0), "down": (0, 1, 0),
    }  # fmt: skip
    if direction not in axes:
        raise unknown_name("direction", direction, axes)
    step = view.camera.world_from_cam[:3, :3] @ view.centre.new_tensor(axes[direction])
    way = _fractions(frames, view, closed=False) * amount * view.distance
    poses = view.camera.world_from_cam.expand(frames, 4, 4).clone()
    poses[:, :3, 3] = poses[:, :3, 3] + way[:, None] * step
    return _repeat(view, poses)


def dolly(start: Start, frames: int, *, factor: float = 0.5) -> Cameras:
    """Along the line to the centre, from the start's distance to ``factor`` times it, looking at the centre."""
    view = as_view(start)
    if factor <= 0:
        raise KaleidosceneError(f"The dolly factor must be positive, got {factor}.")
    scale = 1 + (factor - 1) * _fractions(frames, view, closed=False)
    positions = view.centre + scale[:, None] * (view.camera.centres - view.centre)
    return _repeat(view, look_at(positions, view.centre.expand_as(positions), view.up))


def dolly_zoom(start: Start, frames: int, *, factor: float = 0.5) -> Cameras:
    """:func:`dolly` with a focal length that keeps things at the centre's distance equally large (Hitchcock's shot)."""
    view = as_view(start)
    path = dolly(view, frames, factor=factor)
    ratio = (path.centres - view.centre).norm(dim=-1) / view.distance
    intrinsics = path.intrinsics.clone()
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = intrinsics[:, 0, 0] * ratio, intrinsics[:, 1, 1] * ratio
    return replace(path, intrinsics=intrinsics)


def pan(start: Start, frames: int, *, degrees: float = 30.0) -> Cameras:
    """Turn in place about the camera's vertical axis, positive to the right."""
    view = as_view(start)
    return _turn(view, "y", math.radians(degrees) * _fractions(frames, view, closed=False))


def roll(start: Start, frames: int, *, degrees: float = 90.0) -> Cameras:
    """Turn in place about the optical axis, positive clockwise."""
    view = as_view(start)
    return _turn(view, "z", math.radians(degrees) * _fractions(frames, view, closed=False))


def _turn(view: View, axis: str, angle: Float[Tensor, " frames"]) -> Cameras:
    poses = view.camera.world_from_cam.expand(len(angle), 4, 4).clone()
    poses[:, :3, :3] = poses[:, :3, :3] @ rotation_about(axis, angle)
    return _repeat(view, poses)


def spline(keyframes: Cameras, frames: int, *, closed: bool = False) -> Cameras:
    """A smooth path through keyframes: uniform Catmull-Rom positions, geodesic rotations, linear intrinsics.

    Raises:
        KaleidosceneError: Fewer than two keyframes.
    """
    _check_frames(frames)
    count = len(keyframes)
    if count < 2:
        raise KaleidosceneError(f"A spline needs at least 2 keyframes, got {count}.")
    segments = count if closed else count - 1
    like = keyframes.centres
    place = torch.arange(frames, dtype=like.dtype) / (frames if closed else max(frames - 1, 1)) * segments
    first = place.floor().long().clamp(max=segments - 1)
    fraction = (place - first).to(like)

    def key(offset: int) -> Tensor:
        index = first + offset
        return index % count if closed else index.clamp(0, count - 1)

    before, start, end, after = (keyframes.centres[key(n)] for n in (-1, 0, 1, 2))
    f = fraction[:, None]
    positions = 0.5 * (
        2 * start + (end - before) * f + (2 * before - 5 * start + 4 * end - after) * f**2
        + (3 * start - before - 3 * end + after) * f**3
    )  # fmt: skip
    poses = interpolate_poses(keyframes.world_from_cam[key(0)], keyframes.world_from_cam[key(1)], fraction).clone()
    poses[:, :3, 3] = positions
    intrinsics = torch.lerp(keyframes.intrinsics[key(0)], keyframes.intrinsics[key(1)], fraction[:, None, None])
    return Cameras(poses, intrinsics, keyframes.image_size)


PRESETS: dict[str, Callable[..., Cameras]] = {
    "orbit": orbit,
    "sphere": sphere,
    "spiral": spiral,
    "lemniscate": lemniscate,
    "dolly": dolly,
    "dolly-zoom": dolly_zoom,
    "pan": pan,
    "roll": roll,
    "move": move,
}
"""Paths that start from a single view, by the name the command line knows them by."""


def preset(text: str, start: Start, frames: int) -> Cameras:
    """A preset path by name, with parameters as in ``"orbit:degrees=180,elevation=30"``.

    Raises:
        KaleidosceneError: There is no such preset or parameter, or its value is none.
    """
    name, _, rest = text.partition(":")
    if name not in PRESETS:
        raise unknown_name("trajectory", name, PRESETS)
    kinds = {
        key: p.annotation for key, p in inspect.signature(PRESETS[name]).parameters.items() if p.kind is p.KEYWORD_ONLY
    }
    options: dict[str, float | str] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key not in kinds:
            raise unknown_name(f"parameter of {name}", key, kinds)
        try:
            options[key] = value if kinds[key] == "str" else float(value)
        except ValueError:
            raise KaleidosceneError(f"Trajectory {name}: {key} must be a number, got {value!r}.") from None
    return PRESETS[name](start, frames, **options)
