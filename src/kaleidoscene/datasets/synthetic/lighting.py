"""Lights of a synthetic scene: ambient light and up to four directional lights, fixed to the world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_LIGHTS = 4


@dataclass(frozen=True, eq=False)
class Lighting:
    """Ambient and directional light (Blinn-Phong); the default is an even studio light from above and both sides.

    Attributes:
        ambient: Share of the texture's colour that is there without light.
        directions: Unit vectors towards the lights, world axes.
        colours: RGB of each light.
        specular: Strength of highlights.
        shininess: Their exponent.
    """

    ambient: float = 0.65
    directions: tuple[tuple[float, float, float], ...] = ((0.48, 0.36, 0.8), (-0.64, -0.48, 0.6), (0.36, -0.48, -0.8))
    colours: tuple[tuple[float, float, float], ...] = ((0.3, 0.3, 0.3), (0.2, 0.2, 0.2), (0.12, 0.12, 0.12))
    specular: float = 0.0
    shininess: float = 24.0

    @classmethod
    def random(cls, generator: np.random.Generator) -> Lighting:
        """Varied light: strength, direction and a little colour, sometimes with highlights."""
        count = int(generator.integers(1, MAX_LIGHTS + 1))
        directions = generator.normal(size=(count, 3)) + np.array([0, 0, 0.7])
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        ambient = float(generator.uniform(0.45, 0.9))
        strength = generator.uniform(0.2, 1.0, size=(count, 1)) * (1.15 - ambient) / count * 1.4
        colours = strength * generator.uniform(0.85, 1.0, size=(count, 3))
        specular = float(generator.uniform(0, 0.35)) if generator.random() < 0.3 else 0.0
        return cls(
            ambient,
            tuple(map(tuple, directions.tolist())),
            tuple(map(tuple, colours.tolist())),
            specular,
            float(generator.uniform(8, 60)),
        )

    def apply(self, program: Any) -> None:
        """Write the uniforms of the colour shader."""
        directions, colours = np.zeros((2, MAX_LIGHTS, 3), np.float32)
        directions[: len(self.directions)] = self.directions
        colours[: len(self.colours)] = self.colours
        program["ambient"].value = self.ambient
        program["num_lights"].value = len(self.directions)
        program["light_direction"].write(directions.tobytes())
        program["light_colour"].write(colours.tobytes())
        program["specular"].value = self.specular
        program["shininess"].value = self.shininess
