"""Where the middle of a scene lies, of which nobody says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point, mean_centre
from kaleidoscene.geometry.rays import project

# Points that are looked at, of clouds that have more, and how many a view must see to tell anything.
_LOOKED_AT, _LEAST = 5000, 10


@dataclass(frozen=True, eq=False)
class SeenDepths:
    """How far away is what views show, in world units along their axes.

    Attributes:
        near: Nearest, farthest and their middle in disparity.
        far: Likewise.
        middle: Likewise.
    """

    near: Float[Tensor, " views"]
    far: Float[Tensor, " views"]
    middle: Float[Tensor, " views"]

    @classmethod
    def between(cls, bounds: Sequence[tuple[float, float]]) -> SeenDepths:
        """Of nearest and farthest depths."""
        near, far = torch.tensor(bounds, dtype=torch.float64).unbind(-1)
        return cls(near, far, 2 / (1 / near + 1 / far))

    @classmethod
    def of_points(cls, cameras: Cameras, points: Float[Tensor, "points 3"]) -> SeenDepths | None:
        """Of points of the scene, without the twentieth at either end; NaN in views that see few, None if all do."""
        cameras = cameras.to(torch.float64)
        some = points.double()[:: max(1, len(points) // _LOOKED_AT)]
        pixels, depth = project(cameras, some.expand(len(cameras), -1, -1))
        h, w = cameras.image_size
        seen = (depth > 0) & ((pixels >= 0) & (pixels < pixels.new_tensor([w, h]))).all(-1)
        rows = [_spread(view[inside]) for view, inside in zip(depth, seen, strict=True)]
        made = cls(*torch.stack(rows).unbind(-1))
        return made if bool(made.near.isfinite().any()) else None

    def hold(self, depths: Float[Tensor, " views"]) -> Bool[Tensor, " views"]:
        """Whether depths lie among them."""
        return (depths >= self.near) & (depths <= self.far)


def _spread(depths: Float[Tensor, " points"]) -> Float[Tensor, "3"]:
    if len(depths) < _LEAST:
        return depths.new_full((3,), torch.nan)
    near, far = depths.quantile(depths.new_tensor([0.05, 0.95]))
    inner = depths[(depths >= near) & (depths <= far)]
    return torch.stack([near, far, 1 / (1 / inner).mean()])


def scene_origin(cameras: Cameras, seen: SeenDepths | None) -> Float[Tensor, " 3"]:
    """Where cameras look together, if most of them see anything at that depth, else where what they see lies.

    Axes that are nearly parallel meet anywhere: far behind a scene that is filmed from a walk, or just before it.

    Args:
        cameras: All views ``(views,)`` of the scene.
        seen: By them; None where nothing is known.
    """
    try:
        middle = focus_point(cameras)
    except KaleidosceneError:
        middle = mean_centre(cameras)
        if seen is None:
            return middle
    if seen is None:
        return middle
    known = seen.near.isfinite()
    depths = project(cameras.to(torch.float64), middle.double().expand(len(cameras), 1, 3))[1][:, 0]
    if 2 * int((seen.hold(depths) & known).sum()) >= int(known.sum()):
        return middle
    ahead = cameras.centres.double() + seen.middle[:, None] * cameras.directions.double()
    return ahead[known].mean(0).to(middle)
