"""Writing shards; :mod:`kaleidoscene.datasets.shards` has their form."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from kaleidoscene.datasets.catalogue import INDEX
from kaleidoscene.datasets.shard_index import SCENE, Stock, write_index
from kaleidoscene.datasets.stored import DEPTH_LEVELS, LATENT, StoredScene
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import file_sha256

ImageFormat = Literal["png", "jpg"]
_JPEG_QUALITY = 95


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
    if scene.label is not None:
        meta["label"] = scene.label
    if scene.depth is not None:
        meta["depth_max"] = float(scene.depth.max())
    members = [(f"{scene.key}.{SCENE}", json.dumps(meta).encode())]
    if scene.latents is not None:
        meta_latents = [(f"{scene.key}.{n:03d}.{LATENT}", scene.latents.payload(n)) for n in range(len(scene.rgba))]
        return members + meta_latents
    for view, image in enumerate(scene.rgba):
        members.append((f"{scene.key}.{view:03d}.{image_format}", _encode(image, image_format)))
        if scene.depth is not None:
            levels = np.round(scene.depth[view] / max(meta["depth_max"], 1e-9) * DEPTH_LEVELS).astype(np.uint16)
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
