"""A scene as it lies in a shard."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from safetensors.numpy import load, save

from kaleidoscene.geometry.cameras import Cameras

DEPTH_LEVELS = 65535
"""Of the 16 bits in which depth is stored; the highest is the largest depth of the scene."""
LATENT = "latent.safetensors"
"""How members with latents end."""


@dataclass(frozen=True, eq=False)
class StoredLatents:
    """Latents of the views of a scene, made ahead so that the autoencoder is out of the training loop.

    Attributes:
        image_size: ``(height, width)`` of the images they were made of.
        mean: Of the codec's posterior, scaled as the network takes it.
        std: Its standard deviation.
        features: Auxiliary features, where the network takes any.
    """

    image_size: tuple[int, int]
    mean: Float[np.ndarray, "views c lh lw"]
    std: Float[np.ndarray, "views c lh lw"]
    features: Float[np.ndarray, "views tokens feature"] | None = None

    def payload(self, view: int) -> bytes:
        """One view as a safetensors file in half precision."""
        arrays = {"mean": self.mean[view], "std": self.std[view]}
        if self.features is not None:
            arrays["features"] = self.features[view]
        return save({name: np.ascontiguousarray(array, dtype=np.float16) for name, array in arrays.items()})


@dataclass(frozen=True, eq=False)
class StoredTokens:
    """Tokens that an autoencoder of scenes made of some views ahead, in several draws of what is seen of a scene.

    A draw stands where a view does elsewhere, and its camera is that of its first view.

    Attributes:
        image_size: ``(height, width)`` of the views they were made of.
        data: Of all views of the draw.
        seen: Of those that are seen, and the poses of the others.
        alone: Of the poses of all.
    """

    image_size: tuple[int, int]
    data: Float[np.ndarray, "draws latents channels"]
    seen: Float[np.ndarray, "draws latents channels"]
    alone: Float[np.ndarray, "draws latents channels"]

    def payload(self, draw: int) -> bytes:
        """One draw as a safetensors file in half precision."""
        arrays = {"data": self.data[draw], "seen": self.seen[draw], "alone": self.alone[draw]}
        return save({name: np.ascontiguousarray(array, dtype=np.float16) for name, array in arrays.items()})


def made_ahead(payloads: list[bytes], image_size: tuple[int, int]) -> StoredLatents | StoredTokens:
    """Put views or draws together again, from what ``payload`` made of them."""
    views = [load(payload) for payload in payloads]
    stacked = {name: np.stack([view[name] for view in views]).astype(np.float32) for name in views[0]}
    if "alone" in stacked:
        return StoredTokens(image_size, stacked["data"], stacked["seen"], stacked["alone"])
    return StoredLatents(image_size, stacked["mean"], stacked["std"], stacked.get("features"))


@dataclass(frozen=True, eq=False)
class StoredScene:
    """Views of one scene as they lie in a shard: 3D with cameras, or a clip of a video with times.

    Attributes:
        key: Unique name of the scene.
        rgba: 8-bit colour with straight alpha.
        cameras: One camera a view, in world units; None for a video.
        depth: Distance along the optical axis in world units, 0 where there is nothing.
        times: Frame numbers of the views of a video; None for a 3D scene.
        latents: What a codec or an autoencoder of scenes made of the views ahead; ``rgba`` is then empty.
        label: Of what is shown, where scenes are sorted into classes.
    """

    key: str
    rgba: UInt8[np.ndarray, "views h w 4"]
    cameras: Cameras | None
    depth: Float[np.ndarray, "views h w"] | None = None
    times: tuple[int, ...] | None = None
    latents: StoredLatents | StoredTokens | None = None
    label: int | None = None

    def __post_init__(self) -> None:
        if (self.cameras is None) == (self.times is None):
            raise ValueError("A stored scene has either cameras or times.")
