"""What RnG makes of photographs: keys and values, cameras, and the world they are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.families.rng.model import Sources
from kaleidoscene.families.rng.world import SourceWorld
from kaleidoscene.geometry.cameras import Cameras


@dataclass(frozen=True, eq=False)
class RngScene:
    """A scene; targets are asked for in the world of ``cameras``.

    Attributes:
        sources: What the network keeps.
        world: From the world of the cameras to that of the first source.
        cameras: As they were given; where none were, those that the network estimates.
        estimated: As the network estimates them, in the same world, whether any were given or not; None of a network
            without a camera head.
    """

    sources: Sources
    world: SourceWorld
    cameras: Cameras | None
    estimated: Cameras | None

    @property
    def num_references(self) -> int:
        """Sources."""
        return self.sources.num_views

    @property
    def nbytes(self) -> int:
        """Of keys and values."""
        return self.sources.nbytes


def pack(scene: RngScene) -> dict[str, Tensor]:
    """All of a scene as tensors by name."""
    sources, world = scene.sources, scene.world
    tensors = {f"keys.{number}": x for number, x in enumerate(sources.keys)}
    tensors |= {f"values.{number}": x for number, x in enumerate(sources.values)}
    tensors |= {"first": world.first, "scale": world.scale, "views": torch.tensor(sources.num_views)}
    for name, x in (("estimates", sources.cameras), ("tokens", sources.tokens)):
        if x is not None:
            tensors[name] = x
    for name, cameras in (("cameras", scene.cameras), ("estimated", scene.estimated)):
        if cameras is not None:
            tensors |= {f"{name}.poses": cameras.world_from_cam, f"{name}.intrinsics": cameras.intrinsics}
    return tensors


def unpack(tensors: Mapping[str, Tensor], config: RngConfig, image_size: tuple[int, int], device: str) -> RngScene:
    """Inverse of :func:`pack`.

    Args:
        tensors: By name.
        config: Of the network that made them.
        image_size: Of its sources.
        device: Where it is.

    Raises:
        KaleidosceneError: A tensor is missing.
    """

    def cameras(name: str) -> Cameras | None:
        if f"{name}.poses" not in tensors:
            return None
        return Cameras(tensors[f"{name}.poses"], tensors[f"{name}.intrinsics"], image_size)

    def moved(name: str) -> Tensor | None:
        return tensors[name].to(device) if name in tensors else None

    try:
        keys, values = (
            tuple(tensors[f"{name}.{number}"].to(device) for number in range(config.depth))
            for name in ("keys", "values")
        )
        sources = Sources(keys, values, moved("estimates"), int(tensors["views"]), moved("tokens"))
        world = SourceWorld(tensors["first"], tensors["scale"])
    except KeyError as error:
        raise KaleidosceneError(f"The scene has no {error.args[0]!r}.") from error
    return RngScene(sources, world, cameras("cameras"), cameras("estimated"))
