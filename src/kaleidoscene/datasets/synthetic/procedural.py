"""Endless seeded objects: primitives put together, bent and textured at random.

In the spirit of LRM-Zero's Zeroverse and MegaSynth, which showed that shapes without meaning teach view synthesis.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, UInt8

from kaleidoscene.datasets.synthetic.mesh import TexturedMesh, fit_unit_box
from kaleidoscene.datasets.synthetic.textures import random_texture

Profile = Float[np.ndarray, "n 2"]
_AROUND = 28


def random_object(seed: int, photographs: list[UInt8[np.ndarray, "h w 3"]] | None = None) -> list[TexturedMesh]:
    """The object of a seed: 1 to 8 textured parts in the unit box; the same seed gives the same object.

    Args:
        seed: Any non-negative number.
        photographs: Textures to draw from beside the procedural ones.
    """
    generator = np.random.default_rng(seed)
    count = int(generator.choice([1, 2, 3, 4, 5, 6, 8], p=[0.14, 0.18, 0.2, 0.18, 0.12, 0.1, 0.08]))
    shared = [random_texture(generator, photographs or []) for _ in range(int(generator.integers(1, count + 1)))]
    parts: list[TexturedMesh] = []
    for number in range(count):
        part = _primitive(generator, shared[generator.integers(len(shared))])
        size = generator.uniform(0.35, 1.0, 3) * (1.0 if number == 0 else generator.uniform(0.2, 0.8))
        rotation = _random_rotation(generator) if number and generator.random() < 0.6 else np.eye(3)
        # Parts grow out of a random vertex of what stands already, so that the object hangs together.
        anchor = np.zeros(3)
        if parts:
            host = parts[generator.integers(len(parts))].vertices
            anchor = host[generator.integers(len(host))] * generator.uniform(0.5, 1.0)
        parts.append(part.transformed(rotation @ np.diag(size), anchor))
    if generator.random() < 0.3:
        parts = _mirrored(parts, generator)
    if generator.random() < 0.35:
        parts = [_bent(part, generator.uniform(-1.2, 1.2), generator.uniform(-0.5, 0.5)) for part in parts]
    return fit_unit_box(parts)


def _primitive(generator: np.random.Generator, texture: UInt8[np.ndarray, "h w 3"]) -> TexturedMesh:
    kind = generator.choice(["box", "lathe", "superquadric", "torus"], p=[0.3, 0.35, 0.25, 0.1])
    if kind == "box":
        return _box(texture)
    if kind == "torus":
        return _grid_surface(_torus(generator.uniform(0.15, 0.45)), texture)
    if kind == "superquadric":
        return _grid_surface(_superquadric(generator.uniform(0.2, 1.6), generator.uniform(0.2, 1.6)), texture)
    return _grid_surface(_lathe(_random_profile(generator)), texture)


def _random_rotation(generator: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    q, r = np.linalg.qr(generator.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q


def _box(texture: UInt8[np.ndarray, "h w 3"]) -> TexturedMesh:
    """Unit cube with every face showing another part of the texture."""
    vertices, normals, uv, faces = [], [], [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            normal = np.zeros(3)
            normal[axis] = sign
            a, b = (
                np.roll(np.eye(3), axis, axis=0)[1:]
                if axis == 0
                else (np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3])
            )
            start = len(vertices)
            cell = (2 * axis + (sign > 0)) % 6
            for du, dv in ((0, 0), (1, 0), (1, 1), (0, 1)):
                vertices.append(0.5 * normal + (du - 0.5) * a + (dv - 0.5) * b)
                normals.append(normal)
                uv.append(((cell % 3 + du) / 3, (cell // 3 + dv) / 2))
            faces += [(start, start + 1, start + 2), (start, start + 2, start + 3)]
    return TexturedMesh(
        np.array(vertices, np.float32), np.array(normals, np.float32), np.array(uv, np.float32),
        np.array(faces, np.int32), texture,
    )  # fmt: skip


def _grid_surface(
    surface: Callable[[np.ndarray, np.ndarray], np.ndarray], texture: UInt8[np.ndarray, "h w 3"]
) -> TexturedMesh:
    """Triangulate ``surface(u, v)`` over the unit square, with normals from its own triangles."""
    n = _AROUND
    u, v = np.meshgrid(np.linspace(0, 1, n + 1), np.linspace(0, 1, n + 1), indexing="ij")
    points = surface(u, v).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    corner = (i * (n + 1) + j).reshape(-1)
    faces = np.concatenate(
        [np.stack([corner, corner + n + 1, corner + n + 2], 1), np.stack([corner, corner + n + 2, corner + 1], 1)]
    )
    uv = np.stack([u.reshape(-1), v.reshape(-1)], 1).astype(np.float32)
    return TexturedMesh(points.astype(np.float32), _vertex_normals(points, faces), uv, faces.astype(np.int32), texture)


def _vertex_normals(points: Float[np.ndarray, "n 3"], faces: Int[np.ndarray, "m 3"]) -> Float[np.ndarray, "n 3"]:
    """Area-weighted means of the face normals."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(points)
    for k in range(3):
        np.add.at(normals, faces[:, k], face)
    return (normals / np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-12)).astype(np.float32)


def _superquadric(e1: float, e2: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Ellipsoids, cylinders, pillows and octahedra by two exponents (Barr 1981)."""

    def power(x: np.ndarray, e: float) -> np.ndarray:
        return np.sign(x) * np.abs(x) ** e

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        longitude, latitude = 2 * np.pi * u - np.pi, np.pi * (v - 0.5)
        ring = power(np.cos(latitude), e1)
        x, y = ring * power(np.cos(longitude), e2), ring * power(np.sin(longitude), e2)
        return 0.5 * np.stack([x, y, power(np.sin(latitude), e1)], axis=-1)

    return surface


def _torus(thickness: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        a, b = 2 * np.pi * u, 2 * np.pi * v
        ring = 0.5 * (1 - thickness / 2) + 0.5 * thickness * np.cos(b)
        return np.stack([ring * np.cos(a), ring * np.sin(a), 0.5 * thickness * np.sin(b)], axis=-1)

    return surface


def _random_profile(generator: np.random.Generator) -> Profile:
    """Radius over height of a turned body: smooth as a vase, or in steps as a bottle."""
    count = int(generator.integers(3, 7))
    height = np.concatenate([[0.0], np.sort(generator.random(count - 2)), [1.0]])
    radius = generator.uniform(0.15, 1.0, count)
    if generator.random() < 0.4:
        height, radius = np.repeat(height, 2)[1:-1], np.repeat(radius[:-1], 2)
    closed = np.concatenate([[0.0], radius, [0.0]])
    return np.stack([closed, np.concatenate([[0.0], height, [1.0]])], 1)


def _lathe(profile: Profile) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Turn a profile about z, walking along it at constant speed so that steps stay sharp."""
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])

    def surface(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        radius = np.interp(v * length[-1], length, profile[:, 0])
        z = np.interp(v * length[-1], length, profile[:, 1]) - 0.5
        return np.stack([0.5 * radius * np.cos(2 * np.pi * u), 0.5 * radius * np.sin(2 * np.pi * u), z], axis=-1)

    return surface


def _mirrored(parts: list[TexturedMesh], generator: np.random.Generator) -> list[TexturedMesh]:
    """Add the mirror image of every part but the first: left and right arms, wheels, handles."""
    axis = np.ones(3)
    axis[generator.integers(2)] = -1
    return parts + [part.transformed(np.diag(axis), np.zeros(3)) for part in parts[1:]]


def _bent(part: TexturedMesh, twist: float, taper: float) -> TexturedMesh:
    """Twist about z by ``twist`` radians a unit and taper by ``taper`` a unit; normals are made anew."""
    points = part.vertices.astype(np.float64)
    z = points[:, 2]
    cos, sin, grow = np.cos(twist * z), np.sin(twist * z), np.clip(1 + taper * z, 0.3, 1.7)
    bent = np.stack(
        [grow * (cos * points[:, 0] - sin * points[:, 1]), grow * (sin * points[:, 0] + cos * points[:, 1]), z], 1
    )
    return TexturedMesh(bent.astype(np.float32), _vertex_normals(bent, part.faces), part.uv, part.faces, part.texture)
