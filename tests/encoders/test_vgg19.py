"""The perceptual distance: the file of the authors, by hand, and what it is a distance of."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError

WIDTHS = (4, 5, 6, 7, 8)
COUNTS = (2, 2, 4, 4, 4)


def write_mat(path, widths=WIDTHS, seed=0):
    """A file as MatConvNet's: a cell of layers, each a struct of type, name and weights."""
    draw, layers, inside = np.random.default_rng(seed), [], 3
    for block, (count, width) in enumerate(zip(COUNTS, widths, strict=True), start=1):
        for number in range(1, count + 1):
            weights = np.empty((1, 2), dtype=object)
            weights[0, 0] = draw.normal(size=(3, 3, inside, width)).astype(np.float32) / (3 * inside**0.5)
            weights[0, 1] = draw.normal(size=(1, width)).astype(np.float32)
            layers.append({"type": "conv", "name": f"conv{block}_{number}", "weights": weights})
            layers.append({"type": "relu", "name": f"relu{block}_{number}"})
            inside = width
        layers.append({"type": "pool", "name": f"pool{block}"})
    cell = np.empty((1, len(layers)), dtype=object)
    for number, layer in enumerate(layers):
        cell[0, number] = layer
    savemat(path, {"layers": cell})
    return [layer["weights"] for layer in layers if layer["type"] == "conv"]


def test_the_distance_by_hand(tmp_path):
    weights = write_mat(tmp_path / "vgg.mat")
    distance = PerceptualDistance.read(tmp_path / "vgg.mat")
    a, b = torch.rand(2, 2, 3, 36, 52)

    def features(x):
        x, place, found = 255 * x - torch.tensor([123.68, 116.779, 103.939])[:, None, None], 0, []
        for block, count in enumerate(COUNTS):
            if block:
                x = torch.nn.functional.avg_pool2d(x, 2)
            for number in range(count):
                kernel, bias = (torch.from_numpy(w) for w in weights[place][0])
                x = torch.relu(torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias[0], padding=1))
                place += 1
                if number == 1:
                    found.append(x)
        return found

    shares = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
    pairs = zip(shares, features(a), features(b), strict=True)
    expected = (255 * (a - b)).abs().mean() + sum(share * (x - y).abs().mean() for share, x, y in pairs)
    torch.testing.assert_close(distance(a, b), expected / 255)
    assert distance(a, a) == 0 and distance(a, b) == distance(b, a)


def test_gradients_reach_images_and_no_weight(tmp_path):
    write_mat(tmp_path / "vgg.mat")
    distance = PerceptualDistance.read(tmp_path / "vgg.mat")
    image = torch.rand(1, 3, 32, 48, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        value = distance(image, torch.rand(1, 3, 32, 48))
    value.backward()
    assert value.dtype == torch.float32 and image.grad is not None and (image.grad != 0).all(dim=(0, 1)).any()
    assert not any(p.requires_grad for p in distance.parameters())


def test_files_that_are_not_it_are_refused(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"no mat file")
    savemat(tmp_path / "b.mat", {"layers": np.zeros((1, 1))})
    for name in ("a.mat", "b.mat", "none.mat"):
        with pytest.raises(KaleidosceneError, match=f"{name}: not the weights of VGG19"):
            PerceptualDistance.read(tmp_path / name)
