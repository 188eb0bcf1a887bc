"""One scene of a training batch: which of its views, augmented, at the size of the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.datasets.shards import Stock
from kaleidoscene.datasets.stored import StoredLatents, StoredScene, StoredTokens
from kaleidoscene.datasets.transforms import Augmentation, augment
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.pixels import centre_box, resize_image


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """Views of one scene, ready to be stacked.

    Attributes:
        key: Its name.
        images: RGB in [0, 1].
        cameras: One a view, or None for a video.
        times: Place of each frame in its clip, in [0, 1), or None for a 3D scene.
        mask: Share of the pixel that is not background.
        depth: Along the optical axis, in world units.
        latents: In place of images, where they were made ahead.
        label: Of its class, where scenes are sorted into some.
    """

    key: str
    images: Float[Tensor, "views 3 h w"]
    cameras: Cameras | None
    times: Float[Tensor, " views"] | None
    mask: Float[Tensor, "views h w"]
    depth: Float[Tensor, "views h w"] | None
    latents: StoredLatents | StoredTokens | None = None
    label: int | None = None


def prepare_scene(
    read: Callable[[list[int]], StoredScene],
    stored: Stock,
    views: int,
    count: int,
    size: tuple[int, int] | None,
    augmentation: Augmentation,
    generator: torch.Generator,
) -> TrainingScene:
    """Draw views of a scene and prepare them.

    Args:
        read: Gives the views of the scene with these numbers.
        stored: What is stored of it.
        views: V; the frames of a video are drawn from V neighbouring ones, so that times are places in a clip of V.
        count: How many of them to take.
        size: ``(height, width)`` to bring them to; None keeps theirs.
        augmentation: Its probabilities.
        generator: All randomness of the scene.
    """
    # Any views of a 3D scene may stand together; frames of a video are told apart by their place in a clip.
    start = int(torch.randint(stored.views - views + 1, (), generator=generator)) if stored.is_video else 0
    order = torch.randperm(views if stored.is_video else stored.views, generator=generator)[:count]
    scene = read((start + order).tolist())
    times = order.float() / views if stored.is_video else None
    if scene.latents is not None:
        return _made_ahead(scene, scene.latents, times, size, augmentation)
    rgba = torch.from_numpy(scene.rgba).movedim(-1, 1).float() / 255
    images, cameras, mirrored = augment(rgba, scene.cameras, augmentation, generator)
    mask, depth = rgba[:, 3], None if scene.depth is None else torch.from_numpy(scene.depth)
    if mirrored:
        mask, depth = mask.flip(-1), None if depth is None else depth.flip(-1)
    prepared = TrainingScene(scene.key, images, cameras, times, mask, depth, label=scene.label)
    return prepared if size is None else fit_scene(prepared, size)


def _made_ahead(
    scene: StoredScene,
    latents: StoredLatents | StoredTokens,
    times: Tensor | None,
    size: tuple[int, int] | None,
    augmentation: Augmentation,
) -> TrainingScene:
    """A scene whose latents are stored; nothing about its images can be changed any more."""
    if augmentation != Augmentation.none():
        raise KaleidosceneError(f"{scene.key}: stored latents cannot be augmented; train with Augmentation.none().")
    if size is not None and size != latents.image_size:
        raise KaleidosceneError(
            f"{scene.key}: its latents were made at {latents.image_size[0]}x{latents.image_size[1]}, "
            f"training needs {size[0]}x{size[1]}."
        )
    count = len(scene.rgba)
    nothing = torch.zeros(count, 3, 0, 0)
    return TrainingScene(scene.key, nothing, scene.cameras, times, nothing[:, 0], None, latents, scene.label)


def fit_scene(scene: TrainingScene, size: tuple[int, int]) -> TrainingScene:
    """Crop the middle to the aspect ratio of ``size`` and resample; cameras follow."""
    h, w = scene.images.shape[-2:]
    if (h, w) == size:
        return scene
    top, left, height, width = centre_box((h, w), size)

    def cut(x: Tensor) -> Tensor:
        return x[..., top : top + height, left : left + width]

    mask = torch.nn.functional.interpolate(cut(scene.mask)[:, None], size, mode="area")[:, 0]
    depth = scene.depth
    if depth is not None:  # not averaged: there is nothing between an object and its background
        depth = torch.nn.functional.interpolate(cut(depth)[:, None], size, mode="nearest-exact")[:, 0]
    cameras = None if scene.cameras is None else scene.cameras.crop(top, left, height, width).resize(*size)
    images = resize_image(cut(scene.images), size)
    return TrainingScene(scene.key, images, cameras, scene.times, mask, depth, label=scene.label)
