"""Metrics of objects in front of white: what PSNR of whole images, most of them white, does not tell."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# A pixel shows an object if its darkest channel is below this; the edge of an object, half of it white, mostly is.
_WHITE = 0.97


def silhouette(image: Float[Tensor, "*batch 3 h w"]) -> Bool[Tensor, "*batch h w"]:
    """Pixels that are not white."""
    return image.clamp(0, 1).amin(-3) < _WHITE


def silhouette_iou(
    image: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"]
) -> Float[Tensor, "*batch"]:
    """Intersection of the silhouettes over their union; 1 where neither image shows anything."""
    a, b = silhouette(image), silhouette(truth)
    union = (a | b).sum((-2, -1))
    return torch.where(union > 0, (a & b).sum((-2, -1)) / union.clamp_min(1), 1.0)


def object_psnr(image: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch"]:
    """PSNR in dB over the pixels of the true silhouette; 100 where these are equal, or where there are none."""
    inside = silhouette(truth)
    error = (image.clamp(0, 1) - truth.clamp(0, 1)).square().mean(-3)
    mean = (error * inside).sum((-2, -1)) / inside.sum((-2, -1)).clamp_min(1)
    return -10 * torch.log10(mean.clamp_min(1e-10))


def sharpness(image: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch"]:
    """Mean length of the gradient inside the true silhouette over that of the truth: below 1 is blurred.

    Where the truth shows nothing all pixels count; 1 where both are flat.
    """
    inside = silhouette(truth)[..., :-1, :-1]
    inside = inside | ~inside.any(-1, keepdim=True).any(-2, keepdim=True)
    of_image, of_truth = ((_gradient(x.clamp(0, 1)) * inside).sum((-2, -1)) for x in (image, truth))
    return torch.where((of_image == 0) & (of_truth == 0), 1.0, of_image / of_truth.clamp_min(1e-6))


def _gradient(image: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch rows cols"]:
    """Length of forward differences, mean over channels."""
    across = image[..., :-1, 1:] - image[..., :-1, :-1]
    down = image[..., 1:, :-1] - image[..., :-1, :-1]
    return (across.square() + down.square()).sqrt().mean(-3)
