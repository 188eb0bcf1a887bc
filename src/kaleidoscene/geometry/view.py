"""Where a camera path starts: a camera, the point it moves about, and what is up."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import focus_point

Z_UP = (0.0, 0.0, 1.0)
# Of cameras that stand in one place, and how far beside each other they stand then, in distances to the centre.
_NO_DISTANCE, _LEAST_REACH = 1e-9, 1e-4


@dataclass(frozen=True, eq=False)
class View:
    """Where a path starts: a single camera, the point it moves about and the direction that counts as up.

    Attributes:
        camera: Without batch axes.
        centre: In world units.
        up: In world axes.
        reach: How far beside each other cameras of the capture stand: from their middle, across the axis of this one,
            the farthest tenth left out. None if there is one alone, or all stand in one line of sight.
    """

    camera: Cameras
    centre: Float[Tensor, " 3"]
    up: Float[Tensor, " 3"]
    reach: float | None = None

    @classmethod
    def of(
        cls,
        cameras: Cameras,
        *,
        centre: Tensor | None = None,
        up: Tensor | None = None,
        start: int = 0,
        standpoints: Tensor | None = None,
    ) -> View:
        """The view of camera ``start``.

        Args:
            cameras: Cameras ``(views,)`` of a capture.
            centre: Point to move about; by default the point nearest to all optical axes, for a single camera the
                point of its axis nearest to the world's origin.
            up: Up in world axes; by default the mean of the cameras' own up directions, laid on a world axis that is
                within 30 degrees of it.
            start: Which camera.
            standpoints: Where all cameras of the capture stand ``(views, 3)``; by default where these do.

        Raises:
            KaleidosceneError: There is no such camera, or no centre can be told.
        """
        if not -len(cameras) <= start < len(cameras):
            raise KaleidosceneError(f"Camera {start} does not exist: there are {len(cameras)}.")
        if centre is None:
            centre = focus_point(cameras) if len(cameras) > 1 else _nearest_on_axis(cameras[0])
        stand = cameras.centres if standpoints is None else standpoints
        offsets, axis = stand - stand.mean(0), cameras[start].directions
        beside = (offsets - (offsets @ axis)[:, None] * axis).norm(dim=-1)
        made, reach = cls(cameras[start], centre, mean_up(cameras) if up is None else up), float(beside.quantile(0.9))
        return replace(made, reach=reach) if reach > _LEAST_REACH * made.distance else made

    @property
    def distance(self) -> float:
        """From the camera to the centre."""
        return float((self.camera.centres - self.centre).norm())

    def within_reach(self, radius: float) -> float:
        """A radius in distances to the centre, or that to which the cameras of the capture reach, if it is less."""
        return radius if self.reach is None or not self.distance else min(radius, self.reach / self.distance)


@runtime_checkable
class Posed(Protocol):
    """Anything with cameras, a point that they are about and an up direction, for example a capture."""

    @property
    def cameras(self) -> Cameras:
        """Cameras ``(views,)``."""
        ...

    def origin(self) -> Tensor:
        """The point that counts as the middle, world units."""
        ...

    def up(self) -> Tensor:
        """The direction that counts as up, world axes."""
        ...

    def standpoints(self) -> Tensor:
        """Where all cameras stand of what these are a selection of, ``(views, 3)``, world units."""
        ...


Start = View | Cameras | Posed
"""Where a path may start: a view, or cameras or a capture, of which the first view is taken."""


def as_view(start: Start) -> View:
    """The view that a path starts from."""
    if isinstance(start, View):
        return start
    if isinstance(start, Cameras):
        return View.of(start)
    like = start.cameras.centres
    centre, up, standpoints = start.origin().to(like), start.up().to(like), start.standpoints().to(like)
    view = View.of(start.cameras, centre=centre, up=up, standpoints=standpoints)
    if view.distance < _NO_DISTANCE:
        raise KaleidosceneError(
            "The cameras stand at the point that they are about, so that there is nothing to go around: give a path of "
            "cameras."
        )
    return view


def mean_up(cameras: Cameras) -> Float[Tensor, " 3"]:
    """Mean of the cameras' up directions, snapped to a world axis within 30 degrees."""
    mean = -cameras.world_from_cam[..., :3, 1].reshape(-1, 3).mean(0)
    if mean.norm() < 1e-6:
        return mean.new_tensor(Z_UP)
    mean = mean / mean.norm()
    axis = int(mean.abs().argmax())
    if mean[axis].abs() > math.cos(math.radians(30)):
        snapped = torch.zeros_like(mean)
        snapped[axis] = torch.sign(mean[axis])
        return snapped
    return mean


def _nearest_on_axis(camera: Cameras) -> Float[Tensor, " 3"]:
    along = -(camera.centres @ camera.directions)
    if along <= 0:
        raise KaleidosceneError("A single camera that looks away from the world's origin has no centre; give one.")
    return camera.centres + along * camera.directions
