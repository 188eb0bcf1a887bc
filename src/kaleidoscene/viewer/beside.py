"""Captures laid beside the one that a window is about: turned upright, of one size, in a row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.geometry.upright import rotation_between
from kaleidoscene.viewer.things import scale_of

# From the middle of one capture to that of the next, in distances of cameras from what they show.
_APART = 3.0


@dataclass(frozen=True, eq=False)
class Laid:
    """A capture that has been moved.

    Attributes:
        capture: As it is.
        poses: ``world_from_cam`` of its cameras in the world of the window.
        middle: Where its origin has come to lie there.
    """

    capture: Capture
    poses: Float[Tensor, "views 4 4"]
    middle: Float[Tensor, " 3"]


def lay_beside(first: Capture, others: list[Capture]) -> list[Laid]:
    """``others`` in a row beside ``first``, with its direction of up and at its size.

    Args:
        first: Stays where it is.
        others: Of any world.
    """
    up, origin, scale = first.up().double(), first.origin().double(), scale_of(first)
    sideways = _sideways(up)
    laid = []
    for number, other in enumerate(others, start=1):
        middle = origin + number * _APART * scale * sideways
        turn, factor = rotation_between(other.up().double(), up), scale / scale_of(other)
        poses = other.cameras.world_from_cam.double().clone()
        poses[:, :3, :3] = turn @ poses[:, :3, :3]
        poses[:, :3, 3] = middle + factor * (other.cameras.centres.double() - other.origin().double()) @ turn.T
        laid.append(Laid(other, poses, middle))
    return laid


def _sideways(up: Float[Tensor, " 3"]) -> Float[Tensor, " 3"]:
    """The world's x axis without what it has of up; its y axis where that is nothing."""
    x, y, _ = torch.eye(3, dtype=up.dtype)
    along = x if abs(float(up @ x)) < 0.9 * float(up.norm()) else y
    flat = along - (along @ up) / (up @ up) * up
    return flat / flat.norm()
