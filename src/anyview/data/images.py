"""Images from files, with errors that say which file and what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from anyview.errors import AnyViewError

_FIRST_SIDEWAYS = 5  # EXIF orientations 5 to 8 lie on their side


def read_image(path: Path, *, background: float = 1.0) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"] | None]:
    """RGB in [0, 1], with alpha laid on a plain background, and the alpha itself if there is one.

    EXIF orientation is applied; 16-bit, palette, grey and CMYK images are brought to 8-bit RGB.

    Raises:
        AnyViewError: The file is missing, truncated or no image.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file)
            if image.mode.startswith("I"):
                image = Image.fromarray((np.asarray(image) / 256).clip(0, 255).astype(np.uint8))
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            array = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    except FileNotFoundError:
        raise AnyViewError(f"{path}: no such image.") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise AnyViewError(f"{path}: not a readable image ({error}).") from error
    tensor = torch.from_numpy(array.copy()).movedim(-1, 0).float() / 255
    if not has_alpha:
        return tensor, None
    alpha = tensor[3]
    return tensor[:3] * alpha + background * (1 - alpha), alpha


def image_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` as :func:`read_image` will give it, from the head of the file.

    Raises:
        AnyViewError: The file is missing or no image.
    """
    try:
        with Image.open(path) as file:
            width, height = file.size
            turned = file.getexif().get(ExifTags.Base.Orientation, 1) >= _FIRST_SIDEWAYS
    except FileNotFoundError:
        raise AnyViewError(f"{path}: no such image.") from None
    except (UnidentifiedImageError, OSError) as error:
        raise AnyViewError(f"{path}: not a readable image ({error}).") from error
    return (width, height) if turned else (height, width)


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


def write_image(path: Path, image: Float[Tensor, "3 h w"]) -> None:
    """Write a PNG, aside and then renamed."""
    partial = path.with_name(path.name + ".partial")
    Image.fromarray(to_bytes(image)).save(partial, "png")
    partial.replace(path)
