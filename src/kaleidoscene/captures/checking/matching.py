"""Points that two pictures share: corners, described by the pixels around them, that are each other's best match.

Small and without weights: good for pictures taken near each other, which is what a check of conventions needs.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import invert

_CORNERS = 400
_PATCH = 13
_BEST_OVER_SECOND = 0.8


def corners(image: Float[Tensor, "3 h w"]) -> tuple[Float[Tensor, "n 2"], Float[Tensor, "n d"]]:
    """Places (x, y) in pixels and unit descriptors of up to 400 corners (Shi and Tomasi's score)."""
    grey = image.mean(0)[None, None]
    smooth = _blur(grey)
    gy = smooth[..., 2:, 1:-1] - smooth[..., :-2, 1:-1]
    gx = smooth[..., 1:-1, 2:] - smooth[..., 1:-1, :-2]
    xx, yy, xy = (torch.nn.functional.pad(_blur(p), (1, 1, 1, 1)) for p in (gx * gx, gy * gy, gx * gy))
    smaller = 0.5 * (xx + yy) - (0.25 * (xx - yy).square() + xy.square()).sqrt()
    peak = smaller == torch.nn.functional.max_pool2d(smaller, 5, 1, 2)
    border = _PATCH // 2 + 2
    inner = torch.zeros_like(peak)
    inner[..., border:-border, border:-border] = True
    score = torch.where(peak & inner, smaller, 0.0)[0, 0]
    best = score.flatten().topk(min(_CORNERS, score.numel()))
    places = best.indices[best.values > 1e-5]
    y, x = places // score.shape[1], places % score.shape[1]
    offsets = torch.arange(_PATCH) - _PATCH // 2
    patches = smooth[0, 0][(y[:, None] + offsets)[:, :, None], (x[:, None] + offsets)[:, None, :]].flatten(1)
    patches = patches - patches.mean(1, keepdim=True)
    return torch.stack([x, y], -1).to(image.dtype) + 0.5, torch.nn.functional.normalize(patches, dim=-1)


def _blur(x: Float[Tensor, "1 1 h w"]) -> Float[Tensor, "1 1 h w"]:
    kernel = x.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="replicate")
    columns = torch.nn.functional.conv2d(padded, kernel.view(1, 1, 5, 1))
    return torch.nn.functional.conv2d(columns, kernel.view(1, 1, 1, 5))


def match(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]
) -> tuple[Float[Tensor, "m 2"], Float[Tensor, "m 2"]]:
    """Places in both pictures of corners that are each other's best match and clearly better than the second best."""
    if min(len(first[0]), len(second[0])) < 2:
        return first[0][:0], second[0][:0]
    likeness = first[1] @ second[1].mT
    top = likeness.topk(2, dim=1)
    mutual = likeness.argmax(0)[top.indices[:, 0]] == torch.arange(len(likeness))
    distance = (2 - 2 * top.values).clamp_min(0).sqrt()
    good = mutual & (distance[:, 0] < _BEST_OVER_SECOND * distance[:, 1]) & (top.values[:, 0] > 0.7)
    return first[0][good], second[0][top.indices[good, 0]]


def agreement(
    cameras: Cameras, first: Float[Tensor, "m 2"], second: Float[Tensor, "m 2"], tolerance: float
) -> Bool[Tensor, " m"]:
    """Which matches of two cameras ``(2,)`` can be one point in front of both: epipolar distance and sign of depth.

    Args:
        cameras: The two.
        first: Pixels in the first.
        second: Pixels in the second.
        tolerance: Of the distance from the epipolar line (Sampson's), pixels.
    """
    inverse = torch.linalg.inv(cameras.intrinsics)
    rays = [
        torch.nn.functional.pad(pixels.to(inverse), (0, 1), value=1.0) @ matrix.mT
        for pixels, matrix in zip((first, second), inverse, strict=True)
    ]
    relative = invert(cameras.world_from_cam[1]) @ cameras.world_from_cam[0]
    rotation, t = relative[:3, :3], relative[:3, 3]
    if float(t.norm()) <= 1e-5 * float(cameras.centres.norm(dim=-1).max()):
        # A camera that only turned has no epipolar lines: every point has its place.
        image = rays[0] @ rotation.mT @ cameras.intrinsics[1].mT
        place = image[:, :2] / image[:, 2:]
        return (image[:, 2] > 0) & ((place - second.to(place)).norm(dim=-1) < tolerance)
    skew = torch.zeros(3, 3, dtype=t.dtype)
    skew[0, 1], skew[0, 2], skew[1, 0] = -t[2], t[1], t[2]
    skew[1, 2], skew[2, 0], skew[2, 1] = -t[0], -t[1], t[0]
    essential = skew @ rotation
    fundamental = inverse[1].mT @ essential @ inverse[0]
    ones = (torch.nn.functional.pad(p.to(inverse), (0, 1), value=1.0) for p in (first, second))
    a, b = ones
    line_b, line_a = a @ fundamental.mT, b @ fundamental
    value = (b * line_b).sum(-1)
    spread = line_b[:, :2].square().sum(-1) + line_a[:, :2].square().sum(-1)
    near = value.square() / spread.clamp_min(1e-18) < tolerance**2
    # Depths d and e with d R ray_a + t = e ray_b, in the least-squares sense; both must be positive.
    turned = rays[0] @ rotation.mT
    aa, bb, ab = turned.square().sum(-1), rays[1].square().sum(-1), (turned * rays[1]).sum(-1)
    at, bt = turned @ t, rays[1] @ t
    determinant = (aa * bb - ab * ab).clamp_min(1e-18)
    return near & ((ab * bt - bb * at) / determinant > 0) & ((aa * bt - ab * at) / determinant > 0)
