"""Which references give a point of a ray its colour: those that look along the ray count most."""

import math

import pytest
import torch

from kaleidoscene.families.kaleido.looking import look_at
from kaleidoscene.families.kaleido.ray_points import RayPoints
from tests.conftest import CAUSAL, tiny_config
from tests.families.test_reprojection import C, inputs

ANGLE, SHARPNESS = math.radians(7.0), torch.tensor(9.0)
PLACES = torch.tensor([[0.31, 0.42], [0.66, 0.55], [0.9, 0.2]])


def looked(angle: float | None, count: int = 5):
    _, _, sources, targets, _ = inputs(count=count)
    points = RayPoints.of(targets, PLACES, RayPoints.even_steps(6, PLACES.device))
    return look_at(sources, points, SHARPNESS, blending_angle=angle), list(points.seen_from(sources))


def test_colours_are_weighted_by_angle_and_surface():
    """The slow way, point by point."""
    look, views = looked(ANGLE)
    compared = 0
    for at in [(0, 1, 2, 0), (1, 0, 3, 1), (0, 0, 1, 1), (1, 1, 4, 2)]:
        scene, *rest = at
        total, colour = 0.0, torch.zeros(C)
        for view in views:
            if view.seen[at] == 0:
                continue
            off = (1 - view.cosines[at]) / (1 - math.cos(ANGLE))
            weight = (0.05 + 1 / (1 + ((view.along[at] - view.surface[at]) * SHARPNESS) ** 2)) / (1 + off) ** 2
            total, colour = total + weight, colour + weight * view.colours[(scene, slice(None), *rest)]
        if total:
            torch.testing.assert_close(look.colours[(scene, slice(None), *rest)], colour / total, rtol=1e-4, atol=1e-5)
            compared += 1
    assert compared > 2


def test_nothing_but_colours_changes():
    (narrow, _), (plain, _) = looked(ANGLE), looked(None)
    assert (narrow.colours - plain.colours).abs().mean() > 0.02
    assert narrow.evidence[:, C:].equal(plain.evidence[:, C:]) and narrow.deviation.equal(plain.deviation)


def test_the_only_reference_gives_its_colour_wherever_it_stands():
    """From behind, too: its weight is far below all others, and still above the smallest number that counts."""
    look, (view,) = looked(math.radians(1.0), count=1)
    seen = (view.seen > 0)[:, None].expand_as(look.colours)
    assert view.cosines[view.seen > 0].min() < -0.3
    torch.testing.assert_close(look.colours[seen], view.colours[seen], rtol=0, atol=5e-3)


@pytest.mark.parametrize("angle", [0.5, -1.0, 90.0])
def test_bad_angles(angle):
    with pytest.raises(ValueError, match="blending_angle must lie between 1 and 90 degrees"):
        tiny_config(**CAUSAL, reprojection_depths=4, blending_angle=angle)
    with pytest.raises(ValueError, match="belongs to reprojection_depths"):
        tiny_config(**CAUSAL, blending_angle=3.0)
