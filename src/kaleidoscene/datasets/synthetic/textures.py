"""Procedural textures: noise, stripes, checks, spots, gradients and panels in random palettes."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

SIZE = 128

FloatImage = Float[np.ndarray, "h w"]


def random_texture(
    generator: np.random.Generator, photographs: list[UInt8[np.ndarray, "h w 3"]]
) -> UInt8[np.ndarray, "h w 3"]:
    """One texture: a photograph if there are any (one in three), else a pattern in random colours."""
    if photographs and generator.random() < 0.35:
        image = photographs[generator.integers(len(photographs))]
        return _recolour(image, generator)
    colours = _palette(generator, int(generator.integers(2, 6)))
    pattern = _PATTERNS[generator.integers(len(_PATTERNS))](generator)
    if generator.random() < 0.5:
        pattern = (pattern + 0.4 * _noise(generator)) / 1.4
    image = _colour_map(pattern, colours, smooth=generator.random() < 0.4)
    if generator.random() < 0.5:
        image = _stamp(image, generator)
    return image


def _noise(generator: np.random.Generator) -> FloatImage:
    """Values in [0, 1]: three octaves of smooth noise, stretched to the full range."""
    total = np.zeros((SIZE, SIZE), np.float32)
    base = int(generator.integers(2, 6))
    for octave in range(3):
        cells = generator.random((base * 2**octave, base * 2**octave)).astype(np.float32)
        total += np.asarray(Image.fromarray(cells).resize((SIZE, SIZE), Image.Resampling.BICUBIC)) / 2**octave
    return (total - total.min()) / max(float(np.ptp(total)), 1e-6)


def _coordinates(generator: np.random.Generator) -> tuple[FloatImage, FloatImage]:
    """Turned and shifted coordinates of the texture."""
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    angle = generator.choice([0.0, np.pi / 2, generator.uniform(0, np.pi)])
    return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _stripes(generator: np.random.Generator) -> FloatImage:
    u, _ = _coordinates(generator)
    return (0.5 + 0.5 * np.sin(2 * np.pi * (generator.uniform(1, 8) * u + generator.random()))).astype(np.float32)


def _checks(generator: np.random.Generator) -> FloatImage:
    u, v = _coordinates(generator)
    count = generator.uniform(2, 8)
    return ((np.floor(u * count) + np.floor(v * count)) % 2).astype(np.float32)


def _spots(generator: np.random.Generator) -> FloatImage:
    y, x = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32) / SIZE
    count = int(generator.integers(3, 25))
    centres, radii = generator.random((count, 2)), generator.uniform(0.03, 0.2, count)
    inside = np.zeros((SIZE, SIZE), np.float32)
    for (cx, cy), radius in zip(centres, radii, strict=True):
        inside = np.maximum(inside, ((x - cx) ** 2 + (y - cy) ** 2 < radius**2) * generator.uniform(0.4, 1))
    return inside.astype(np.float32)


def _gradient(generator: np.random.Generator) -> FloatImage:
    u, _ = _coordinates(generator)
    return ((u - u.min()) / max(float(np.ptp(u)), 1e-6)).astype(np.float32)


def _panels(generator: np.random.Generator) -> FloatImage:
    """Nested random rectangles, as on packaging."""
    image = np.full((SIZE, SIZE), generator.random(), np.float32)
    for _ in range(int(generator.integers(3, 14))):
        top, left = generator.integers(0, SIZE - 8, 2)
        height, width = generator.integers(6, SIZE // 2, 2)
        image[top : top + height, left : left + width] = generator.random()
    return image


def _plain(generator: np.random.Generator) -> FloatImage:
    return np.full((SIZE, SIZE), generator.random(), np.float32)


_PATTERNS: list[Callable[[np.random.Generator], FloatImage]] = [
    _noise, _noise, _stripes, _checks, _spots, _gradient, _panels, _panels, _plain,
]  # fmt: skip


def _palette(generator: np.random.Generator, count: int) -> Float[np.ndarray, "count 3"]:
    """Colours of one family: a common tone, with contrast between them."""
    tone = generator.random(3)
    spread = generator.uniform(0.2, 1.0)
    colours = (1 - spread) * tone + spread * generator.random((count, 3))
    grey = colours.mean(1, keepdims=True)
    return np.clip(grey + generator.uniform(0.3, 1.3) * (colours - grey), 0.02, 0.98).astype(np.float32)


def _colour_map(
    values: FloatImage, colours: Float[np.ndarray, "count 3"], *, smooth: bool
) -> UInt8[np.ndarray, "h w 3"]:
    place = np.clip(values, 0, 1) * (len(colours) - 1)
    if not smooth:
        return (255 * colours[np.round(place).astype(int)]).astype(np.uint8)
    low = np.floor(place).astype(int).clip(0, len(colours) - 2)
    part = (place - low)[..., None]
    return (255 * ((1 - part) * colours[low] + part * colours[low + 1])).astype(np.uint8)


def _stamp(image: UInt8[np.ndarray, "h w 3"], generator: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Lay a few lines and bars of another colour over it: something like print."""
    image = image.copy()
    colour = (255 * generator.random(3)).astype(np.uint8)
    for _ in range(int(generator.integers(1, 7))):
        top, left = generator.integers(0, SIZE, 2)
        height, width = generator.integers(2, 8), generator.integers(8, 70)
        if generator.random() < 0.3:
            height, width = width, height
        image[top : top + height, left : left + width] = colour
    return image


def _recolour(image: UInt8[np.ndarray, "h w 3"], generator: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Permute the channels of a photograph and change its gamma."""
    values = (image[..., generator.permutation(3)].astype(np.float32) / 255) ** generator.uniform(0.6, 1.6)
    return (255 * values).astype(np.uint8)
