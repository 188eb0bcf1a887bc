"""Pictures moved along a field of motion."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from kaleidoscene.nn.precision import no_autocast


def warp(image: Float[Tensor, "batch c h w"], flow: Float[Tensor, "batch 2 h w"]) -> Float[Tensor, "batch c h w"]:
    """What lies at every pixel plus its motion, bilinearly; beyond the border is what lies on it.

    Args:
        image: Picture or features.
        flow: Columns and rows to look to the right and below, in pixels of ``image``.
    """
    with no_autocast(image):  # places in bf16 would be off by pixels
        h, w = image.shape[-2:]
        rows = torch.arange(h, device=flow.device, dtype=torch.float32)[:, None].expand(h, w)
        columns = torch.arange(w, device=flow.device, dtype=torch.float32).expand(h, w)
        places = torch.stack([columns, rows]) + flow.float()
        sides = torch.tensor([w, h], device=flow.device, dtype=torch.float32)[:, None, None]
        grid = ((2 * places + 1) / sides - 1).movedim(1, -1)
        return F.grid_sample(image.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)


def enlarge_flow(flow: Float[Tensor, "batch 2 h w"]) -> Float[Tensor, "batch 2 twice_h twice_w"]:
    """Motion at twice the size, in pixels of that."""
    return 2 * F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)


def pyramid(image: Float[Tensor, "batch c h w"], levels: int) -> list[Tensor]:
    """An image at so many sizes, each the mean of 2x2 pixels of the one before."""
    sizes = [image]
    for _ in range(levels - 1):
        sizes.append(F.avg_pool2d(sizes[-1], 2))
    return sizes
