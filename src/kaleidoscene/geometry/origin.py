"""Where the middle of a scene lies, of which nobody says so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point, mean_centre
from kaleidoscene.geometry.rays import project

# Points that are looked at at most, and how many of them a view must see to tell anything.
_LOOKED_AT, _LEAST = 5000, 10
# Axes are nearly parallel whose angles to a common direction are less than this: degrees, root of the mean square.
_PARALLEL = 10.0


@dataclass(frozen=True, eq=False)
class SeenDepths:
    """How far away is what views show, in world units along their axes; NaN for a view that tells nothing.

    Attributes:
        near: Nearest depth.
        far: Farthest depth.
        middle: Mean in disparity.
    """

    near: Float[Tensor, " views"]
    far: Float[Tensor, " views"]
    middle: Float[Tensor, " views"]

    @classmethod
    def between(cls, bounds: Sequence[tuple[float, float]]) -> SeenDepths:
        """Of nearest and farthest depths, as far as they are some."""
        near, far = torch.tensor(bounds, dtype=torch.float64).unbind(-1)
        sound = (near > 0) & (near < far) & far.isfinite()
        near, far = (torch.where(sound, x, torch.nan) for x in (near, far))
        return cls(near, far, 2 / (1 / near + 1 / far))

    @classmethod
    def of_points(cls, cameras: Cameras, points: Float[Tensor, "points 3"]) -> SeenDepths:
        """Of points of the scene, without the hundredth at either end; nothing of views that see few."""
        rows = [_spread(depths) for depths in depths_in_views(cameras, points)]
        return cls(*torch.stack(rows).unbind(-1))

    def hold(self, depths: Float[Tensor, " views"]) -> Bool[Tensor, " views"]:
        """Whether depths lie among them."""
        return (depths >= self.near) & (depths <= self.far)


def depths_in_views(cameras: Cameras, points: Float[Tensor, "points 3"]) -> Iterator[Float[Tensor, " seen"]]:
    """Depths of the points that each view sees, if nothing hides any, in world units; of large clouds some points."""
    some = points.double()[:: max(1, math.ceil(len(points) / _LOOKED_AT))]
    cameras, (h, w) = cameras.to(torch.float64), cameras.image_size
    for number in range(len(cameras)):
        pixels, depth = project(cameras[number], some)
        yield depth[(depth > 0) & ((pixels >= 0) & (pixels < pixels.new_tensor([w, h]))).all(-1)]


def _spread(depths: Float[Tensor, " points"]) -> Float[Tensor, "3"]:
    if len(depths) < _LEAST:
        return depths.new_full((3,), torch.nan)
    near, far = depths.quantile(depths.new_tensor([0.01, 0.99]))
    inner = depths[(depths >= near) & (depths <= far)]
    return torch.stack([near, far, 1 / (1 / inner).mean()])


def scene_origin(
    cameras: Cameras,
    *,
    points: Float[Tensor, "points 3"] | None = None,
    bounds: Sequence[tuple[float, float]] | None = None,
) -> Float[Tensor, " 3"]:
    """Where cameras look together; where what they see is, if axes are nearly parallel and most see nothing there.

    Such axes meet anywhere: far behind a scene that is filmed from a walk, just before it, or behind the cameras.

    Args:
        cameras: All views ``(views,)`` of the scene.
        points: Of the scene, if some are known.
        bounds: Nearest and farthest depth of what each view shows, if they are known.
    """
    try:
        middle = focus_point(cameras)
    except KaleidosceneError:
        middle = mean_centre(cameras)
    if not _nearly_parallel(cameras):
        return middle
    if bounds is not None:
        seen = SeenDepths.between(bounds)
    elif points is not None:
        seen = SeenDepths.of_points(cameras, points)
    else:
        return middle
    known = seen.middle.isfinite()
    if 2 * int(known.sum()) < len(cameras):
        return middle
    depths = project(cameras.to(torch.float64), middle.double().expand(len(cameras), 1, 3))[1][:, 0]
    if 2 * int(seen.hold(depths).sum()) >= int(known.sum()):
        return middle
    ahead = cameras.centres.double() + seen.middle[:, None] * cameras.directions.double()
    return ahead[known].mean(0).to(middle)


def _nearly_parallel(cameras: Cameras) -> bool:
    directions = cameras.directions.double()
    along = torch.linalg.eigvalsh(directions.mT @ directions / len(directions))[-1]  # mean square of cosines
    return float(1 - along) < math.sin(math.radians(_PARALLEL)) ** 2
