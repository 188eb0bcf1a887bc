"""Objects are cut out of photographs: colours and cameras together say which pixels are of what all views look at.

Ours, of known parts: GrabCut (Rother, Kolmogorov and Blake 2004; here OpenCV's) with one model of colours for all
views, begun from balls around the point that the cameras look at, and held against the visual hull of its own answer.
Of several balls that one is taken whose silhouettes fit one body best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from kaleidoscene.choices import check_range
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import camera_rays, project
from kaleidoscene.reconstruction.grab_cut import core, disc, grab_cut, opencv, seam
from kaleidoscene.reconstruction.hull import agreeing, box_of

# Share of a single picture along each border that is not of its object.
_BORDER = 0.03
# An object has so many times the pixels that are of it for certain, and so large a share of those that may be: outside
# of that nothing was told apart.
_LEAST, _MOST = 2, 0.85
# Views whose silhouettes are known that teach the colours to those where they are not.
_ANCHORS = 12


@dataclass(frozen=True, kw_only=True)
class CutOutConfig:
    """How objects are cut out."""

    size: int = 144
    """Longer side of the pictures in which the object is looked for, pixels."""
    views: int = 32
    """In which it is looked for; the others are held against what these say."""
    balls: tuple[float, ...] = (0.6, 0.85, 1.15)
    """Radii within which the object may lie; 1 fills the shorter side of the typical picture."""
    core: float = 0.12
    """Radius of the ball that is of the object for certain, likewise; 0: none is."""
    agreement: float = 0.9
    """Share of the views in whose silhouettes a point of the object has to lie."""
    cells: int = 56
    """Cubes along the longest side of the hull."""
    rounds: int = 2
    """How often silhouettes and hull are brought together."""
    detail: int = 800
    """Longer side of the pictures in which the outline is drawn at last."""

    def __post_init__(self) -> None:
        check_range(self, 32, 4096, "size", "detail")
        check_range(self, 2, 1000, "views")
        check_range(self, 0, math.inf, "balls", above=True)
        check_range(self, 0, 1, "core")
        check_range(self, 0.5, 1, "agreement", above=True)
        check_range(self, 8, 512, "cells")
        check_range(self, 0, 20, "rounds")
        if not self.balls:
            raise ValueError("balls must name at least one radius.")


@dataclass(frozen=True, eq=False)
class CutOut:
    """An object in several views.

    Attributes:
        masks: Where it is.
        fit: How well each silhouette fits that of the body which all views share: intersection over union; 1 of a
            picture alone.
        ball: The radius it was found with, as :class:`CutOutConfig` counts them; infinite in a picture alone.
    """

    masks: Bool[Tensor, "views h w"]
    fit: Float[Tensor, " views"]
    ball: float


def cut_out(
    images: Float[Tensor, "views 3 h w"], cameras: Cameras, focus: Float[Tensor, " 3"], config: CutOutConfig
) -> CutOut:
    """Where the object is that all views look at.

    Args:
        images: RGB in [0, 1], of the size in which it is looked for.
        cameras: ``(views,)``.
        focus: A point within it, world.
        config: See there.

    Raises:
        KaleidosceneError: The views agree on no object, or OpenCV is not there.
    """
    pixels = (255 * images).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    chosen = sorted({round(place) for place in np.linspace(0, len(images) - 1, min(config.views, len(images)))})
    some = cameras[torch.tensor(chosen)]
    masks, ball = _looked_for(pixels[chosen], some, focus, config)
    found = np.zeros(pixels.shape[:3], bool)
    found[chosen] = masks
    rest = [number for number in range(len(images)) if number not in chosen]
    for start in range(0, len(rest), config.views):
        group = rest[start : start + config.views]
        others = _Views(pixels[group], cameras[torch.tensor(group)])
        found[group] = _by_others(others, _Views(pixels[chosen], some), masks, config)
    fit = _fit(found, cameras, _Masks(masks, some), config) if len(images) > 1 else torch.ones(1)
    assert fit is not None, "the chosen views were found to share a body"
    return CutOut(torch.from_numpy(found), fit, ball)


def _looked_for(
    pixels: Any, cameras: Cameras, focus: Float[Tensor, " 3"], config: CutOutConfig
) -> tuple[Bool[np.ndarray, "views h w"], float]:
    """Silhouettes begun from the ball whose answer fits one body best, and that ball."""
    cv2, away = opencv(), _distances(cameras, focus)
    h, w = cameras.image_size
    depth = (cameras.centres - focus).norm(dim=-1)
    unit = float((depth * 0.5 * min(h, w) / cameras.intrinsics[:, 1, 1]).median())
    certain, best = away < config.core * unit, None
    for ball in config.balls if len(pixels) > 1 else (math.inf,):
        near = away < ball * unit if len(pixels) > 1 else _within_borders(h, w)[None]
        seeds = np.where(near, cv2.GC_PR_FGD, cv2.GC_BGD)
        seeds = np.where(certain, cv2.GC_FGD, seeds).astype(np.uint8)
        if (seeds == cv2.GC_BGD).all() or not (seeds == cv2.GC_BGD).any():
            continue  # nothing may be of it, or nothing is known not to be
        masks, fit = _agreed(pixels, grab_cut(pixels, seeds, 4), cameras, config)
        # The balls themselves would fit one body better than any object does.
        is_ball = masks.sum() < _LEAST * certain.sum() or masks.sum() > _MOST * (seeds != cv2.GC_BGD).sum()
        if not is_ball and fit > (0.0 if best is None else best[0]):
            best = fit, ball, masks
    if best is None:
        raise KaleidosceneError(
            "no object could be told from what is behind it: it must stand where the pictures look, and differ in "
            "colour."
        )
    return best[2], best[1]


def _within_borders(h: int, w: int) -> Bool[np.ndarray, "h w"]:
    inside = np.zeros((h, w), bool)
    margin = math.ceil(_BORDER * max(h, w))
    inside[margin:-margin, margin:-margin] = True
    return inside


def _agreed(
    pixels: Any, masks: Bool[np.ndarray, "views h w"], cameras: Cameras, config: CutOutConfig
) -> tuple[Bool[np.ndarray, "views h w"], float]:
    """Silhouettes brought together as long as that makes them fit one body better, and how well they do."""
    if len(pixels) == 1:
        return masks, 1.0
    fit = _typical(masks, cameras, config)
    for _ in range(config.rounds):
        again = _brought_together(pixels, masks, cameras, config)
        now = _typical(again, cameras, config)
        if now <= fit:
            break
        masks, fit = again, now
    return masks, fit


def _typical(masks: Bool[np.ndarray, "views h w"], cameras: Cameras, config: CutOutConfig) -> float:
    fit = _fit(masks, cameras, _Masks(masks, cameras), config)
    return -1.0 if fit is None else float(fit.median())


@dataclass(frozen=True, eq=False)
class _Views:
    """Pictures."""

    pixels: UInt8[np.ndarray, "views h w 3"]
    cameras: Cameras


@dataclass(frozen=True, eq=False)
class _Masks:
    """Silhouettes that say which body they share."""

    masks: Bool[np.ndarray, "views h w"]
    cameras: Cameras


def _distances(cameras: Cameras, focus: Float[Tensor, " 3"]) -> Float[np.ndarray, "views h w"]:
    """How far from a point the ray of each pixel passes; infinite where it lies behind."""
    found = []
    for number in range(len(cameras)):
        centre, directions = camera_rays(cameras[number])
        way = focus - centre
        along = directions @ way
        passed = (way.square().sum() - along.square()).clamp_min(0).sqrt()
        found.append(torch.where(along > 0, passed, math.inf))
    return torch.stack(found).numpy()


def _brought_together(
    pixels: Any, masks: Bool[np.ndarray, "views h w"], cameras: Cameras, config: CutOutConfig
) -> Bool[np.ndarray, "views h w"]:
    """Silhouettes again, begun from the bodies that many and that nearly all views share; as they are if none."""
    cv2 = opencv()
    wide, narrow = _bodies(_Masks(masks, cameras), cameras, config)
    if wide is None or narrow is None:
        return masks
    around, seeds = seam(pixels), []
    for may, must, mask in zip(wide, narrow, masks, strict=True):
        near, deep = cv2.dilate(may.astype(np.uint8), around) > 0, cv2.erode(must.astype(np.uint8), around) > 0
        seed = np.where(near & mask, cv2.GC_PR_FGD, np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD))
        seeds.append(np.where(deep, cv2.GC_FGD, np.where(must, cv2.GC_PR_FGD, seed)))
    marks = np.stack(seeds).astype(np.uint8)
    is_mixed = (marks == cv2.GC_BGD).any() and np.isin(marks, (cv2.GC_FGD, cv2.GC_PR_FGD)).any()
    return grab_cut(pixels, marks, 2) if is_mixed else masks


def _by_others(
    views: _Views, known: _Views, masks: Bool[np.ndarray, "known h w"], config: CutOutConfig
) -> Bool[np.ndarray, "views h w"]:
    """Silhouettes in views by those in others: their body bounds them, their colours are those of the object."""
    cv2 = opencv()
    wide, narrow = _bodies(_Masks(masks, known.cameras), views.cameras, config)
    if wide is None or narrow is None:
        return np.zeros(views.pixels.shape[:3], bool)
    near = np.stack([cv2.dilate(one.astype(np.uint8), seam(views.pixels)) > 0 for one in wide])
    seeds = np.where(narrow, cv2.GC_PR_FGD, np.where(near, cv2.GC_PR_BGD, cv2.GC_BGD))
    seeds = np.where(np.stack([core(one) for one in narrow]), cv2.GC_FGD, seeds)
    some = np.linspace(0, len(masks) - 1, min(_ANCHORS, len(masks))).round().astype(int)
    sure = np.where(masks[some], cv2.GC_FGD, cv2.GC_BGD)
    marks = np.concatenate([sure, seeds]).astype(np.uint8)
    return grab_cut(np.concatenate([known.pixels[some], views.pixels]), marks, 3)[len(some) :]


def _bodies(sharing: _Masks, cameras: Cameras, config: CutOutConfig) -> tuple[Any, Any]:
    """Silhouettes of what many of some views share, and of what nearly all do; None for what is nothing."""
    slack = 1 - config.agreement
    wide, narrow = (_silhouettes(sharing, 1 - slack * times, cameras, config) for times in (2, 0.5))
    return wide, narrow


def _fit(masks: Any, cameras: Cameras, sharing: _Masks, config: CutOutConfig) -> Float[Tensor, " views"] | None:
    """Intersection over union of silhouettes and those of the body that some share; None if there is none."""
    body = _silhouettes(sharing, config.agreement, cameras, config)
    if body is None:
        return None
    shared, either = (masks & body).sum((1, 2)), (masks | body).sum((1, 2))
    return torch.from_numpy(shared / np.maximum(either, 1)).float()


def _silhouettes(sharing: _Masks, agreement: float, cameras: Cameras, config: CutOutConfig) -> Any:
    """Of the body that lies in so large a share of some views' masks, in any views; None if there is none."""
    cv2 = opencv()
    known = torch.from_numpy(sharing.masks).float()
    try:
        box = box_of(known, sharing.cameras, agreement, config.cells)
    except KaleidosceneError:
        return None
    corners = box.corners().reshape(-1, 3)
    body = corners[agreeing(known, sharing.cameras, corners) >= agreement]
    if not len(body):
        return None
    (h, w), found = cameras.image_size, []
    for number in range(len(cameras)):
        pixels, depth = project(cameras[number], body)
        column, row = pixels.floor().long().unbind(-1)
        seen = (depth > 0) & (column >= 0) & (column < w) & (row >= 0) & (row < h)
        picture = np.zeros((h, w), np.uint8)
        picture[row[seen].numpy(), column[seen].numpy()] = 1
        cell = box.cell * float((cameras.intrinsics[number, 1, 1] / depth[seen]).median()) if seen.any() else 1.0
        found.append(cv2.morphologyEx(picture, cv2.MORPH_CLOSE, disc(0.5 * cell + 0.5)) > 0)
    return np.stack(found)
