"""What all references together show at points, and what speaks for a surface there."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.families.kaleido.agreement import TINY, Agreement
from kaleidoscene.families.kaleido.ray_points import RayPoints, Sources

EVIDENCE = 9
"""Numbers of evidence beside the colour."""


@dataclass(frozen=True, eq=False)
class Look:
    """What references show at points.

    Attributes:
        colours: Blend of all of them.
        evidence: What speaks for a surface there; the blend first.
        seen: Whether any reference sees the point.
        count: How many do.
        deviation: How far their colours differ.
        matches: Weighted mean and variance of their features.
    """

    colours: Float[Tensor, "batch c targets depths pixels"]
    evidence: Float[Tensor, "batch evidence targets depths pixels"]
    seen: Bool[Tensor, "batch targets depths pixels"]
    count: Float[Tensor, "batch targets depths pixels"]
    deviation: Float[Tensor, "batch targets depths pixels"]
    matches: Float[Tensor, "batch matches targets depths pixels"] | None = None


def look_at(
    sources: Sources,
    points: RayPoints,
    sharpness: Tensor,
    *,
    matches: bool = True,
    blending_angle: float | None = None,
) -> Look:
    """What references show at points; their features as well, where they have some and ``matches`` is set.

    Args:
        sources: The references.
        points: The points.
        sharpness: How soon a point that is away from the surface of a reference is not on it.
        matches: Whether features are asked for.
        blending_angle: Radians off a ray at which a reference counts for a quarter in the colour. Where an error of
            depth shifts what is copied, it does so least from references that look along the ray.
    """
    none = torch.zeros_like(points.square)
    agreement = Agreement.of_none(none, sources.latents.shape[2])
    own, there, free, copied = none + TINY, none, none, torch.zeros_like(agreement.colour)
    mean = square = None
    for view in points.seen_from(sources if matches else replace(sources, features=None)):
        offset = (view.along - view.surface) * sharpness
        on_surface = 1 / (1 + offset.square())
        near = view.weight if blending_angle is None else view.seen * _closeness(view.cosines, blending_angle)
        own_weight = near * (on_surface + 0.05)
        own, copied = own + own_weight, torch.addcmul(copied, own_weight[:, None], view.colours)
        there = torch.addcmul(there, view.weight, on_surface)
        free = torch.addcmul(free, view.weight, torch.sigmoid(-offset))
        if view.features is not None:
            weighted = view.weight[:, None] * view.features
            mean = weighted if mean is None else mean + weighted
            weighted = weighted * view.features
            square = weighted if square is None else square + weighted
        agreement.add(view)
    colours, total = copied / own[:, None], agreement.total
    alike = agreement.numbers(sources.counts())
    speaks = [there / total, free / total, *alike]
    found = None
    if mean is not None and square is not None:
        mean, square = mean / total[:, None], square / total[:, None]
        found = torch.cat([mean, square - mean.square()], 1)
    evidence = torch.cat([colours, *(number[:, None] for number in speaks)], 1)
    return Look(colours, evidence, agreement.count > 0, agreement.count, alike[0], found)


def _closeness(cosines: Tensor, angle: float) -> Tensor:
    """1 along a ray, a quarter ``angle`` radians off, and from there on falling with its fourth power."""
    return (1 + (1 - cosines).clamp_min(0) / (1 - math.cos(angle))).square().reciprocal()
