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
import os
import tarfile
import zlib
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kaleidoscene.datasets.catalogue import INDEX, summarise
from kaleidoscene.datasets.shard_index import SCENE, Places, ShardIndex, Stock, write_index
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.serialisation import file_sha256

ImageFormat = Literal["png", "jpg"]
_DEPTH_LEVELS = 65535
_LATENT = "latent.safetensors"
_JPEG_QUALITY = 95
# Indices of so many shards stay in memory, those that were used last; a training set's would not fit.
_KEPT_INDICES = 64

# What reading a damaged scene raises: files, tar members, JSON, image data.
DAMAGE = (OSError, ValueError, KeyError, IndexError, SyntaxError, SafetensorError)


@dataclass(frozen=True, eq=False)
class StoredLatents:
    """Latents of the views of a scene, made ahead so that the autoencoder is out of the training loop.

    Attributes:
        image_size: ``(height, width)`` of the images they were made of.
        mean: Of the codec's posterior, scaled as the network takes it.
        std: Its standard deviation.
        features: Auxiliary features, where the network takes any.
    """

    image_size: tuple[int, int]
    mean: Float[np.ndarray, "views c lh lw"]
    std: Float[np.ndarray, "views c lh lw"]
    features: Float[np.ndarray, "views tokens feature"] | None = None

    def payload(self, view: int) -> bytes:
        """One view as a safetensors file in half precision."""
        arrays = {"mean": self.mean[view], "std": self.std[view]}
        if self.features is not None:
            arrays["features"] = self.features[view]
        return save({name: np.ascontiguousarray(array, dtype=np.float16) for name, array in arrays.items()})

    @classmethod
    def from_payloads(cls, payloads: list[bytes], image_size: tuple[int, int]) -> StoredLatents:
        """Put views together again."""
        views = [load(payload) for payload in payloads]
        stacked = {name: np.stack([view[name] for view in views]).astype(np.float32) for name in views[0]}
        return cls(image_size, stacked["mean"], stacked["std"], stacked.get("features"))


@dataclass(frozen=True, eq=False)
class StoredScene:
    """Views of one scene as they lie in a shard: 3D with cameras, or a clip of a video with times.

    Attributes:
        key: Unique name of the scene.
        rgba: 8-bit colour with straight alpha.
        cameras: One camera a view, in world units; None for a video.
        depth: Distance along the optical axis in world units, 0 where there is nothing.
        times: Frame numbers of the views of a video; None for a 3D scene.
        latents: What a codec made of the views ahead; ``rgba`` is then empty.
    """

    key: str
    rgba: UInt8[np.ndarray, "views h w 4"]
    cameras: Cameras | None
    depth: Float[np.ndarray, "views h w"] | None = None
    times: tuple[int, ...] | None = None
    latents: StoredLatents | None = None

    def __post_init__(self) -> None:
        if (self.cameras is None) == (self.times is None):
            raise ValueError("A stored scene has either cameras or times.")


def write_shard(path: Path, scenes: Iterable[StoredScene], *, image_format: ImageFormat = "png") -> int:
    """Write one shard and its index, scene by scene; neither name exists before both are whole.

    Args:
        path: The tar file; its index goes beside it.
        scenes: What goes in.
        image_format: ``jpg`` (quality 95) is smaller and can be decoded at a fraction of its size, but drops alpha.

    Returns:
        How many scenes there were; of none, nothing is written.

    Raises:
        KaleidosceneError: Two scenes have the same key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    stock: dict[str, Stock] = {}
    try:
        _write_tar(partial, scenes, image_format, stock)
    except BaseException:  # a full disk among others: half a shard is of no use
        partial.unlink(missing_ok=True)
        raise
    if not stock:
        partial.unlink()
        return 0
    with tarfile.open(partial) as tar, partial.open("rb") as file:
        members = []
        for member in tar:
            file.seek(member.offset_data)
            crc = zlib.crc32(file.read(member.size))
            members.append((member.name, (member.offset_data, member.size, crc)))
    index_partial = path.with_suffix(f"{INDEX}.partial")
    write_index(index_partial, stock, members, file_sha256(partial))
    os.replace(partial, path)
    # The index comes last: a reader takes a shard for whole when its index is there.
    os.replace(index_partial, path.with_suffix(INDEX))
    return len(stock)


def _write_tar(path: Path, scenes: Iterable[StoredScene], image_format: ImageFormat, stock: dict[str, Stock]) -> None:
    with tarfile.open(path, "w") as tar:
        for scene in scenes:
            if scene.key in stock:
                raise KaleidosceneError(f"{path.with_suffix('')}: two scenes are named {scene.key!r}.")
            stock[scene.key] = Stock(len(scene.rgba), scene.times is not None)
            for name, payload in _members(scene, image_format):
                info = tarfile.TarInfo(name)
                info.size = len(payload)
                tar.addfile(info, io.BytesIO(payload))


def _members(scene: StoredScene, image_format: ImageFormat) -> list[tuple[str, bytes]]:
    size = scene.rgba.shape[1:3] if scene.latents is None else scene.latents.image_size
    meta: dict[str, Any] = {"image_size": size, "depth_max": None}
    if scene.cameras is not None:
        meta["world_from_cam"] = scene.cameras.world_from_cam.tolist()
        meta["intrinsics"] = scene.cameras.intrinsics.tolist()
    if scene.times is not None:
        meta["times"] = scene.times
    if scene.depth is not None:
        meta["depth_max"] = float(scene.depth.max())
    members = [(f"{scene.key}.{SCENE}", json.dumps(meta).encode())]
    if scene.latents is not None:
        meta_latents = [(f"{scene.key}.{n:03d}.{_LATENT}", scene.latents.payload(n)) for n in range(len(scene.rgba))]
        return members + meta_latents
    for view, image in enumerate(scene.rgba):
        members.append((f"{scene.key}.{view:03d}.{image_format}", _encode(image, image_format)))
        if scene.depth is not None:
            levels = np.round(scene.depth[view] / max(meta["depth_max"], 1e-9) * _DEPTH_LEVELS).astype(np.uint16)
            members.append((f"{scene.key}.{view:03d}.depth.png", _png(Image.fromarray(levels))))
    return members


def _encode(image: UInt8[np.ndarray, "h w 4"], image_format: ImageFormat) -> bytes:
    if image_format == "png":
        return _png(Image.fromarray(image))
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image[..., :3])).save(buffer, "jpeg", quality=_JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png", compress_level=4)
    return buffer.getvalue()


class ShardFolder:
    """Random access to the scenes of a folder of shards, in a fixed order (by shard, then by place in it).

    Raises:
        KaleidosceneError: The folder holds no whole shard, or one of another version.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = folder = Path(folder)
        shards = summarise(folder, lambda path: ShardIndex(path).summary())
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
            depth: Read depth maps as well.
            at_least: ``(height, width)`` that is enough: JPEG views are decoded at the smallest half, quarter or eighth
                that still has it, and the cameras follow.
        """
        tar, index, place = self._locate(scene)
        key, members, depths = index.keys[place], index.members(place), None
        where = f"{tar.name}, {key}"
        with tar.open("rb") as opened:
            file = _Members(opened, members, where)
            meta = json.loads(file[SCENE])
            chosen = list(range(index.stock[place].views)) if views is None else views
            h, w = meta["image_size"]
            latents = None
            if chosen and f"{chosen[0]:03d}.{_LATENT}" in members:
                payloads = [file[f"{view:03d}.{_LATENT}"] for view in chosen]
                latents = StoredLatents.from_payloads(payloads, (h, w))
                images = np.zeros((len(chosen), 0, 0, 4), np.uint8)
            else:
                kinds = ["png" if f"{view:03d}.png" in members else "jpg" for view in chosen]
                names = [f"{view:03d}.{kind}" for view, kind in zip(chosen, kinds, strict=True)]
                images = np.stack([_decode(file[name], at_least) for name in names])
            if depth:
                depths = np.stack([
                    np.asarray(Image.open(io.BytesIO(file[f"{view:03d}.depth.png"])))
                    for view in chosen
                ]).astype(np.float32) * (meta["depth_max"] / _DEPTH_LEVELS)  # fmt: skip
        if "times" in meta:
            return StoredScene(key, images, None, depths, tuple(meta["times"][view] for view in chosen), latents)
        poses, intrinsics = torch.tensor(meta["world_from_cam"])[chosen], torch.tensor(meta["intrinsics"])[chosen]
        try:
            cameras = Cameras(poses, intrinsics, (h, w))
        except KaleidosceneError as error:  # damage like any other, not a fault of the caller
            raise ValueError(f"{where}: {error}") from None
        if latents is None and images.shape[1:3] != (h, w):
            cameras = cameras.resize(*images.shape[1:3])
        return StoredScene(key, images, cameras, depths, latents=latents)


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
