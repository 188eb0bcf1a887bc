"""A capture of views that were rendered: images, cameras, depth maps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from kaleidoscene.captures.capture import Centred
from kaleidoscene.captures.formats import transforms_json
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
        unit = float(depth.max()) / _DEPTH_LEVELS
        depths = [f"depth/{view:03d}.png" for view in range(len(rgba))]
        (folder / "depth").mkdir()
        for name, plane in zip(depths, depth, strict=True):
            Image.fromarray(np.round(plane / unit).astype(np.uint16)).save(folder / name)
    transforms_json.write(folder / "transforms.json", names, cameras, centred=centred, depths=depths, depth_unit=unit)
