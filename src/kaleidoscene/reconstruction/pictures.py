"""Images of one object that a surface is fitted to: silhouettes, and rays that meet a box."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import camera_rays
from kaleidoscene.reconstruction.hull import Box


@dataclass(frozen=True, eq=False)
class Pictures:
    """What a surface is fitted to.

    Attributes:
        images: RGB in [0, 1] on white.
        masks: Where the object is, 0 to 1.
        cameras: ``(views,)``, world units.
        weights: How much each view counts.
    """

    images: Float[Tensor, "views 3 h w"]
    masks: Float[Tensor, "views h w"]
    cameras: Cameras
    weights: Float[Tensor, " views"]


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays that meet a box, with what they should show.

    Attributes:
        origins: World.
        directions: Unit vectors.
        near: Where they enter the box.
        far: Where they leave it.
        colours: RGB.
        masks: Of the object.
        weights: How much each counts.
    """

    origins: Float[Tensor, "n 3"]
    directions: Float[Tensor, "n 3"]
    near: Float[Tensor, " n"]
    far: Float[Tensor, " n"]
    colours: Float[Tensor, "n 3"]
    masks: Float[Tensor, " n"]
    weights: Float[Tensor, " n"]

    def __getitem__(self, index: Tensor) -> Rays:
        return Rays(*(getattr(self, name)[index] for name in self.__dataclass_fields__))

    @classmethod
    def of(cls, pictures: Pictures, box: Box) -> Rays:
        """All rays of pictures that meet a box."""
        parts = []
        for number, image in enumerate(pictures.images):
            centre, directions = camera_rays(pictures.cameras[number])
            directions = directions.reshape(-1, 3)
            origins = centre.expand_as(directions)
            near, far = box.crossed(origins, directions)
            meets = far > near.clamp_min(0)
            weight = pictures.weights[number].expand(len(directions))
            columns = [origins, directions, near.clamp_min(0), far, image.flatten(1).mT,
                       pictures.masks[number].flatten(), weight]  # fmt: skip
            parts.append([column[meets] for column in columns])
        return cls(*(torch.cat([part[n] for part in parts]) for n in range(7)))


def silhouettes(images: Float[Tensor, "views 3 h w"], threshold: float) -> Float[Tensor, "views h w"]:
    """Pixels that are not white, 1 and 0.

    Args:
        images: RGB in [0, 1] of an object on white.
        threshold: A pixel is of the object if one of its channels is darker than white by more.
    """
    return ((1 - images).amax(1) > threshold).float()
