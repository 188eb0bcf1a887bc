"""Equirectangular panoramas, cut into pictures as pinholes see them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import ExifTags, Image
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import camera_rays
from kaleidoscene.images.files import image_size, read_image, read_xmp
from kaleidoscene.images.pixels import to_bytes

VIEWS, ANGLE = 8, 75.0
"""Pictures around, and how wide each is in degrees: two fifths of each are in the next one."""
_QUALITY = 95
_INCH = 2  # unit of a resolution in EXIF


def says_panorama(path: Path) -> bool:
    """Whether an image's metadata call it equirectangular (XMP, as cameras and phones write it)."""
    return b"equirectangular" in read_xmp(path)


def may_be_panorama(path: Path) -> bool:
    """Whether an image is exactly twice as wide as high."""
    try:
        h, w = image_size(path)
    except (KaleidosceneError, ValueError):
        return False
    return w == 2 * h


def cameras_within(height: int) -> Cameras:
    """Pinholes ``(VIEWS,)`` around the middle of a panorama of some height: OpenCV axes, y down, the first looks ahead.

    In their middle they are as sharp as the panorama is along its horizon.
    """
    slope = math.tan(math.radians(ANGLE / 2))
    side = max(2, round(2 * slope * height / math.pi))
    focal = 0.5 * side / slope
    poses = torch.eye(4).repeat(VIEWS, 1, 1)
    turns = 2 * math.pi * torch.arange(VIEWS, dtype=torch.float64) / VIEWS
    poses[:, 0, 0] = poses[:, 2, 2] = turns.cos().float()
    poses[:, 0, 2], poses[:, 2, 0] = turns.sin().float(), -turns.sin().float()
    matrix = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]])
    return Cameras(poses, matrix.expand(VIEWS, 3, 3), (side, side))


def looked_at(panorama: Float[Tensor, "3 h w"], cameras: Cameras) -> Float[Tensor, "views 3 s s"]:
    """What pinholes in the middle of a panorama see.

    Args:
        panorama: All directions: its middle is ahead (z), its top is up (-y), its right border meets the left one.
        cameras: ``(views,)``.
    """
    h, w = panorama.shape[-2:]
    _, directions = camera_rays(cameras)
    x, y, z = directions.unbind(-1)
    column, row = (torch.atan2(x, z) / (2 * math.pi) + 0.5) * w, (torch.asin(y.clamp(-1, 1)) / math.pi + 0.5) * h
    # One more column on each side, from the other one, so that nothing is seen of the seam.
    wide = torch.cat([panorama[..., -1:], panorama, panorama[..., :1]], dim=-1)
    grid = torch.stack([2 * (column + 1) / (w + 2) - 1, 2 * row / h - 1], dim=-1)
    return torch.nn.functional.grid_sample(
        wide.expand(len(grid), -1, -1, -1), grid, padding_mode="border", align_corners=False
    )


def cut_panorama(path: Path, folder: Path) -> list[Path]:
    """Write what pinholes see of a panorama as JPEGs that tell their focal length.

    Args:
        path: The panorama, of all directions.
        folder: Where to; names are its own with a number.

    Raises:
        KaleidosceneError: It cannot be read, or a picture of that name is there already.
    """
    panorama, _ = read_image(path)
    cameras = cameras_within(panorama.shape[-2])
    written = []
    for number, picture in enumerate(looked_at(panorama, cameras)):
        exif = Image.Exif()
        exif.get_ifd(ExifTags.IFD.Exif).update({
            ExifTags.Base.FocalLength: 25.4, ExifTags.Base.FocalPlaneXResolution: float(cameras.intrinsics[0, 0, 0]),
            ExifTags.Base.FocalPlaneResolutionUnit: _INCH, ExifTags.Base.ExifImageWidth: cameras.image_size[1],
            ExifTags.Base.ExifImageHeight: cameras.image_size[0],
        })  # fmt: skip
        written.append(folder / f"{path.stem}_{number}.jpg")
        if written[-1].exists():
            raise KaleidosceneError(f"{path}: there is another picture called {written[-1].name}; rename one of them.")
        Image.fromarray(to_bytes(picture)).save(written[-1], quality=_QUALITY, exif=exif)
    return written
