"""Scenes of a batch, one on top of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from kaleidoscene.datasets.scenes import TrainingScene
from kaleidoscene.datasets.stored import StoredLatents, StoredTokens
from kaleidoscene.datasets.views import SceneTokens, Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras


@dataclass(frozen=True, eq=False)
class Counts:
    """What scenes that are stacked have in common."""

    references: int
    targets: int
    present: Bool[torch.Tensor, "scenes views"] | None
    dropped: int = 0
    """References that are left out, of which the cameras stay: they tell the unit of the world."""

    @property
    def views(self) -> int:
        """That are read of a scene."""
        return self.dropped + self.references + self.targets


def stacked(scenes: list[TrainingScene], counts: Counts, *, depth: bool) -> Views:
    """One batch of scenes that have been prepared alike; dropped references leave their cameras alone."""
    videos = torch.tensor([scene.cameras is None for scene in scenes])
    count = len(scenes[0].images)
    cameras = times = dropped = None
    if not bool(videos.all()):
        # Nobody looks at the cameras of a video; they fill its rows of the batch.
        size = next(scene.cameras.image_size for scene in scenes if scene.cameras is not None)
        pose = torch.eye(4)
        pose[2, 3] = -1.0  # not at the origin, where a scene would have no scale
        still = Cameras.from_field_of_view(pose.expand(count, 4, 4), 1.0, size)
        cameras = Cameras.stack([scene.cameras or still for scene in scenes])
        if counts.dropped:
            cameras, dropped = cameras[:, counts.dropped :], cameras[:, : counts.dropped]
    if bool(videos.any()):
        times = torch.stack([torch.zeros(count) if scene.times is None else scene.times for scene in scenes])
        times = times[:, counts.dropped :]
    labels = [scene.label for scene in scenes if scene.label is not None]
    if labels and len(labels) < len(scenes):
        raise KaleidosceneError("Sources with labels and without cannot be mixed in a batch.")
    ahead = [scene.latents for scene in scenes if scene.latents is not None]
    latents = [one for one in ahead if isinstance(one, StoredLatents)]
    tokens = [one for one in ahead if isinstance(one, StoredTokens)]
    if ahead and len(scenes) not in (len(latents), len(tokens)):
        raise KaleidosceneError(
            "Sources with stored latents and with images cannot be mixed; store the latents of all."
        )

    def kept(views: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(views)[:, counts.dropped :]

    return Views(
        images=kept([scene.images for scene in scenes]),
        cameras=cameras,
        times=times,
        is_video=videos,
        num_references=counts.references,
        present=counts.present,
        depth=kept([scene.depth for scene in scenes if scene.depth is not None]) if depth else None,
        mask=kept([scene.mask for scene in scenes]),
        ids=tuple(scene.key for scene in scenes),
        latents=(
            kept([torch.from_numpy(one.mean) for one in latents]),
            kept([torch.from_numpy(one.std) for one in latents]),
        )
        if latents
        else None,
        features=kept([torch.from_numpy(one.features) for one in latents if one.features is not None])
        if latents and latents[0].features is not None
        else None,
        dropped_cameras=dropped,
        labels=torch.tensor(labels) if labels else None,
        tokens=_first_draws(tokens) if tokens else None,
    )


def _first_draws(scenes: list[StoredTokens]) -> SceneTokens:
    """One draw a scene is read, however many are stored."""

    def first(draws: list[np.ndarray]) -> torch.Tensor:
        return torch.stack([torch.from_numpy(of[0]) for of in draws])

    return (
        first([scene.data for scene in scenes]),
        first([scene.seen for scene in scenes]),
        first([scene.alone for scene in scenes]),
    )
