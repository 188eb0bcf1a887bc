"""References to a Kaleido scene."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.families.kaleido.parts import KaleidoParts
from kaleidoscene.families.kaleido.scene import KaleidoScene
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.nn.positions import ViewPositions


def read_references(
    parts: KaleidoParts, images: Float[Tensor, "batch refs 3 h w"]
) -> tuple[Float[Tensor, "batch refs c lh lw"], Float[Tensor, "batch refs tokens feature"] | None]:
    """Latents of references, and their features where the network takes any."""
    images = images.to(parts.device)
    return parts.codec.encode(images), None if parts.features is None else parts.features(images)


def make_scene(
    parts: KaleidoParts,
    images: Float[Tensor, "batch refs 3 h w"],
    cameras: Cameras,
    normalisation: SceneNormalisation | None,
) -> KaleidoScene:
    """A scene of posed references; by default the world's origin and the farthest reference tell its unit."""
    if normalisation is None:
        origin = torch.zeros_like(cameras.centres[..., 0, :])
        normalisation = SceneNormalisation.from_references(cameras, None, origin)
    latents, features = read_references(parts, images)
    return with_cache(parts, KaleidoScene(latents, cameras, normalisation, features, None))


def make_clip(parts: KaleidoParts, frames: Float[Tensor, "batch refs 3 h w"], positions: ViewPositions) -> KaleidoScene:
    """A scene of frames of a video, told apart by their times."""
    batch, count = frames.shape[:2]
    latents, features = read_references(parts, frames)
    still = Cameras.from_field_of_view(
        torch.eye(4).expand(batch, count, 4, 4), 1.0, (frames.shape[-2], frames.shape[-1])
    )
    nowhere = SceneNormalisation(torch.zeros(batch, 3), torch.ones(batch))
    return with_cache(parts, KaleidoScene(latents, still, nowhere, features, None, positions))


def grow_scene(
    parts: KaleidoParts,
    scene: KaleidoScene,
    images: Float[Tensor, "batch new 3 h w"],
    cameras: Cameras,
    keep: Sequence[int],
) -> KaleidoScene:
    """A scene with the references ``keep`` of the old one and new ones behind them, in the old normalisation."""
    kept = list(keep)
    new, features = read_references(parts, images)
    latents = torch.cat([scene.latents[:, kept], new], dim=1)
    if features is not None and scene.features is not None:
        features = torch.cat([scene.features[:, kept], features], dim=1)
    poses = torch.cat([scene.cameras.world_from_cam[:, kept], cameras.world_from_cam], dim=1)
    lenses = torch.cat([scene.cameras.intrinsics[:, kept], cameras.intrinsics], dim=1)
    together = Cameras(poses, lenses, cameras.image_size)
    # All references are read anew: their keys know of each other, so that no old ones can be kept exactly.
    return with_cache(parts, replace(scene, latents=latents, cameras=together, features=features, cache=None))


def with_cache(parts: KaleidoParts, scene: KaleidoScene) -> KaleidoScene:
    """Read the references and keep their keys and values, where these are to be kept."""
    if not parts.use_cache:
        return scene
    batch, count, _, h, w = scene.latents.shape
    size = parts.settings.model.patch_size * parts.magnification
    cache = parts.model.allocate_cache(batch, count, (h // size, w // size), parts.dtype)
    with parts.autocast():
        parts.model.encode_references(
            scene.latents, scene.reference_positions(), cache,
            features=scene.features, magnification=parts.magnification,
        )  # fmt: skip
    return replace(scene, cache=cache)
