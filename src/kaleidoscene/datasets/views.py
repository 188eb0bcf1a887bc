"""The batch contract: what every network is trained on and asked with."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras

SceneTokens = tuple[
    Float[Tensor, "batch latents channels"],
    Float[Tensor, "batch latents channels"],
    Float[Tensor, "batch latents channels"],
]


@dataclass(frozen=True, eq=False)
class Views:
    """A batch of scenes with equally many views each; references come first.

    Attributes:
        images: RGB in [0, 1]; of no height and width where ``latents`` stand for them.
        cameras: Cameras of batch shape ``(batch, views)`` in world units; None if all scenes are videos.
        times: Place of each frame in its clip, in [0, 1); None if no scene is a video.
        is_video: Which scenes are told apart by times instead of cameras.
        num_references: The first views of every scene that are references.
        present: False hides a view: it is no key for others and carries no loss.
        depth: Distance along the optical axis in world units, 0 where unknown.
        mask: Share of the pixel that the object covers, in [0, 1].
        ids: Names of the scenes.
        latents: Mean and standard deviation of the codec's latents, where they were made ahead.
        features: Auxiliary features of all views, where they were made ahead.
        numbers: Places of the scenes in the training run; everything random about a scene comes from its own.
        step: Of the training run that they are for; what all scenes of a batch share at random comes from it.
        damaged: Scenes that could not be read and were replaced, with the reason.
        dropped_cameras: Cameras of references that were left out of all scenes of the batch (for guidance), which tell
            the unit of the world as they would in rendering.
        labels: Classes of the scenes, where they are sorted into some.
        tokens: Of scenes in place of their views, where an autoencoder made them ahead: of all views, of what is seen
            and the poses of the rest, and of the poses of all.

    Raises:
        ValueError: Tensors of different scenes, views or sizes stand together.
    """

    images: Float[Tensor, "batch views 3 h w"]
    cameras: Cameras | None
    times: Float[Tensor, "batch views"] | None
    is_video: Bool[Tensor, " batch"]
    num_references: int
    present: Bool[Tensor, "batch views"] | None = None
    depth: Float[Tensor, "batch views h w"] | None = None
    mask: Float[Tensor, "batch views h w"] | None = None
    ids: tuple[str, ...] = ()
    latents: tuple[Float[Tensor, "batch views c lh lw"], Float[Tensor, "batch views c lh lw"]] | None = None
    features: Float[Tensor, "batch views tokens feature"] | None = None
    numbers: tuple[int, ...] = ()
    step: int = 0
    damaged: tuple[str, ...] = ()
    dropped_cameras: Cameras | None = None
    labels: Int[Tensor, " batch"] | None = None
    tokens: SceneTokens | None = None

    def __post_init__(self) -> None:
        batch, views = self.images.shape[:2]
        if self.cameras is None and self.times is None:
            raise ValueError("Views need cameras or times.")
        if self.cameras is not None and self.cameras.batch_shape != (batch, views):
            raise ValueError(f"Images are {(batch, views)} scenes and views, cameras {self.cameras.batch_shape}.")
        if not 0 <= self.num_references <= views:
            raise ValueError(f"num_references must be in 0..{views}, got {self.num_references}.")
        if self.dropped_cameras is not None and self.num_references:
            raise ValueError("References are dropped from a batch or they are in it.")
        size = tuple(self.images.shape[-2:])
        expected = {
            "times": (batch, views), "present": (batch, views), "mask": (batch, views, *size),
            "depth": (batch, views, *size),
        }  # fmt: skip
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} is {tuple(value.shape)}, the views are {shape}.")

    def to(self, device: torch.device | str) -> Views:
        """Move all tensors but the cameras, which are small and computed with where nobody has to wait for them."""

        def move(x):
            return None if x is None else x.to(device)

        return replace(
            self, images=self.images.to(device), times=move(self.times),
            is_video=self.is_video.to(device), present=move(self.present), depth=move(self.depth), mask=move(self.mask),
            latents=None if self.latents is None else (self.latents[0].to(device), self.latents[1].to(device)),
            features=move(self.features), labels=move(self.labels),
            tokens=None if self.tokens is None else tuple(x.to(device) for x in self.tokens),
        )  # fmt: skip
