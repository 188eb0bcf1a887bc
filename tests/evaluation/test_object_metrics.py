"""Metrics of objects in front of white, by hand."""

import math

import pytest
import torch

from kaleidoscene.evaluation.metrics.objects import object_psnr, sharpness, silhouette, silhouette_iou


def box(top, left, bottom, right, colour=(0.2, 0.9, 1.0)):
    image = torch.ones(3, 9, 14)
    image[:, top:bottom, left:right] = torch.tensor(colour)[:, None, None]
    return image


def test_silhouettes_are_what_is_not_white():
    assert silhouette(box(2, 3, 6, 9)).sum() == 4 * 6
    assert silhouette(box(2, 3, 6, 9, (0.99, 0.98, 1.0))).sum() == 0


def test_intersection_over_union():
    a, b = box(2, 3, 6, 9), box(3, 5, 7, 11)  # 24 pixels each, 3 x 4 in common
    values = silhouette_iou(torch.stack([a, a, box(0, 0, 0, 0)]), torch.stack([b, a, box(0, 0, 0, 0)]))
    torch.testing.assert_close(values, torch.tensor([12 / 36, 1.0, 1.0]))
    assert silhouette_iou(a, box(0, 0, 0, 0)) == 0


def test_errors_outside_of_the_object_do_not_count():
    truth = box(2, 3, 6, 9)
    wrong = truth.clone()
    wrong[:, 0, 0] = 0.0
    assert object_psnr(wrong, truth) == 100
    wrong[0, 2:6, 3:9] += 0.1
    assert object_psnr(wrong, truth).item() == pytest.approx(-10 * math.log10(0.01 / 3), abs=1e-3)
    assert object_psnr(wrong, torch.ones(3, 9, 14)) == 100  # there is no object


def test_a_blurred_image_is_less_sharp_and_a_noisy_one_more():
    truth = torch.rand(2, 3, 20, 27, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.25
    torch.testing.assert_close(sharpness(truth, truth), torch.ones(2))
    half = 0.5 + (truth - 0.5) / 2
    torch.testing.assert_close(sharpness(half, truth), torch.full((2,), 0.5))
    blurred = torch.nn.functional.avg_pool2d(truth, 3, 1, 1)
    assert (sharpness(blurred, truth) < 0.6).all()
    flat = torch.ones(3, 9, 14)
    assert sharpness(flat, flat) == 1 and sharpness(flat, box(2, 3, 6, 9)) == 0
    # A step of 0.3 in one channel, on one column of the 13 that have a neighbour.
    step = torch.full((3, 9, 14), 0.5)
    step[1, :, 7:] = 0.8
    twice = torch.full((3, 9, 14), 0.2)
    twice[1, :, 7:] = 0.8
    assert sharpness(step, twice).item() == pytest.approx(0.5)
