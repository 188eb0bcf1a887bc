"""Images as tensors: middles of an aspect ratio, other sizes, bytes."""

from __future__ import annotations

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
