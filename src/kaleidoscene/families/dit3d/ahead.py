"""Tokens of scenes for 3DDiT made ahead, so that the autoencoder is out of the training loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kaleidoscene.datasets.latents import check_begun, write_made_ahead
from kaleidoscene.datasets.scenes import prepare_scene
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stacking import Counts, stacked
from kaleidoscene.datasets.stored import StoredScene, StoredTokens
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.dit3d.checkpoint import weights_of
from kaleidoscene.families.dit3d.task import Dit3dLoss, seen_views
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.task import tokens_of
from kaleidoscene.randomness import seeded
from kaleidoscene.serialisation import to_plain

NOTE = "tokens.json"
"""Beside the shards: which autoencoder made their tokens, and of what."""
_DRAW = 36


@dataclass(frozen=True, kw_only=True)
class TokensAhead:
    """What is made of every scene.

    Attributes:
        draws: How often views are chosen, augmented and hidden anew; a run meets each again and again.
        views: Of a draw.
        augmentation: Of the views.
        hidden_share: Smallest and largest share of the views of a draw that are not seen.
        scenes_per_shard: Scenes of a shard.
        seed: Of all draws.
    """

    draws: int = 4
    views: int = 8
    augmentation: Augmentation = Augmentation(random_background=0.0)
    hidden_share: tuple[float, float] = (0.6, 0.9)
    scenes_per_shard: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.draws, self.views, self.scenes_per_shard) < 1:
            raise ValueError("draws, views and scenes_per_shard must be at least 1.")
        Dit3dLoss(hidden_share=self.hidden_share)


def write_tokens(
    source: str, autoencoder: Rae3dRenderer, shards: Path, folder: Path, config: TokensAhead
) -> Iterator[tuple[int, int]]:
    """Write the tokens of all scenes of a folder of shards; shards that an earlier run finished are kept.

    Args:
        source: Name, folder or hub id of the autoencoder.
        autoencoder: The same, ready to make tokens.
        shards: Scenes with cameras.
        folder: To write.
        config: What is made of each.

    Yields:
        Scenes that are done and their number, after every shard.

    Raises:
        KaleidosceneError: The folder was begun with something else, or scenes have too few views or no cameras.
    """
    scenes = ShardFolder(shards)
    if scenes.fewest_views < config.views:
        raise KaleidosceneError(f"{shards}: scenes have {scenes.fewest_views} views, a draw takes {config.views}.")
    said: dict[str, Any] = {
        "version": 1, "of": scenes.fingerprint, "autoencoder": weights_of(source), **to_plain(config)
    }  # fmt: skip
    check_begun(folder / NOTE, said)
    yield from write_made_ahead(
        folder / NOTE, said, len(scenes), config.scenes_per_shard,
        lambda number: tokens_of_scene(scenes, number, autoencoder, config),
    )  # fmt: skip


@torch.no_grad()
def tokens_of_scene(scenes: ShardFolder, number: int, autoencoder: Rae3dRenderer, config: TokensAhead) -> StoredScene:
    """All draws of a scene, as it is stored.

    Raises:
        KaleidosceneError: It has no cameras, or is stored as latents.
    """
    size, key = autoencoder.image_size, scenes.key(number)
    if scenes.stock(number).is_video or scenes.read(number, [0]).latents is not None:
        raise KaleidosceneError(f"{scenes.name}: {key} has no images with cameras, of which tokens are made.")
    views = _drawn(scenes, number, size, config)
    shown = seen_views(
        tuple(number * config.draws + draw for draw in range(config.draws)), config.views, config.seed,
        Dit3dLoss(hidden_share=config.hidden_share, all_hidden=0.0),
    )  # fmt: skip
    device, made = autoencoder.device, []
    for seen in (torch.ones_like(shown), shown, torch.zeros_like(shown)):
        tokens = tokens_of(autoencoder.model, views.to(device), seen.to(device), autoencoder.features)
        made.append(tokens.float().cpu().numpy())
    assert views.cameras is not None
    return StoredScene(
        key, np.zeros((config.draws, 0, 0, 4), np.uint8), views.cameras[:, 0], latents=StoredTokens(size, *made),
        label=None if views.labels is None else int(views.labels[0]),
    )  # fmt: skip


def _drawn(scenes: ShardFolder, number: int, size: tuple[int, int], config: TokensAhead) -> Views:
    """The views of every draw of a scene, one on top of the other."""
    made = [
        prepare_scene(
            lambda order: scenes.read(number, order, at_least=size), scenes.stock(number), config.views, config.views,
            size, config.augmentation, seeded(config.seed, _DRAW, number, draw),
        )
        for draw in range(config.draws)
    ]  # fmt: skip
    return stacked(made, Counts(0, config.views, None), depth=False)
