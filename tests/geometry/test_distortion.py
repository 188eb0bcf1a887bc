"""Lens distortion against OpenCV's formulas worked out by hand, and the pinhole that fits inside."""

import math

import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.distortion import Distortion, from_pixels, pinhole_inside, to_pixels
from kaleidoscene.images.undistortion import undistort_image

K = torch.tensor([[60.0, 0, 33], [0, 64, 22], [0, 0, 1]], dtype=torch.float64)
SIZE = (48, 64)


def test_opencv_at_one_point_by_hand():
    k1, k2, p1, p2, k3, k4, k5, k6 = 0.1, -0.05, 0.01, -0.02, 0.03, 0.2, 0.04, -0.06
    x, y = 0.3, -0.4
    r2 = 0.25
    radial = (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3) / (1 + k4 * r2 + k5 * r2**2 + k6 * r2**3)
    expected = [
        x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
        y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
    ]
    got = Distortion.opencv(k1, k2, p1, p2, k3, k4, k5, k6).apply(torch.tensor([x, y], dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_fisheye_at_one_point_by_hand_and_in_the_middle():
    lens = Distortion("fisheye", (0.1, -0.02))
    point = torch.tensor([0.6, 0.8], dtype=torch.float64)  # 45 degrees
    theta = math.pi / 4
    bent = theta * (1 + 0.1 * theta**2 - 0.02 * theta**4)
    torch.testing.assert_close(lens.apply(point), bent * point)
    assert lens.apply(torch.zeros(2, dtype=torch.float64)).tolist() == [0, 0]


def test_zeros_are_no_distortion_and_too_many_coefficients_are_refused():
    assert Distortion.opencv(0.0, 0.0).is_none and not Distortion.opencv(0.0, 0.1, 0.0).is_none
    assert Distortion.opencv(0.0, 0.1, 0.0).padded() == (0, 0.1, 0, 0, 0, 0, 0, 0)
    with pytest.raises(KaleidosceneError, match="fisheye lens has 4 coefficients, got 5"):
        Distortion("fisheye", (0.1,) * 5)
    with pytest.raises(KaleidosceneError, match="not finite"):
        Distortion("opencv", (float("nan"),))


@pytest.mark.parametrize(
    "lens",
    [Distortion.opencv(0.1), Distortion.opencv(-0.2, 0.05), Distortion.opencv(0.05, 0.0, 0.01, -0.01),
     Distortion("fisheye", (0.05, -0.01)), Distortion("fisheye", (-0.02,))],
)  # fmt: skip
def test_the_pinhole_sees_all_it_can_and_nothing_beyond(lens):
    pinhole = pinhole_inside(K, lens, SIZE)
    h, w = SIZE
    y, x = torch.meshgrid(torch.linspace(0, h, 97), torch.linspace(0, w, 129), indexing="ij")
    rays = from_pixels(torch.stack([x, y], -1).double(), pinhole)
    landed = to_pixels(lens.apply(rays), K)
    assert (landed > -0.51).all() and (landed < torch.tensor([w, h]) + 0.51).all()
    # One percent wider would look over the border.
    wider = pinhole.clone()
    wider[:2, :2] *= 0.985
    over = to_pixels(lens.apply(from_pixels(torch.stack([x, y], -1).double(), wider)), K)
    assert (over < -0.5).any() or (over > torch.tensor([w, h]) + 0.5).any()


def test_a_lens_that_folds_the_image_is_refused():
    with pytest.raises(KaleidosceneError, match="folds the image over itself"):
        pinhole_inside(K, Distortion.opencv(-900.0), SIZE)


def test_undistorting_takes_a_distorted_picture_back():
    """A smooth pattern is drawn as the lens sees it; undistorted it is the pattern as the pinhole sees it."""
    lens = Distortion.opencv(0.15, -0.03, 0.004, -0.003)
    pinhole = pinhole_inside(K, lens, SIZE)

    def pattern(rays):
        return torch.stack([torch.sin(5 * rays[..., 0]), torch.cos(4 * rays[..., 1]), rays.sum(-1)]).float()

    h, w = SIZE
    y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], -1).double()
    seen = from_pixels(pixels, K)
    rays = seen.clone()
    for _ in range(50):  # invert the lens by fixed-point iteration
        rays = rays - (lens.apply(rays) - seen)
    undistorted = undistort_image(pattern(rays), K, lens, pinhole)
    torch.testing.assert_close(undistorted, pattern(from_pixels(pixels, pinhole)), rtol=0, atol=0.02)
    assert (pattern(rays) - pattern(from_pixels(pixels, pinhole))).abs().max() > 0.05


def test_without_distortion_nothing_is_resampled():
    image = torch.rand(3, *SIZE)
    assert undistort_image(image, K, Distortion(), K) is image
