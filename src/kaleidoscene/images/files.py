"""Images from files, with errors that say which file and what is wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import unreadable
from kaleidoscene.images.exr import SUFFIX as EXR
from kaleidoscene.images.exr import exr_size, read_exr
from kaleidoscene.images.pixels import to_bytes

_MOST_PIXELS = 178_000_000  # a little less than what Pillow refuses by itself
_FIRST_SIDEWAYS = 5  # EXIF orientations 5 to 8 lie on their side


def read_image(
    path: Path, *, background: float = 1.0, upright: bool = True
) -> tuple[Float[Tensor, "3 h w"], Float[Tensor, "h w"] | None]:
    """RGB in [0, 1], with alpha laid on a plain background, and the alpha itself if there is one.

    16-bit, palette, grey and CMYK images are brought to 8-bit RGB; colour profiles are not applied. Of OpenEXR images
    the linear colours are cut off at 0 and 1, and their alpha is left out.

    Args:
        path: Any file that Pillow reads, or an OpenEXR image.
        background: Grey level behind transparent pixels.
        upright: Apply the EXIF orientation.

    Raises:
        KaleidosceneError: The file is missing, truncated, no image, or unreasonably large.
    """
    if path.suffix.lower() == EXR:
        return _linear(path), None
    with _opened(path) as file:
        image = ImageOps.exif_transpose(file) if upright else file
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) / 256).clip(0, 255).astype(np.uint8))
        elif image.mode == "F":
            raise KaleidosceneError(f"{path}: an image of floating-point numbers; expected 8 or 16 bits.")
        has_alpha = "A" in image.getbands() or "transparency" in image.info
        array = np.asarray(image.convert("RGBA" if has_alpha else "RGB"))
    tensor = torch.from_numpy(array.copy()).movedim(-1, 0).float() / 255
    if not has_alpha:
        return tensor, None
    alpha = tensor[3]
    return tensor[:3] * alpha + background * (1 - alpha), alpha


def read_depth(path: Path, scale: float) -> Float[Tensor, "h w"]:
    """A depth map of whole numbers times ``scale``; 0 where it is unknown (levels 0 and 65535).

    Raises:
        KaleidosceneError: The file is missing, truncated, or has several channels.
    """
    with _opened(path) as file:
        array = np.asarray(file)
    if array.ndim != 2:
        raise KaleidosceneError(f"{path}: a depth map has one channel, this image has {array.shape[-1]}.")
    known = array != np.iinfo(np.uint16).max
    return torch.from_numpy(np.where(known, array, 0).astype(np.float32)) * scale


def is_depth_map(path: Path) -> bool:
    """Whether an image has one channel of 16 bits or more, as depth maps have; False of what cannot be read."""
    try:
        with _opened(path) as file:
            return file.mode.startswith("I")
    except KaleidosceneError:
        return False


def read_xmp(path: Path) -> bytes:
    """XMP of an image, as it lies in the file; empty without, and of what cannot be read."""
    try:
        with _opened(path) as file:
            found = file.info.get("xmp", file.info.get("XML:com.adobe.xmp", b""))
    except KaleidosceneError:
        return b""
    return found.encode() if isinstance(found, str) else found


def read_thumbnail(path: Path, side: int, *, upright: bool = True) -> Image.Image:
    """A small RGB picture whose longer side is ``side``, on white; JPEGs are decoded no larger than needed.

    Raises:
        KaleidosceneError: The file is missing, truncated or no image.
    """
    if path.suffix.lower() == EXR:
        picture = Image.fromarray(to_bytes(_linear(path)))
        picture.thumbnail((side, side))
        return picture
    with _opened(path) as file:
        file.draft("RGB", (2 * side, 2 * side))
        image = ImageOps.exif_transpose(file) if upright else file
        if image.mode.startswith("I"):
            image = Image.fromarray((np.asarray(image) / 256).clip(0, 255).astype(np.uint8))
        small = image.convert("RGBA")
        small.thumbnail((side, side))
        plain = Image.new("RGBA", small.size, "white")
        plain.alpha_composite(small)
        return plain.convert("RGB")


def _linear(path: Path) -> Float[Tensor, "3 h w"]:
    h, w = exr_size(path)
    if h * w > _MOST_PIXELS:
        raise KaleidosceneError(f"{path}: {h}x{w} pixels are more than is read ({_MOST_PIXELS}).")
    return read_exr(path).clamp(0, 1)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An open image; whatever Pillow says while it is read becomes a sentence."""
    try:
        with warnings.catch_warnings():
            # Large photographs are welcome; what is larger than that is refused below.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if file.width * file.height > _MOST_PIXELS:
                    raise KaleidosceneError(
                        f"{path}: {file.height}x{file.width} pixels are more than is read ({_MOST_PIXELS})."
                    )
                yield file
    except KaleidosceneError:
        raise
    except FileNotFoundError:
        raise KaleidosceneError(f"{path}: no such image.") from None
    except Image.DecompressionBombError:
        raise KaleidosceneError(f"{path}: the image has more pixels than is read ({_MOST_PIXELS}).") from None
    except Exception as error:  # Pillow's plug-ins raise what they like on damaged files: struct.error, IndexError ...
        raise unreadable(path, "image", error) from error


SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def list_images(folder: Path) -> list[Path]:
    """Image files of a folder by their suffix, sorted by name; hidden ones are none of them.

    Raises:
        KaleidosceneError: The folder cannot be read.
    """
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise KaleidosceneError(f"{folder}: the folder cannot be read ({error.strerror}).") from error
    return sorted(paths)


def stored_size(path: Path) -> tuple[tuple[int, int], bool]:
    """``(height, width)`` as stored, and whether the EXIF orientation lays the image on its side.

    Raises:
        KaleidosceneError: The file is missing or no image.
    """
    if path.suffix.lower() == EXR:
        return exr_size(path), False
    with _opened(path) as file:
        sideways = file.getexif().get(ExifTags.Base.Orientation, 1) >= _FIRST_SIDEWAYS
        return (file.height, file.width), sideways


def is_turned(path: Path) -> bool:
    """Whether the EXIF orientation is another than upright.

    Raises:
        KaleidosceneError: The file is missing or no image.
    """
    with _opened(path) as file:
        return file.getexif().get(ExifTags.Base.Orientation, 1) != 1


def read_exif(path: Path) -> dict[int, object]:
    """EXIF tags of an image, those of the camera with the others; empty without.

    Raises:
        KaleidosceneError: The file is missing or no image.
    """
    with _opened(path) as file:
        exif = file.getexif()
        return {**exif, **exif.get_ifd(ExifTags.IFD.Exif)}


def image_size(path: Path, *, upright: bool = True) -> tuple[int, int]:
    """``(height, width)`` as :func:`read_image` will give it, from the head of the file.

    Raises:
        KaleidosceneError: The file is missing or no image.
    """
    (height, width), sideways = stored_size(path)
    return (width, height) if sideways and upright else (height, width)


def write_image(path: Path, image: Float[Tensor, "3 h w"]) -> None:
    """Write a PNG, aside and then renamed."""
    partial = path.with_name(path.name + ".partial")
    Image.fromarray(to_bytes(image)).save(partial, "png")
    partial.replace(path)
