"""Captures and videos to training shards: whole scenes in WebDataset tars, with a manifest of what is in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.choices import check_choices, check_range
from kaleidoscene.datasets.clips import ClipConfig
from kaleidoscene.datasets.damage import allowed_damage
from kaleidoscene.datasets.shard_writing import ImageFormat, write_shard
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import focal_over_side
from kaleidoscene.images.fitting import cut_cameras, cut_depths, cut_images, fit_depths, fit_views
from kaleidoscene.images.videos import SUFFIXES as VIDEO_SUFFIXES
from kaleidoscene.serialisation import file_sha256, to_plain, write_json

MANIFEST = "manifest.json"
LEFT_OUT = "left-out.txt"


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How scenes are stored; views are cropped and resampled to one size and field of view."""

    image_size: tuple[int, int] = (64, 64)
    field_of_view: float | None = 49.1
    """Degrees, of the shorter side; the default weights' own. None: every capture keeps its lens, for recipes of many
    lenses."""
    least_views: int = 1
    """Captures with fewer views are left out, and left-out.txt names them; a run needs as many views as its recipe."""
    masked: bool = False
    """Take the masks of captures for their alpha; every frame must have one."""
    depth: bool = False
    """Store depth maps as well, from which rng and the decoder of points of rae3d learn; every frame must have one.
    With ``masked`` there is nothing where a mask is black."""
    damaged_share: float = 0.0
    """Share of the captures or videos that may be unreadable: left-out.txt names them, and why. Above it, judged from
    10,000 on or over all that there are, the work stops."""
    scenes_per_shard: int = 64
    """Captures, or videos with all their clips, in a shard."""
    image_format: ImageFormat = "png"
    """jpg is smaller and can be decoded at a fraction of its size, but keeps no alpha."""
    clips: ClipConfig = ClipConfig()
    """How videos are cut."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.field_of_view is not None:
            check_range(self, 1, 175, "field_of_view")
        check_range(self, 0, 1, "damaged_share")
        if min(*self.image_size, self.scenes_per_shard, self.least_views) < 1:
            raise ValueError(f"image_size {self.image_size}, scenes_per_shard and least_views must be positive.")
        if self.masked and self.image_format == "jpg":
            raise ValueError("masked needs image_format 'png': jpg keeps no alpha.")
        if not 0 <= self.damaged_share < 1:
            raise ValueError(f"damaged_share must be from 0 to below 1, got {self.damaged_share}.")


def write_shards(
    sources: list[Path],
    folder: Path,
    config: ShardConfig,
    scenes: Callable[[Path], Iterable[StoredScene]],
    keys: list[str] | None = None,
) -> Iterator[tuple[int, int]]:
    """Write the scenes of every source; shards that an earlier run finished are kept.

    Args:
        sources: Captures or videos.
        folder: Of the shards.
        config: How they are stored.
        scenes: What a source gives.
        keys: What the scenes of each source are named after; by default its name.

    Yields:
        Sources that are done and their number, after every shard.

    Raises:
        KaleidosceneError: The folder was begun with other captures or another configuration, a shard has changed
            since, or more sources are unreadable than ``config.damaged_share`` allows.
    """
    manifest = _begun(folder, sources, config, keys or [scene_key(source.name) for source in sources])
    done: dict[str, str] = manifest["shards"]
    damaged: dict[str, str] = manifest["damaged"]

    def sound(first: int, chosen: list[Path]) -> Iterator[StoredScene]:
        for place, source in enumerate(chosen, start=first + 1):
            try:
                yield from scenes(source)
            except KaleidosceneError as error:
                damaged[source.name] = str(error)
                allowed = allowed_damage(config.damaged_share, place, len(sources))
                if len(damaged) > allowed:
                    raise (
                        KaleidosceneError(_too_damaged(damaged, allowed)) if config.damaged_share else error
                    ) from error

    for number in range(-(-len(sources) // config.scenes_per_shard)):
        first = number * config.scenes_per_shard
        chosen = sources[first : first + config.scenes_per_shard]
        path = folder / f"shard-{number:06d}.tar"
        if path.name in done:
            if done[path.name] and (not path.is_file() or file_sha256(path) != done[path.name]):
                raise KaleidosceneError(
                    f"{path}: the shard is missing or has changed since it was written; remove {folder}."
                )
        else:
            made = sound(first, chosen)
            # Videos that are all too short give no shard; that they were looked at is noted.
            stored = write_shard(path, made, image_format=config.image_format)
            done[path.name] = file_sha256(path) if stored else ""
            write_json(folder / MANIFEST, manifest)
        yield min(first + config.scenes_per_shard, len(sources)), len(sources)


def damaged_sources(folder: Path) -> dict[str, str]:
    """The sources of a folder of shards that could not be read, and why."""
    return json.loads((folder / MANIFEST).read_text()).get("damaged", {})


def _too_damaged(damaged: dict[str, str], allowed: float) -> str:
    last = next(reversed(damaged.values()))
    return f"{len(damaged)} unreadable sources, {allowed:g} are allowed (--shards.damaged-share), the last: {last}"


def _begun(folder: Path, sources: list[Path], config: ShardConfig, keys: list[str]) -> dict[str, Any]:
    said = {
        "version": 2, **to_plain(config), "scenes": keys,
        "sources": [_fingerprint(source) for source in sources],
    }  # fmt: skip
    del said["damaged_share"]  # how much may be missing can be said anew
    if len(set(said["scenes"])) < len(sources):
        twice = next(name for name in said["scenes"] if said["scenes"].count(name) > 1)
        raise KaleidosceneError(f"Two captures are named {twice!r}; scenes are named after their captures.")
    path = folder / MANIFEST
    if not path.is_file():
        if folder.is_dir() and any(folder.glob("*.tar")):
            raise KaleidosceneError(
                f"{folder}: there are shards without {MANIFEST} here, of something else; give another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {**said, "shards": {}, "damaged": {}})
        return {**said, "shards": {}, "damaged": {}}
    try:
        before = json.loads(path.read_text())
        shards, damaged = (
            {str(name): str(text) for name, text in noted.items()}
            for noted in (before["shards"], before.get("damaged", {}))
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise KaleidosceneError(f"{path}: not a readable manifest ({error!r}).") from error
    before = to_plain(ShardConfig()) | before  # of a version that did not know all of these
    if changed := [key for key, value in said.items() if before.get(key) != value]:
        raise KaleidosceneError(f"{folder}: begun with another {changed[0]}; give another folder.")
    return {**said, "shards": shards, "damaged": damaged}


def _fingerprint(source: Path) -> str:
    """Names, sizes and times of all files of a capture: a changed one must not stand for its old self."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    if source.suffix == ".txt":  # cameras alone: the frames of NAME.txt are in NAME/ or NAME.mp4
        files += sorted(path for path in source.with_suffix("").rglob("*") if path.is_file())
        files += [video for suffix in VIDEO_SUFFIXES if (video := source.with_suffix(suffix)).is_file()]
    lines = [f"{os.path.relpath(path, source)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def scene_of(capture: Capture, key: str, config: ShardConfig) -> StoredScene:
    """A capture at the size and field of view of training, its middle at the world's origin.

    Raises:
        KaleidosceneError: A frame does not read, or has no mask or depth map where they are asked for.
    """
    capture = capture.recentred()
    views = [_view(capture, number, config) for number in range(len(capture))]
    images = torch.stack([view.rgba for view in views]).mul(255).round().to(torch.uint8).movedim(1, -1).numpy()
    cameras = Cameras.stack([view.camera for view in views])
    depth = np.stack([view.depth.numpy() for view in views if view.depth is not None]) if config.depth else None
    return StoredScene(scene_key(key), np.ascontiguousarray(images), cameras, depth)


@dataclass(frozen=True, eq=False)
class _View:
    rgba: Float[Tensor, "4 h w"]
    camera: Cameras
    depth: Float[Tensor, "h w"] | None


def _view(capture: Capture, number: int, config: ShardConfig) -> _View:
    """One frame as it is stored."""
    # On white, as it lies in memory: what is resampled so has no fringe of the colour that is under the alpha.
    image, alpha = capture.images(only=[number], masked=config.masked), capture.alphas(only=[number])
    cover = torch.ones_like(image) if alpha is None else alpha.expand_as(image)
    depth = capture.depths(only=[number]) if config.depth else None
    if config.masked:
        mask = capture.masks(only=[number])
        cover = cover * mask
        depth = None if depth is None else torch.where(mask[:, 0] > 0.5, depth, 0.0)
    cameras, size = capture.cameras[[number]], config.image_size
    if config.field_of_view is None:
        colour, cover, camera = cut_images(image, size), cut_images(cover, size), cut_cameras(cameras, size)
        depth = None if depth is None else cut_depths(depth, size)
    else:
        focal = focal_over_side(config.field_of_view) * min(size) / size[0]
        colour, camera = fit_views(image, cameras, size, focal)
        # What is white because it lies beyond the image is no object: 1 - 1 = 0.
        cover = 1 - fit_views(1 - cover, cameras, size, focal)[0]
        depth = None if depth is None else fit_depths(depth, cameras, size, focal)
    return _View(_straight(colour[0], cover[0, :1]), camera[0], None if depth is None else depth[0])


def _straight(on_white: Float[Tensor, "3 h w"], alpha: Float[Tensor, "1 h w"]) -> Float[Tensor, "4 h w"]:
    """RGBA of a picture on white."""
    colour = (on_white - (1 - alpha)) / alpha.clamp_min(1 / 255)
    return torch.cat([torch.where(alpha > 0, colour, torch.zeros_like(colour)).clamp(0, 1), alpha.clamp(0, 1)])


def scene_key(name: str) -> str:
    """WebDataset takes what follows the first dot for the kind of file."""
    return name.replace(".", "_").replace("/", "_")
