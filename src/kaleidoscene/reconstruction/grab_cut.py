"""GrabCut and what belongs to it: pictures told apart by colours on both sides of an outline (OpenCV's)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError

# Between two pictures that share one model of colours, background pixels.
_GAP = 2


def grab_cut(
    pixels: UInt8[np.ndarray, "views h w 3"], seeds: UInt8[np.ndarray, "views h w"], rounds: int
) -> Bool[np.ndarray, "views h w"]:
    """Several pictures by one model of colours: they are laid side by side, with background between them."""
    cv2 = opencv()
    views, h, w = seeds.shape
    across = math.ceil(math.sqrt(views))
    down = -(-views // across)
    places = [
        (slice(y * (h + _GAP), y * (h + _GAP) + h), slice(x * (w + _GAP), x * (w + _GAP) + w))
        for y in range(down) for x in range(across)
    ][:views]  # fmt: skip
    sheet = np.zeros((down * (h + _GAP), across * (w + _GAP), 3), np.uint8)
    marks = np.full(sheet.shape[:2], cv2.GC_BGD, np.uint8)
    # What lies between has a colour that is in the pictures, so that it teaches the model nothing.
    sheet[:] = pixels[seeds == cv2.GC_BGD][0]
    for place, picture, seed in zip(places, pixels, seeds, strict=True):
        sheet[place], marks[place] = picture, seed
    cv2.setRNGSeed(0)  # the models of colours begin at random
    cv2.grabCut(sheet, marks, None, np.zeros((1, 65)), np.zeros((1, 65)), rounds, cv2.GC_INIT_WITH_MASK)
    of_object = (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)
    return np.stack([of_object[place] for place in places])


def refined(image: UInt8[np.ndarray, "h w 3"], coarse: Float[Tensor, "sh sw"], cell: float) -> Bool[Tensor, "h w"]:
    """A mask at the size of its photograph: its outline is drawn again by the colours on both sides of it.

    Args:
        image: The photograph.
        coarse: How much of each pixel is of the object, found in a smaller picture; of the size in which that is done.
        cell: Pixels of it that were one pixel there.
    """
    cv2 = opencv()
    (h, w), (sh, sw) = image.shape[:2], coarse.shape
    small: Any = cv2.resize(image, (sw, sh), interpolation=cv2.INTER_AREA)
    inside = (coarse.numpy() > 0.5).astype(np.uint8)
    sure, maybe = cv2.erode(inside, disc(1.5 * cell)), cv2.dilate(inside, disc(1.5 * cell))
    seeds = np.where(inside > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    seeds = np.where(maybe > 0, np.where(sure > 0, cv2.GC_FGD, seeds), cv2.GC_BGD).astype(np.uint8)
    if sure.any() and not maybe.all():
        inside = grab_cut(small[None], seeds[None], 2)[0].astype(np.uint8)
    return torch.from_numpy(cv2.resize(inside.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR) > 0.5)


def seam(pixels: Any) -> Any:
    """By how much a silhouette may be off."""
    return disc(max(1.0, max(pixels.shape[1:3]) / 64))


def core(silhouette: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What lies deep in a silhouette, more than half as deep as anything."""
    cv2 = opencv()
    depth = cv2.distanceTransform(silhouette.astype(np.uint8), cv2.DIST_L2, 3)
    return depth > max(0.5 * float(depth.max()), 0.5)


def disc(radius: float) -> Any:
    """A structuring element."""
    cv2, side = opencv(), 2 * math.ceil(radius) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def opencv() -> Any:
    """The library.

    Raises:
        KaleidosceneError: It is not there.
    """
    try:
        import cv2  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError(
            f"Objects are cut out with OpenCV ({error}): pip install 'kaleidoscene[reconstruction]', or give masks."
        ) from error
    return cv2
