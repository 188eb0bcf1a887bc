"""The adversarial part of 3DRAE's loss: hinge, adaptive weight, and what both sides are shown (method C.3)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

_LARGEST_WEIGHT, _FLOOR = 1e4, 1e-6
_SHIFT = 1 / 8


def hinge(real: Float[Tensor, "n places"], made: Float[Tensor, "n places"]) -> Float[Tensor, ""]:
    """What the discriminator minimises: real places above 1, others below -1."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def rounded(images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
    """As files of 8 bits have them, so that fractions do not tell what was made."""
    return (images.clamp(0, 1) * 255).round() / 255


def adaptive_weight(
    fitting: Float[Tensor, "n places outputs"],
    playing: Float[Tensor, "n places outputs"],
    hidden: Float[Tensor, "n places width"],
) -> Float[Tensor, ""]:
    """What makes both parts of the loss pull equally at the last matrix (VQGAN): the ratio of its gradients' norms.

    Args:
        fitting: Gradient of the other losses at what the last matrix gives.
        playing: Likewise, of the adversarial one.
        hidden: What the matrix is applied to.
    """
    both = [(torch.einsum("npo,npw->ow", gradient, hidden)).norm() for gradient in (fitting, playing)]
    return (both[0] / (both[1] + _FLOOR)).clamp(0, _LARGEST_WEIGHT)


def varied(images: Float[Tensor, "n 3 h w"], generators: list[torch.Generator]) -> Float[Tensor, "n 3 h w"]:
    """Other brightness, saturation, contrast and place (DiffAugment without cut-outs), with gradients.

    It is told of images in [-1, 1], which these are while it acts: the border that moves in is grey.

    Args:
        images: In [0, 1].
        generators: One for each image.
    """
    draws = torch.stack([torch.rand(5, generator=generator) for generator in generators]).to(images)
    brightness, saturation, contrast = (draws[:, n, None, None, None] for n in range(3))
    x = 2 * images - 1 + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * 2 * saturation + grey
    middle = x.mean((1, 2, 3), keepdim=True)
    x = (x - middle) * (contrast + 0.5) + middle
    h, w = x.shape[-2:]
    down, right = round(h * _SHIFT), round(w * _SHIFT)
    padded = F.pad(x, (right, right, down, down))
    tops, lefts = ((draws[:, n] * (2 * most + 1)).long().tolist() for n, most in ((3, down), (4, right)))
    shifted = zip(padded, tops, lefts, strict=True)
    return 0.5 + 0.5 * torch.stack([one[:, top : top + h, left : left + w] for one, top, left in shifted])
