"""Captures and videos to training shards: whole scenes in WebDataset tars, with a manifest of what is in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from anyview.data.captures import Capture
from anyview.data.conversion.clips import ClipConfig
from anyview.data.conversion.images import rgba_of
from anyview.data.fitting import fit_views
from anyview.data.shards import ImageFormat, StoredScene, write_shard
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras
from anyview.geometry.poses import focal_over_side
from anyview.serialisation import to_plain, write_json

MANIFEST = "manifest.json"
LEFT_OUT = "left-out.txt"


@dataclass(frozen=True, kw_only=True)
class ShardConfig:
    """How scenes are stored; views are cropped and resampled to one size and field of view."""

    image_size: tuple[int, int] = (64, 64)
    field_of_view: float = 49.1
    """Degrees, of the shorter side; the default weights' own."""
    least_views: int = 1
    """Captures with fewer views are left out, and left-out.txt names them; a run needs as many views as its recipe."""
    scenes_per_shard: int = 64
    """Captures, or videos with all their clips, in a shard."""
    image_format: ImageFormat = "png"
    """jpg is smaller and can be decoded at a fraction of its size, but keeps no alpha."""
    clips: ClipConfig = ClipConfig()
    """How videos are cut."""

    def __post_init__(self) -> None:
        if min(*self.image_size, self.scenes_per_shard, self.least_views) < 1:
            raise ValueError(f"image_size {self.image_size}, scenes_per_shard and least_views must be positive.")


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
        AnyViewError: The folder was begun with other captures or another configuration, or a shard has changed since.
    """
    manifest = _begun(folder, sources, config, keys or [scene_key(source.name) for source in sources])
    done: dict[str, str] = manifest["shards"]
    for number in range(-(-len(sources) // config.scenes_per_shard)):
        first = number * config.scenes_per_shard
        chosen = sources[first : first + config.scenes_per_shard]
        path = folder / f"shard-{number:06d}.tar"
        if path.name in done:
            if done[path.name] and (not path.is_file() or _digest(path) != done[path.name]):
                raise AnyViewError(
                    f"{path}: the shard is missing or has changed since it was written; remove {folder}."
                )
        else:
            made = (scene for source in chosen for scene in scenes(source))
            # Videos that are all too short give no shard; that they were looked at is noted.
            stored = write_shard(path, made, image_format=config.image_format)
            done[path.name] = _digest(path) if stored else ""
            write_json(folder / MANIFEST, manifest)
        yield min(first + config.scenes_per_shard, len(sources)), len(sources)


def _begun(folder: Path, sources: list[Path], config: ShardConfig, keys: list[str]) -> dict[str, Any]:
    said = {
        "version": 2, **to_plain(config), "scenes": keys,
        "sources": [_fingerprint(source) for source in sources],
    }  # fmt: skip
    if len(set(said["scenes"])) < len(sources):
        twice = next(name for name in said["scenes"] if said["scenes"].count(name) > 1)
        raise AnyViewError(f"Two captures are named {twice!r}; scenes are named after their captures.")
    path = folder / MANIFEST
    if not path.is_file():
        if folder.is_dir() and any(folder.glob("*.tar")):
            raise AnyViewError(
                f"{folder}: there are shards without {MANIFEST} here, of something else; give another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {**said, "shards": {}})
        return {**said, "shards": {}}
    try:
        before = json.loads(path.read_text())
        shards = {str(name): str(digest) for name, digest in before["shards"].items()}
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise AnyViewError(f"{path}: not a readable manifest ({error!r}).") from error
    if changed := [key for key, value in said.items() if before.get(key) != value]:
        raise AnyViewError(f"{folder}: begun with another {changed[0]}; give another folder.")
    return {**said, "shards": shards}


def _fingerprint(source: Path) -> str:
    """Names, sizes and times of all files of a capture: a changed one must not stand for its old self."""
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    lines = [f"{path.relative_to(source)} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scene_of(capture: Capture, key: str, config: ShardConfig) -> StoredScene:
    """A capture at the size and field of view of training, its middle at the world's origin."""
    capture = capture.recentred()
    cameras, fitted = capture.cameras, []
    focal = focal_over_side(config.field_of_view) * min(config.image_size) / config.image_size[0]
    at: list[Cameras] = []
    for number in range(len(capture)):
        rgba = torch.from_numpy(rgba_of(capture, number)).movedim(-1, 0).float() / 255
        colour, camera = fit_views(rgba[None, :3], cameras[[number]], config.image_size, focal)
        alpha = torch.ones(1, *rgba.shape[1:]) if rgba.shape[0] == 3 else rgba[3:]
        cover, _ = fit_views(1 - alpha.expand(1, 3, -1, -1), cameras[[number]], config.image_size, focal)
        # What is white because it lies beyond the image is no object: 1 - 1 = 0.
        fitted.append(torch.cat([colour[0], 1 - cover[0, :1]]))
        at.append(camera[0])
    images = (torch.stack(fitted) * 255).round().to(torch.uint8).movedim(1, -1).numpy()
    return StoredScene(scene_key(key), np.ascontiguousarray(images), Cameras.stack(at))


def scene_key(name: str) -> str:
    """WebDataset takes what follows the first dot for the kind of file."""
    return name.replace(".", "_").replace("/", "_")
