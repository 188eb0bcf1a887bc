"""Shards of views to shards of latents: the autoencoder and the feature encoder out of the training loop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from kaleidoscene.codecs.codec import check_size
from kaleidoscene.codecs.kl import KLCodec
from kaleidoscene.datasets.shard_writing import write_shard
from kaleidoscene.datasets.shards import DAMAGE, ShardFolder
from kaleidoscene.datasets.stored import StoredLatents, StoredScene
from kaleidoscene.encoders.features import DinoV2
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.images.pixels import resize_image
from kaleidoscene.serialisation import to_plain, write_json

NOTE = "latents.json"


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """What makes latents of views.

    Attributes:
        autoencoder: Folder or hub id of the KL autoencoder, as in the recipe.
        features: Folder or hub id of DINOv2; empty: none.
        patch_size: Latent pixels along the side of a token, which features are made for.
        image_size: ``(height, width)`` to bring views to; None keeps theirs.
        scenes_per_shard: Scenes of a shard.
        device: Where to compute.
    """

    autoencoder: str = ""
    features: str = ""
    patch_size: int = 2
    image_size: tuple[int, int] | None = None
    scenes_per_shard: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.scenes_per_shard, self.patch_size, *(self.image_size or (1, 1))) < 1:
            raise ValueError("scenes_per_shard, patch_size and image_size must be positive.")


def write_latents(source: Path, folder: Path, config: LatentConfig) -> Iterator[tuple[int, int]]:
    """Write the latents of all scenes of a folder of shards; shards that an earlier run finished are kept.

    Yields:
        Scenes that are done and their number, after every shard.

    Raises:
        KaleidosceneError: The folder was begun with something else, or autoencoder or encoder are missing.
    """
    scenes = ShardFolder(source)
    note = {"version": 1, "of": scenes.fingerprint, **to_plain(replace(config, device="cpu"))}
    check_begun(folder / NOTE, note)
    codec = KLCodec.from_pretrained(config.autoencoder).to(config.device)
    _check_sizes(scenes, codec, config)
    encoder = None
    if config.features:
        encoder = DinoV2.from_pretrained(config.features, codec.factor * config.patch_size).to(config.device)
    yield from write_made_ahead(
        folder / NOTE, note, len(scenes), config.scenes_per_shard,
        lambda n: _encoded(_read(scenes, n, at_least=config.image_size), codec, encoder, config),
    )  # fmt: skip


def _read(
    scenes: ShardFolder, number: int, views: list[int] | None = None, at_least: tuple[int, int] | None = None
) -> StoredScene:
    try:
        return scenes.read(number, views, at_least=at_least)
    except KaleidosceneError:
        raise
    except DAMAGE as error:
        raise KaleidosceneError(f"{scenes.folder}: scene {scenes.key(number)} is damaged ({error}).") from error


def check_begun(note: Path, said: object) -> None:
    """Raise if a folder was begun with something else.

    Args:
        note: The file that says with what.
        said: What it should say.

    Raises:
        KaleidosceneError: It says something else, or is missing among other files.
    """
    if note.is_file():
        if _read_note(note) != said:
            raise KaleidosceneError(f"{note.parent}: begun with other shards or options; give another folder.")
    elif note.parent.is_dir() and any(note.parent.iterdir()):
        raise KaleidosceneError(f"{note.parent}: not empty and no {note.stem}; give another folder.")


def write_made_ahead(
    note: Path, said: object, scenes: int, at_once: int, make: Callable[[int], StoredScene]
) -> Iterator[tuple[int, int]]:
    """Write scenes shard by shard into the folder of a note; shards that are finished are kept.

    Args:
        note: What the folder is, beside the shards.
        said: What it says.
        scenes: How many there are.
        at_once: Scenes of a shard.
        make: Makes the scene of a number.

    Yields:
        Scenes that are done and their number, after every shard.
    """
    folder = note.parent
    folder.mkdir(parents=True, exist_ok=True)
    write_json(note, said)
    for number in range(-(-scenes // at_once)):
        first = number * at_once
        shard, last = folder / f"shard-{number:06d}.tar", min(first + at_once, scenes)
        if not shard.with_suffix(".index.json").exists():
            write_shard(shard, [make(n) for n in range(first, last)])
        yield last, scenes


def _check_sizes(scenes: ShardFolder, codec: KLCodec, config: LatentConfig) -> None:
    first = _read(scenes, 0, [0])
    if first.latents is not None:
        raise KaleidosceneError(f"{scenes.folder}: these are latents already; give shards of views.")
    h, w = first.rgba.shape[1:3]
    check_size(*(config.image_size or (h, w)), codec.factor * config.patch_size)


def _read_note(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise KaleidosceneError(f"{path}: not readable JSON ({error}).") from error


@torch.no_grad()
def _encoded(scene: StoredScene, codec: KLCodec, encoder: DinoV2 | None, config: LatentConfig) -> StoredScene:
    rgba = torch.from_numpy(scene.rgba).movedim(-1, 1).float() / 255
    images, cameras = rgba[:, :3] * rgba[:, 3:] + 1 - rgba[:, 3:], scene.cameras
    size = config.image_size or (images.shape[-2], images.shape[-1])
    if images.shape[-1] * size[0] != images.shape[-2] * size[1]:
        raise KaleidosceneError(
            f"{scene.key}: views of {images.shape[-2]}x{images.shape[-1]} have another aspect ratio."
        )
    images = resize_image(images, size).to(config.device)
    mean, std = codec.posterior(images)
    features = None if encoder is None else encoder(images[None])[0].float().cpu().numpy()
    latents = StoredLatents(size, mean.float().cpu().numpy(), std.float().cpu().numpy(), features)
    nothing = np.zeros((len(images), 0, 0, 4), np.uint8)
    cameras = None if cameras is None else cameras.resize(*size)
    return StoredScene(scene.key, nothing, cameras, times=scene.times, latents=latents)
