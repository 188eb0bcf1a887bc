"""Images of real lenses to images of pinholes."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.distortion import Distortion, from_pixels, pinhole_inside, to_pixels
from kaleidoscene.geometry.rays import pixel_centres


@lru_cache(maxsize=256)
def _pinhole(numbers: tuple[float, ...], distortion: Distortion, image_size: tuple[int, int]) -> Tensor:
    return pinhole_inside(torch.tensor(numbers, dtype=torch.float64).view(3, 3), distortion, image_size)


def pinhole_of(
    intrinsics: Float[Tensor, "3 3"], distortion: Distortion, image_size: tuple[int, int]
) -> Float[Tensor, "3 3"]:
    """:func:`~kaleidoscene.geometry.distortion.pinhole_inside`, remembered: views of one lens share it."""
    if distortion.is_none:
        return intrinsics
    return _pinhole(tuple(intrinsics.double().flatten().tolist()), distortion, image_size)


def undistort_image(
    image: Float[Tensor, "c h w"],
    intrinsics: Float[Tensor, "3 3"],
    distortion: Distortion,
    pinhole: Float[Tensor, "3 3"],
    *,
    mode: Literal["bilinear", "nearest"] = "bilinear",
) -> Float[Tensor, "c h w"]:
    """Resample what a lens saw as the pinhole of the same size sees it.

    Args:
        image: Any channels.
        intrinsics: Of the image, pixels.
        distortion: Of its lens.
        pinhole: Intrinsics of the result, for example those of :func:`pinhole_of`.
        mode: ``nearest`` where values must not be mixed, as in depth maps.
    """
    if distortion.is_none and torch.equal(pinhole, intrinsics):
        return image
    h, w = image.shape[-2:]
    pixels = pixel_centres((h, w), torch.empty(0, dtype=torch.float64))
    source = to_pixels(distortion.apply(from_pixels(pixels, pinhole.double())), intrinsics.double())
    # grid_sample's -1 and 1 are the outer borders of the image, where pixel centres are at +0.5.
    grid = 2 * source / source.new_tensor([w, h]) - 1
    sampled = torch.nn.functional.grid_sample(
        image[None], grid[None].to(image), mode=mode, padding_mode="border", align_corners=False
    )
    return sampled[0]
