"""Scenes in tar shards: WebDataset's layout, with an index beside each shard for random access.

A scene is a run of members ``KEY.scene.json`` (cameras, source), ``KEY.000.png`` ... (RGBA views) and, where depth is
kept, ``KEY.000.depth.png`` (16 bit). The index tells where every member starts, so that the batch of any training step
can be read directly and a run resumes at its exact place.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image

from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras

FORMAT_VERSION = 1
_DEPTH_LEVELS = 65535


@dataclass(frozen=True, eq=False)
class StoredScene:
    """Views of one scene as they lie in a shard.

    Attributes:
        key: Unique name of the scene.
        rgba: 8-bit colour with straight alpha.
        cameras: One camera a view, in world units.
        depth: Distance along the optical axis in world units, 0 where there is nothing.
    """

    key: str
    rgba: UInt8[np.ndarray, "views h w 4"]
    cameras: Cameras
    depth: Float[np.ndarray, "views h w"] | None = None


def write_shard(path: Path, scenes: list[StoredScene]) -> None:
    """Write one shard and its index; neither name exists before both are whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        _write_tar(partial, scenes)
    except BaseException:  # a full disk among others: half a shard is of no use
        partial.unlink(missing_ok=True)
        raise
    with tarfile.open(partial) as tar:
        places = {member.name: [member.offset_data, member.size] for member in tar}
    index = {"format_version": FORMAT_VERSION, "keys": [scene.key for scene in scenes], "members": places}
    index_partial = path.with_suffix(".index.json.partial")
    index_partial.write_text(json.dumps(index))
    os.replace(partial, path)
    # The index comes last: a reader takes a shard for whole when its index is there.
    os.replace(index_partial, path.with_suffix(".index.json"))


def _write_tar(path: Path, scenes: list[StoredScene]) -> None:
    with tarfile.open(path, "w") as tar:
        for scene in scenes:
            for name, payload in _members(scene):
                info = tarfile.TarInfo(name)
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))


def _members(scene: StoredScene) -> list[tuple[str, bytes]]:
    poses, intrinsics = scene.cameras.world_from_cam.tolist(), scene.cameras.intrinsics.tolist()
    meta: dict[str, Any] = {
        "world_from_cam": poses,
        "intrinsics": intrinsics,
        "image_size": scene.cameras.image_size,
        "depth_max": None if scene.depth is None else float(scene.depth.max()),
    }
    members = [(f"{scene.key}.scene.json", json.dumps(meta).encode())]
    for view, image in enumerate(scene.rgba):
        members.append((f"{scene.key}.{view:03d}.png", _png(Image.fromarray(image))))
        if scene.depth is not None:
            levels = np.round(scene.depth[view] / max(meta["depth_max"], 1e-9) * _DEPTH_LEVELS).astype(np.uint16)
            members.append((f"{scene.key}.{view:03d}.depth.png", _png(Image.fromarray(levels))))
    return members


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=4)
    return buffer.getvalue()


class ShardFolder:
    """Random access to the scenes of a folder of shards, in a fixed order (by shard, then by place in it).

    Raises:
        AnyViewError: The folder holds no whole shard, or one of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        paths = sorted(folder.glob("*.index.json"))
        if not paths:
            raise AnyViewError(f"{folder}: no shards here (expected NAME.tar with NAME.index.json).")
        self._members: list[dict[str, tuple[int, int]]] = []
        self._shards: list[Path] = []
        self.keys: list[tuple[int, str]] = []
        for number, path in enumerate(paths):
            try:
                index = json.loads(path.read_text())
            except ValueError as error:
                raise AnyViewError(f"{path}: not a readable index ({error}).") from error
            if index.get("format_version") != FORMAT_VERSION:
                raise AnyViewError(f"{path}: shard format {index.get('format_version')}, expected {FORMAT_VERSION}.")
            tar = path.with_name(path.name.removesuffix(".index.json") + ".tar")
            end = max((start + size for start, size in index["members"].values()), default=0)
            if not tar.is_file() or tar.stat().st_size < end:
                raise AnyViewError(f"{tar}: the shard is missing or truncated (its index needs {end} bytes).")
            self._shards.append(tar)
            self._members.append({name: tuple(place) for name, place in index["members"].items()})
            self.keys += [(number, key) for key in index["keys"]]

    def __len__(self) -> int:
        return len(self.keys)

    def num_views(self, scene: int) -> int:
        """Views of a scene."""
        shard, key = self.keys[scene]
        members, count = self._members[shard], 0
        while f"{key}.{count:03d}.png" in members:
            count += 1
        return count

    def read(self, scene: int, views: list[int] | None = None, *, depth: bool = False) -> StoredScene:
        """Read some views of a scene (all if None), in the given order."""
        shard, key = self.keys[scene]
        members = self._members[shard]
        with self._shards[shard].open("rb") as file:

            def member(name: str) -> bytes:
                start, size = members[name]
                file.seek(start)
                return file.read(size)

            meta = json.loads(member(f"{key}.scene.json"))
            chosen = list(range(len(meta["world_from_cam"]))) if views is None else views
            images = [np.asarray(Image.open(io.BytesIO(member(f"{key}.{view:03d}.png")))) for view in chosen]
            depths = None
            if depth:
                levels = [np.asarray(Image.open(io.BytesIO(member(f"{key}.{view:03d}.depth.png")))) for view in chosen]
                depths = np.stack(levels).astype(np.float32) * (meta["depth_max"] / _DEPTH_LEVELS)
        poses, intrinsics = torch.tensor(meta["world_from_cam"]), torch.tensor(meta["intrinsics"])
        h, w = meta["image_size"]
        return StoredScene(key, np.stack(images), Cameras(poses[chosen], intrinsics[chosen], (h, w)), depths)
