"""What Kaleido keeps of references: clean latents with their place in the world, and their keys and values."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.families.kaleido.cache import KaleidoCache
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.nn.positions import ViewPositions


@dataclass(frozen=True, eq=False)
class KaleidoScene:
    """Clean reference latents with their place in the world, and their keys and values where these can be kept.

    Attributes:
        latents: Latents of the references.
        cameras: Their cameras ``(batch, refs)``, world units.
        normalisation: Origin and scale of the network's world; fixed when the scene is made, or its targets are known.
        features: Auxiliary features of the references.
        cache: Keys and values of a causal model.
        clip: Places of the references in a clip, where they are frames of a video and their cameras mean nothing.
        knows_targets: Whether the scale is settled by all targets that will be asked for.
    """

    latents: Float[Tensor, "batch refs c h w"]
    cameras: Cameras
    normalisation: SceneNormalisation
    features: Float[Tensor, "batch refs tokens feature"] | None
    cache: KaleidoCache | None
    clip: ViewPositions | None = None
    knows_targets: bool = False

    @property
    def num_references(self) -> int:
        """References in the scene."""
        return self.latents.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory of latents, features and cache."""
        kept = self.latents.nbytes + (0 if self.cache is None else self.cache.nbytes)
        return kept + (0 if self.features is None else self.features.nbytes)

    def reference_positions(self) -> ViewPositions:
        """Where or when the references are, on the device of their latents."""
        if self.clip is not None:
            return self.clip
        return ViewPositions.from_cameras(self.normalisation.normalise(self.cameras).to(self.latents.device))

    def target_positions(self, cameras: Cameras) -> ViewPositions:
        """Where targets are in the network's world."""
        return ViewPositions.from_cameras(self.normalisation.normalise(cameras).to(self.latents.device))

    def repeated(self, times: int) -> KaleidoScene:
        """``times`` copies of each scene, next to each other."""

        def repeat(x: Tensor) -> Tensor:
            return x.expand(times, *x.shape[1:]) if len(x) == 1 else x.repeat_interleave(times, 0)  # no copies of one

        cameras = self.cameras
        return replace(
            self, latents=repeat(self.latents),
            cameras=Cameras(repeat(cameras.world_from_cam), repeat(cameras.intrinsics), cameras.image_size),
            normalisation=SceneNormalisation(repeat(self.normalisation.origin), repeat(self.normalisation.scale)),
            features=None if self.features is None else repeat(self.features),
            cache=None if self.cache is None else self.cache.expand(times),
            clip=None if self.clip is None else self.clip.repeat(times),
        )  # fmt: skip


def scale_of_all(references: Cameras, targets: Cameras, origin: Tensor) -> SceneNormalisation:
    """The paper's scale: the farthest camera of references and targets is at distance 1."""
    poses = torch.cat([references.world_from_cam, targets.world_from_cam], 1)
    lenses = torch.cat([references.intrinsics, targets.intrinsics], 1)
    return SceneNormalisation.from_references(Cameras(poses, lenses, targets.image_size), None, origin)
