"""A capture of views that were rendered: images, cameras, depth maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kaleidoscene.captures.capture import Centred
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras

# Of 16 bits the highest number stands for an unknown depth.
_DEPTH_LEVELS = 65534


def write_rendered_capture(
    folder: Path,
    rgba: np.ndarray,
    cameras: Cameras,
    *,
    depth: np.ndarray | None = None,
    centred: Centred = "object",
) -> None:
    """Write RGBA views and transforms.json, and depth maps in 16 bits.

    Args:
        folder: Empty.
        rgba: ``(views, h, w, 4)``, 8 bits, straight alpha.
        cameras: ``(views,)``.
        depth: ``(views, h, w)`` along the optical axis in world units, 0 where there is nothing.
        centred: See :class:`kaleidoscene.captures.capture.Capture`.
    """
    names = [f"images/{view:03d}.png" for view in range(len(rgba))]
    (folder / "images").mkdir()
    for name, image in zip(names, rgba, strict=True):
        Image.fromarray(image).save(folder / name)
    depths, unit = None, 1.0
    if depth is not None:
        depths = [f"depth/{view:03d}.png" for view in range(len(rgba))]
        unit = write_depths(folder, depths, list(torch.from_numpy(depth)))
    write_cameras(folder / "transforms.json", names, cameras, centred=centred, depths=depths, depth_unit=unit)


def write_depths(folder: Path, names: Sequence[str], depths: Sequence[Float[Tensor, "h w"]]) -> float:
    """Write depth maps in 16 bits, 0 where nothing is met.

    Args:
        folder: They come to lie below it.
        names: Of the files.
        depths: World units.

    Returns:
        World units of a level.

    Raises:
        KaleidosceneError: A depth is not finite.
    """
    for name, depth in zip(names, depths, strict=True):
        if not bool(torch.isfinite(depth).all()):
            raise KaleidosceneError(f"{name}: the depth map has values that are not finite.")
    unit = max(1e-12, *(float(depth.max()) for depth in depths)) / _DEPTH_LEVELS
    for name, depth in zip(names, depths, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        levels = (depth.double() / unit).round().cpu().numpy().astype(np.uint16)
        Image.fromarray(levels).save(folder / name)
    return unit
