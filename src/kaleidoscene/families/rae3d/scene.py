"""What 3DRAE makes of views: a fixed set of tokens, and the world they are in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.geometry.cameras import Cameras


@dataclass(frozen=True, eq=False)
class Rae3dScene:
    """A scene; targets are asked for in the world of ``cameras``.

    Attributes:
        images: Of the references; None where the tokens come from a file.
        cameras: Of the references, as they were given.
        world: From the world of the cameras to that of the first one.
        tokens: Made once the world is known; None before.
    """

    images: Float[Tensor, "batch refs 3 h w"] | None
    cameras: Cameras
    world: RelativeWorld
    tokens: Float[Tensor, "batch latents width"] | None

    @property
    def num_references(self) -> int:
        """References."""
        return self.cameras.batch_shape[1]

    @property
    def nbytes(self) -> int:
        """Of tokens, or of the images that they will be made of."""
        return sum(x.nbytes for x in (self.images, self.tokens) if x is not None)


def pack(scene: Rae3dScene) -> dict[str, Tensor]:
    """A scene whose tokens are made, as tensors by name."""
    assert scene.tokens is not None
    return {
        "tokens": scene.tokens, "first": scene.world.first, "scale": scene.world.scale, "bounds": scene.world.bounds,
        "poses": scene.cameras.world_from_cam, "intrinsics": scene.cameras.intrinsics,
    }  # fmt: skip


def unpack(tensors: Mapping[str, Tensor], config: Rae3dConfig, image_size: tuple[int, int], device: str) -> Rae3dScene:
    """Inverse of :func:`pack`.

    Args:
        tensors: By name.
        config: Of the network that made them.
        image_size: Of the references.
        device: Where the network is.

    Raises:
        KaleidosceneError: A tensor is missing, or tokens are not of the number and width of the network.
    """
    try:
        tokens, cameras = tensors["tokens"], Cameras(tensors["poses"], tensors["intrinsics"], image_size)
        world = RelativeWorld(tensors["first"], tensors["scale"], tensors["bounds"])
    except KeyError as error:
        raise KaleidosceneError(f"The scene has no {error.args[0]!r}.") from error
    if tuple(tokens.shape[1:]) != (config.tokens, config.width):
        have, want = tuple(tokens.shape[1:]), (config.tokens, config.width)
        raise KaleidosceneError(f"The scene has tokens of {have}, the model has {want}.")
    return Rae3dScene(None, cameras, world, tokens.to(device, torch.float32))
