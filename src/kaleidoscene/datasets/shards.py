"""Scenes in tar shards: WebDataset's layout, with an index beside each shard for random access.

A scene is a run of members ``KEY.scene.json`` (cameras or frame times), ``KEY.000.png`` ... (RGBA views; ``.jpg`` where
there is no alpha) and, where depth is kept, ``KEY.000.depth.png`` (16 bit). The index tells where every member starts
(:mod:`kaleidoscene.datasets.shard_index`), so that the batch of any step can be read directly and a run resumes
at its exact place. What a run needs of all indices stands in one file (:mod:`kaleidoscene.datasets.catalogue`).
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from safetensors import SafetensorError

from kaleidoscene.datasets.catalogue import INDEX, summarise
from kaleidoscene.datasets.remote import RemoteFolder, ShardCache, is_remote
from kaleidoscene.datasets.shard_index import SCENE, Places, ShardIndex, Stock
from kaleidoscene.datasets.stored import DEPTH_LEVELS, LATENT, StoredScene, made_ahead
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras

# Indices of so many shards stay in memory, those that were used last; a training set's would not fit.
_KEPT_INDICES = 64

# What reading a damaged scene raises: files, tar members, JSON, image data.
DAMAGE = (OSError, ValueError, KeyError, IndexError, SyntaxError, SafetensorError)


class ShardFolder:
    """Random access to the scenes of a folder of shards, in a fixed order (by shard, then by place in it).

    Args:
        folder: A path, or an address (:mod:`kaleidoscene.datasets.remote`).
        cache: Where copies of what an address holds lie.

    Raises:
        KaleidosceneError: The folder holds no whole shard, or one of another version.
    """

    def __init__(self, folder: Path | str, cache: ShardCache | None = None) -> None:
        self._remote = RemoteFolder(str(folder), cache or ShardCache()) if is_remote(folder) else None
        self.name = str(folder)
        """As it was given."""
        self.folder = folder = Path(folder) if self._remote is None else self._remote.local
        sizes = None if self._remote is None else self._remote.sizes
        shards = summarise(folder, lambda path: ShardIndex(path).summary(), sizes)
        self._indices: OrderedDict[int, ShardIndex] = OrderedDict()
        self._tars = [folder / shard.name for shard in shards]
        self._first = np.cumsum([0, *(shard.scenes for shard in shards)])
        self.fewest_views: int = min(shard.fewest_views for shard in shards)
        """Views of the scene that has the fewest."""
        said = "".join(shard.digest for shard in shards)
        self.fingerprint: str = hashlib.sha256(said.encode()).hexdigest()[:16]
        """Changes with the names and scenes of the shards, and with their contents when they are written anew."""

    def __len__(self) -> int:
        return int(self._first[-1])

    def read_note(self, name: str) -> str:
        """A text file that lies beside the shards."""
        return (self.folder / name).read_text()

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes read their own indices.
        return {**self.__dict__, "_indices": OrderedDict()}

    def _locate(self, scene: int) -> tuple[Path, ShardIndex, int]:
        if not 0 <= scene < len(self):
            raise IndexError(f"{self.folder}: scene {scene} of {len(self)}.")
        shard = int(np.searchsorted(self._first, scene, side="right")) - 1
        tar = self._tars[shard]
        if shard not in self._indices:
            self._indices[shard] = ShardIndex(tar.with_suffix(INDEX))
            if len(self._indices) > _KEPT_INDICES:
                self._indices.popitem(last=False)
        self._indices.move_to_end(shard)
        return tar, self._indices[shard], scene - int(self._first[shard])

    def key(self, scene: int) -> str:
        """Name of a scene."""
        _, index, place = self._locate(scene)
        return index.keys[place]

    def num_views(self, scene: int) -> int:
        """Views of a scene."""
        return self.stock(scene).views

    def stock(self, scene: int) -> Stock:
        """What is stored of a scene."""
        _, index, place = self._locate(scene)
        return index.stock[place]

    def has_depth(self, scene: int) -> bool:
        """Whether depth maps of a scene are stored."""
        _, index, place = self._locate(scene)
        return "000.depth.png" in index.members(place)

    def read(
        self,
        scene: int,
        views: list[int] | None = None,
        *,
        depth: bool = False,
        at_least: tuple[int, int] | None = None,
    ) -> StoredScene:
        """Read some views of a scene (all if None), in the given order.

        Args:
            scene: Its number.
            views: Numbers of the views.
            depth: Read depth maps as well; of a scene without any they are 0, not known.
            at_least: ``(height, width)`` that is enough: JPEG views are decoded at the smallest half, quarter or eighth
                that still has it, and the cameras follow.
        """
        tar, index, place = self._locate(scene)
        key, members, depths = index.keys[place], index.members(place), None
        where = f"{tar.name}, {key}"
        path = tar if self._remote is None else self._remote.tar(tar.name)
        with path.open("rb") as opened:
            file = _Members(opened, members, where)
            meta = json.loads(file[SCENE])
            chosen = list(range(index.stock[place].views)) if views is None else views
            h, w = meta["image_size"]
            latents = None
            if chosen and f"{chosen[0]:03d}.{LATENT}" in members:
                payloads = [file[f"{view:03d}.{LATENT}"] for view in chosen]
                latents = made_ahead(payloads, (h, w))
                images = np.zeros((len(chosen), 0, 0, 4), np.uint8)
            else:
                kinds = ["png" if f"{view:03d}.png" in members else "jpg" for view in chosen]
                names = [f"{view:03d}.{kind}" for view, kind in zip(chosen, kinds, strict=True)]
                images = np.stack([_decode(file[name], at_least) for name in names])
            if depth and "000.depth.png" not in members:
                depths = np.zeros(images.shape[:3], np.float32)
            elif depth:
                depths = np.stack([
                    np.asarray(Image.open(io.BytesIO(file[f"{view:03d}.depth.png"])))
                    for view in chosen
                ]).astype(np.float32) * (meta["depth_max"] / DEPTH_LEVELS)  # fmt: skip
        if "times" in meta:
            return StoredScene(key, images, None, depths, tuple(meta["times"][view] for view in chosen), latents)
        poses, intrinsics = torch.tensor(meta["world_from_cam"])[chosen], torch.tensor(meta["intrinsics"])[chosen]
        try:
            cameras = Cameras(poses, intrinsics, (h, w))
        except KaleidosceneError as error:  # damage like any other, not a fault of the caller
            raise ValueError(f"{where}: {error}") from None
        if latents is None and images.shape[1:3] != (h, w):
            cameras = cameras.resize(*images.shape[1:3])
        return StoredScene(key, images, cameras, depths, latents=latents, label=meta.get("label"))


@dataclass(frozen=True)
class _Members:
    """Contents of the members of a scene in an open tar file, compared with their CRC.

    Raises:
        ValueError: One is truncated or has changed since it was written; an image may still decode then.
    """

    file: BinaryIO
    places: Places
    where: str

    def __getitem__(self, name: str) -> bytes:
        start, size, crc = self.places[name]
        self.file.seek(start)
        payload = self.file.read(size)
        if crc is not None and zlib.crc32(payload) != crc:
            raise ValueError(f"{self.where}: {name} has changed since it was written (its CRC differs)")
        return payload


def _decode(payload: bytes, at_least: tuple[int, int] | None) -> UInt8[np.ndarray, "h w 4"]:
    with Image.open(io.BytesIO(payload)) as image:
        if at_least is not None and image.format == "JPEG":
            image.draft("RGB", (at_least[1], at_least[0]))
        return np.array(image.convert("RGBA"))
