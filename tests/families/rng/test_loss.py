"""Losses of RnG against values worked out by hand."""

import math

import pytest
import torch

from kaleidoscene.families.rng.loss import RngLoss, camera_loss, image_loss, normal_loss, point_loss


def test_cameras_by_hand():
    truth = torch.zeros(1, 1, 9)
    estimates = torch.zeros(2, 1, 1, 9)
    estimates[0, ..., 0], estimates[1, ..., 3], estimates[1, ..., 8] = 3.0, 2.0, 1.0
    # First: T = 3 / 3 = 1, weight 0.6; second: R = 2 / 4, fov = 1 / 2, weight 1.
    expected = (0.6 * 1 + (0.5 + 0.5 * 0.5)) / 2
    assert float(camera_loss(estimates, truth, discount=0.6, kind="l1")) == pytest.approx(expected)
    huber = (0.6 * (2.5 / 3) + (1.5 / 4 + 0.5 * 0.5 / 2)) / 2
    assert float(camera_loss(estimates, truth, discount=0.6, kind="huber")) == pytest.approx(huber)
    estimates[0, ..., 0] = 1e6  # clamped at 100
    assert float(camera_loss(estimates, truth, discount=0.6, kind="l1")) < 40


def test_images_by_hand():
    colours, truth = torch.zeros(2, 3, 4, 5), torch.zeros(2, 3, 4, 5)
    truth[0, :, 0, 0] = 0.5
    foreground = torch.zeros(2, 4, 5, dtype=torch.bool)
    foreground[0, 0, :2] = True
    everywhere = 0.25 * 3 / colours.numel()
    assert float(image_loss(colours, truth, foreground, starts=False)) == pytest.approx(everywhere)
    # Half of the foreground of one of two views.
    assert float(image_loss(colours, truth, foreground, starts=True)) == pytest.approx(0.125 / 2 + 1e-3 * everywhere)
    assert float(image_loss(colours, truth, foreground & False, starts=True)) == pytest.approx(1e-3 * everywhere)
    extra = image_loss(colours, truth, foreground, starts=False, extra=2.0)
    assert float(extra) == pytest.approx(everywhere + 2 * 0.125 / 2)


def test_points_by_hand():
    points, truth = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    truth[0, 0, 0, 2] = 2.0
    points[0, 1, 2, 0] = 0.3  # in the background
    confidence = torch.full((1, 2, 3), 3.0)
    foreground = torch.zeros(1, 2, 3, dtype=torch.bool)
    foreground[0, 0, 0] = True
    surface = 3 * 2 - 0.2 * math.log(3) + 2
    everywhere = 2.3 / 18
    loss = point_loss(points, confidence, truth, foreground, alpha=0.2, background=False)
    assert float(loss) == pytest.approx(surface + 0.01 * everywhere)
    loss = point_loss(points, confidence, truth, foreground, alpha=0.2, background=True)
    assert float(loss) == pytest.approx(0.5 * surface + 0.5 * everywhere)
    nothing = point_loss(points, confidence, truth, foreground & False, alpha=0.2, background=False)
    assert float(nothing) == pytest.approx(0.01 * everywhere)


def test_the_best_confidence_is_alpha_over_the_error():
    error, alpha = 0.05, 0.2
    points = torch.zeros(1, 3, 4, 3)
    truth = torch.full_like(points, error / math.sqrt(3))
    confidence = torch.full((1, 3, 4), 1.5, requires_grad=True)
    everywhere = torch.ones(1, 3, 4, dtype=torch.bool)
    point_loss(points, confidence, truth, everywhere, alpha=alpha, background=False).backward()
    assert (confidence.grad < 0).all()  # 4 would be best
    confidence = torch.full((1, 3, 4), alpha / error, requires_grad=True)
    point_loss(points, confidence, truth, everywhere, alpha=alpha, background=False).backward()
    torch.testing.assert_close(confidence.grad, torch.zeros(1, 3, 4), rtol=0, atol=1e-7)


def test_the_worst_fiftieth_is_dropped_where_there_are_many():
    points, truth = torch.zeros(1, 30, 50, 3), torch.zeros(1, 30, 50, 3)
    points[0, 0, :30, 0] = 1e4  # 2 % of the pixels
    everywhere = torch.ones(1, 30, 50, dtype=torch.bool)
    ones = torch.ones(1, 30, 50)
    assert float(point_loss(points, ones, truth, everywhere, alpha=0.2, background=False)) < 100
    few = point_loss(points[:, :, :30], ones[:, :, :30], truth[:, :, :30], everywhere[:, :, :30], alpha=0.2,
                     background=False)  # fmt: skip
    assert float(few) > 600


def test_normals_of_a_tilted_plane():
    """A surface tilted by 30 degrees is wrong by 1 - cos 30 at every scale; moving it changes nothing."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(11.0), indexing="ij")
    flat = torch.stack([x, y, torch.zeros_like(x)], dim=-1)[None]
    tilted = torch.stack([x, y, math.tan(math.radians(30)) * x], dim=-1)[None]
    there = torch.ones(1, 9, 11, dtype=torch.bool)
    assert float(normal_loss(tilted, flat, there)) == pytest.approx(1 - math.cos(math.radians(30)), rel=1e-5)
    assert float(normal_loss(flat + 5, flat, there)) == pytest.approx(0, abs=1e-6)


def test_wrong_values_are_refused():
    with pytest.raises(ValueError, match="repeated is a share"):
        RngLoss(repeated=1.5)
