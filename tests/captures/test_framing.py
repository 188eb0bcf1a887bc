"""Frames of several sizes: much larger ones are reduced, cameras follow, and a point is seen where it was."""

import numpy as np
import pytest
import torch
from PIL import Image

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.lenses import _sizes
from kaleidoscene.captures.frames import Frame
from kaleidoscene.captures.framing import Framing, common_size, framing
from kaleidoscene.evaluation.against_truth import compare_cameras
from tests.conftest import ring


@pytest.mark.parametrize(
    ("sizes", "common"),
    [
        (((12, 20), (10, 20)), (10, 20)),
        (((480, 640), (478, 630)), (478, 630)),  # of an undistorted film: nothing is resampled
        (((480, 640), (640, 480)), (480, 480)),
        (((3000, 4000), (600, 800)), (600, 800)),
        (((4000, 3000), (600, 800)), (600, 600)),
        (((300, 400), (600, 900), (1200, 1600)), (267, 400)),
    ],
)
def test_sizes(sizes, common):
    assert common_size(sizes) == common == common_size(sizes[::-1])
    for size in sizes:
        seen = framing(size, sizes)
        assert seen.size == common and seen.seen(torch.zeros(2, *size)).shape == (2, *common)
        corners = torch.tensor([[0.0, 0, 1], [size[1], size[0], 1]], dtype=torch.float64) @ seen.matrix.T
        assert (corners[0, :2] <= 0).all() and (corners[1, :2] >= torch.tensor(common).flip(0)).all()


def test_pixels_are_where_the_matrix_says():
    """A ramp along either axis, reduced and cut, has at every pixel the value of its place."""
    seen = Framing((60, 80), (30, 40), (20, 36))
    rows, columns = torch.meshgrid(torch.arange(60) + 0.5, torch.arange(80) + 0.5, indexing="ij")
    ramps = seen.seen(torch.stack([columns, rows]))
    places = torch.stack(torch.meshgrid(torch.arange(20) + 0.5, torch.arange(36) + 0.5, indexing="ij")[::-1])
    ones = torch.cat([places, torch.ones(1, 20, 36)]).double()
    expected = torch.einsum("ij,jhw->ihw", torch.linalg.inv(seen.matrix), ones)[:2].float()
    torch.testing.assert_close(ramps, expected, rtol=0, atol=1e-4)
    near = seen.seen(torch.stack([columns, rows]), mode="nearest")
    assert set(near.flatten().tolist()) <= set(torch.cat([rows, columns]).flatten().tolist())


def capture_of(folder, sizes) -> Capture:
    """One camera each of a ring, whose pictures show their own rays' directions; the second one has another size."""
    frames = []
    for number, (h, w) in enumerate(sizes):
        camera = ring(len(sizes), (h, w))[number]
        rows, columns = np.meshgrid(np.arange(h) + 0.5, np.arange(w) + 0.5, indexing="ij")
        x = (columns - float(camera.intrinsics[0, 2])) / float(camera.intrinsics[0, 0])
        y = (rows - float(camera.intrinsics[1, 2])) / float(camera.intrinsics[1, 1])
        ways = np.stack([x, y, np.zeros_like(x)], axis=-1)
        Image.fromarray(np.clip(255 * (0.5 + ways), 0, 255).astype(np.uint8)).save(folder / f"{number}.png")
        mask = folder / f"{number}-mask.png"
        Image.fromarray(np.full((h, w), 255, np.uint8)).save(mask)
        pose, matrix = camera.world_from_cam.double(), camera.intrinsics.double()
        frames.append(Frame(folder / f"{number}.png", (h, w), pose, matrix, mask=mask))
    return Capture("rays", "none", folder, tuple(frames), "object")


def test_cameras_see_what_images_show(tmp_path):
    capture = capture_of(tmp_path, [(48, 72), (96, 144), (120, 90)])
    assert capture.common_size == (48, 54)
    images, cameras = capture.images(), capture.cameras
    h, w = capture.common_size
    rows, columns = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
    for image, matrix in zip(images, cameras.intrinsics, strict=True):
        x, y = (columns - matrix[0, 2]) / matrix[0, 0], (rows - matrix[1, 2]) / matrix[1, 1]
        ways = (0.5 + torch.stack([x, y])).clamp(0, 1)
        assert (image[:2] - ways)[:, 1:-1, 1:-1].abs().max() < 0.02
    assert capture.masks().shape == (3, 1, 48, 54) and bool((capture.masks() == 1).all())


def test_lenses_are_compared_whatever_else_is_in_a_capture(tmp_path):
    """Beside a small picture large ones are reduced; cameras that are the same have no error."""
    whole = capture_of(tmp_path, [(48, 72), (96, 144), (144, 96), (120, 160)])
    large = whole.select([1, 2, 3])
    numbers = compare_cameras(large, whole)
    assert numbers["focal length over image height, mean relative error"] < 1e-6 and numbers["images in both"] == 3


def test_only_frames_that_lose_much_are_found_fault_with(tmp_path):
    """Those of another resolution lose nothing; one that is cropped to a strip of another does."""
    (tmp_path / "like").mkdir()
    assert not list(_sizes(capture_of(tmp_path / "like", [(48, 72), (192, 288), (96, 144)])))
    (finding,) = _sizes(capture_of(tmp_path, [(48, 72), (12, 72), (192, 288)]))
    assert "are cropped to 12x72, which leaves 25 % of this one" in finding.value
