"""Lens distortion: from the rays of a pinhole to where a real lens puts them, and a pinhole that fits inside.

Models and coefficients are those of OpenCV and COLMAP; formulas as in the OpenCV manual (camera calibration, fisheye).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.errors import KaleidosceneError

_BORDER = 33  # samples along each border and along each radius when a pinhole is fitted
_ZOOM_STEP = 1.005
_WIDEST, _NARROWEST = 0.5, 8.0  # of the pinhole's focal length, relative to the lens's
_ROUNDS, _STEP = 40, 1e-5  # of the search for the ray that a lens puts at a place, and of its slopes


@dataclass(frozen=True)
class Distortion:
    """What a lens does to normalised image coordinates.

    Attributes:
        kind: ``none``; ``opencv`` with k1, k2, p1, p2, k3, k4, k5, k6 (missing ones are 0); ``fisheye`` with k1 to k4.
        coefficients: In the order above.

    Raises:
        KaleidosceneError: Too many coefficients, or one that is not finite.
    """

    kind: Literal["none", "opencv", "fisheye"] = "none"
    coefficients: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_choices(self)
        most = {"none": 0, "opencv": 8, "fisheye": 4}[self.kind]
        if len(self.coefficients) > most:
            raise KaleidosceneError(f"A {self.kind} lens has {most} coefficients, got {len(self.coefficients)}.")
        if not all(map(math.isfinite, self.coefficients)):
            raise KaleidosceneError(f"The distortion coefficients are not finite: {self.coefficients}.")

    @classmethod
    def opencv(cls, *coefficients: float) -> Distortion:
        """``opencv`` without trailing zeros; a lens that does nothing is ``none``."""
        kept = list(coefficients)
        while kept and kept[-1] == 0:
            kept.pop()
        return cls("opencv", tuple(kept)) if kept else cls()

    @property
    def is_none(self) -> bool:
        """Whether images are those of a pinhole."""
        return self.kind == "none"

    def padded(self) -> tuple[float, ...]:
        """All coefficients of the model, zeros included."""
        most = {"none": 0, "opencv": 8, "fisheye": 4}[self.kind]
        return self.coefficients + (0.0,) * (most - len(self.coefficients))

    def apply(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """Where the lens puts the rays ``(x, y, 1)``, in the same normalised coordinates."""
        if self.kind == "none":
            return points
        x, y = points.unbind(-1)
        r2 = x * x + y * y
        if self.kind == "fisheye":
            k1, k2, k3, k4 = self.padded()
            radius = r2.sqrt()
            theta = radius.atan()
            t2 = theta * theta
            bent = theta * (1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4))))
            return points * torch.where(radius > 1e-9, bent / radius.clamp_min(1e-9), 1.0)[..., None]
        k1, k2, p1, p2, k3, k4, k5, k6 = self.padded()
        radial = (1 + r2 * (k1 + r2 * (k2 + r2 * k3))) / (1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
        out_x = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        out_y = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        return torch.stack([out_x, out_y], dim=-1)

    def remove(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 2"]:
        """The rays that the lens puts at points: inverse of :meth:`apply` where that is monotone."""
        rays = points  # by Newton's steps
        for _ in range(0 if self.is_none else _ROUNDS):
            across, down = (
                (self.apply(rays + step) - self.apply(rays - step)) / (2 * _STEP)
                for step in _STEP * torch.eye(2, dtype=points.dtype)
            )
            slopes = torch.stack([across, down], dim=-1)
            move = torch.linalg.solve(slopes, points - self.apply(rays))
            # Far from the answer a step may lead beyond where the lens is monotone.
            most = 0.2 * (1 + rays.norm(dim=-1, keepdim=True))
            rays = rays + move * (most / move.norm(dim=-1, keepdim=True).clamp_min(1e-12)).clamp(max=1)
        return rays


def pinhole_inside(
    intrinsics: Float[Tensor, "3 3"], distortion: Distortion, image_size: tuple[int, int]
) -> Float[Tensor, "3 3"]:
    """Intrinsics of the widest pinhole of the same size and principal point that sees nothing beyond the image.

    Args:
        intrinsics: Of the image that the lens took, pixels.
        distortion: Of the lens.
        image_size: ``(height, width)``.

    Raises:
        KaleidosceneError: No pinhole fits: the coefficients fold the image over itself.
    """
    if distortion.is_none:
        return intrinsics
    zoom, found = _NARROWEST, None
    while zoom >= _WIDEST and _fits(intrinsics, distortion, image_size, zoom):
        found, zoom = zoom, zoom / _ZOOM_STEP
    if found is None:
        raise KaleidosceneError(
            f"The lens distortion {distortion.kind} {distortion.coefficients} folds the image over itself."
        )
    return _zoomed(intrinsics, found)


def _zoomed(intrinsics: Tensor, zoom: float) -> Tensor:
    out = intrinsics.clone()
    out[:2, :2] *= zoom
    return out


def _fits(intrinsics: Tensor, distortion: Distortion, image_size: tuple[int, int], zoom: float) -> bool:
    """Whether the border of the zoomed pinhole lies in the image, and the lens is monotone on the way to it."""
    h, w = image_size
    along = torch.linspace(0, 1, _BORDER, dtype=intrinsics.dtype)
    zero, one = torch.zeros_like(along), torch.ones_like(along)
    border = torch.cat([torch.stack(side, -1) for side in ((along, zero), (along, one), (zero, along), (one, along))])
    rays = from_pixels(border * border.new_tensor([w, h]), _zoomed(intrinsics, zoom))
    path = distortion.apply(along[:, None, None] * rays)
    growing = bool((path.norm(dim=-1).diff(dim=0) > 0).all())
    landed = to_pixels(path[-1], intrinsics)
    slack = 0.5
    inside = (landed > -slack).all() and (landed < landed.new_tensor([w, h]) + slack).all()
    return growing and bool(inside)


def from_pixels(pixels: Float[Tensor, "*batch 2"], intrinsics: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch 2"]:
    """Normalised coordinates of pixels of a pinhole."""
    y = (pixels[..., 1] - intrinsics[1, 2]) / intrinsics[1, 1]
    x = (pixels[..., 0] - intrinsics[0, 2] - intrinsics[0, 1] * y) / intrinsics[0, 0]
    return torch.stack([x, y], dim=-1)


def to_pixels(points: Float[Tensor, "*batch 2"], intrinsics: Float[Tensor, "3 3"]) -> Float[Tensor, "*batch 2"]:
    """Inverse of :func:`from_pixels`."""
    return points @ intrinsics[:2, :2].mT + intrinsics[:2, 2]
