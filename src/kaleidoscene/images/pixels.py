"""Images as tensors: middles of an aspect ratio, other sizes, bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def centre_box(image_size: tuple[int, int], aspect_of: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest box in the middle of an image that has the aspect ratio of another size.

    Args:
        image_size: ``(height, width)`` of the image.
        aspect_of: ``(height, width)`` whose ratio counts.

    Returns:
        ``(top, left, height, width)`` in pixels, as :meth:`kaleidoscene.geometry.cameras.Cameras.crop` takes them.
    """
    (h, w), (th, tw) = image_size, aspect_of
    scale = min(h / th, w / tw)
    height, width = min(h, round(th * scale)), min(w, round(tw * scale))
    return (h - height) // 2, (w - width) // 2, height, width


def resize_image(image: Float[Tensor, "*batch 3 h w"], size: tuple[int, int]) -> Float[Tensor, "*batch 3 th tw"]:
    """Resample by area (smaller) or bicubically (larger), antialiased, clamped to [0, 1]."""
    if tuple(image.shape[-2:]) == size:
        return image
    flat = image.reshape(-1, *image.shape[-3:])
    whole = all(old % new == 0 for old, new in zip(flat.shape[-2:], size, strict=True))
    if whole:
        out = torch.nn.functional.interpolate(flat, size, mode="area")
    else:
        out = torch.nn.functional.interpolate(flat, size, mode="bicubic", antialias=True, align_corners=False)
    return out.clamp(0, 1).reshape(*image.shape[:-2], *size)


def to_bytes(image: Float[Tensor, "3 h w"]) -> np.ndarray:
    """8-bit RGB ``(h, w, 3)`` of an image in [0, 1]."""
    return (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).movedim(0, -1).numpy()


_NEAR_TO_FAR = ((0.99, 0.91, 0.14), (0.37, 0.79, 0.38), (0.13, 0.57, 0.55), (0.23, 0.32, 0.55), (0.2, 0.0, 0.3))


def colour_ramp(
    values: Float[torch.Tensor, "h w"], stops: Sequence[tuple[float, float, float]]
) -> Float[torch.Tensor, "3 h w"]:
    """Numbers from 0 to 1 as colours between evenly spaced stops."""
    colours = torch.tensor(stops)
    place = values.clamp(0, 1) * (len(stops) - 1)
    low = place.floor().clamp(0, len(stops) - 2).long()
    part = (place - low)[..., None]
    return ((1 - part) * colours[low] + part * colours[low + 1]).movedim(-1, 0)


def depth_picture(depth: Float[torch.Tensor, "h w"], near: float, far: float) -> Float[torch.Tensor, "3 h w"]:
    """Depth from yellow (near) over green to dark blue (far); white where there is none.

    Args:
        depth: 0 where there is none.
        near: Shown as the brightest.
        far: Shown as the darkest.
    """
    return torch.where(depth > 0, colour_ramp((depth - near) / max(far - near, 1e-12), _NEAR_TO_FAR), 1.0)
