"""Losses of RnG: colours, points with a confidence, cameras (section 3.4, eq. 7 to 10; method B.7).

Means are taken view by view and then over views, where the release takes them over the pixels of a batch: so the loss
does not depend on how a batch is cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.choices import check_choices

_KEPT, _FEW = 0.98, 1000
_FARTHEST = 100.0


@dataclass(frozen=True, kw_only=True)
class RngLoss:
    """The training objective; weights are those of the authors' release."""

    perceptual: float = 0.0
    """Of a distance of VGG19's features; the paper has 0.5 and needs --perceptual-weights."""
    points: float = 0.2
    cameras: float = 1.0
    confidence: float = 0.2
    """Of the logarithm of the confidence (alpha)."""
    camera_error: Literal["l1", "huber"] = "l1"
    """The release has ``l1``, the paper ``huber``."""
    discount: float = 0.6
    """An estimate of the camera head counts so much less than the one after it."""
    foreground_steps: int = 0
    """Steps at the start in which the background counts next to nothing: a quarter of the training."""
    foreground: float = 0.0
    """After these, weight of the mean error of the foreground's colours beside that of all pixels: ours, for views
    whose background is so large that a small network paints nothing else (0 in the paper)."""
    repeated: float = 0.16
    """Share of the targets that are one of the sources (method B.12, 5)."""

    def __post_init__(self) -> None:
        check_choices(self)
        if not 0 <= self.repeated <= 1:
            raise ValueError(f"repeated is a share of the targets, got {self.repeated}.")


def image_loss(
    colours: Float[Tensor, "n 3 h w"],
    truth: Float[Tensor, "n 3 h w"],
    foreground: Bool[Tensor, "n h w"],
    *,
    starts: bool,
    extra: float = 0.0,
) -> Float[Tensor, ""]:
    """Mean square error of all pixels; at the start that of the foreground, and a thousandth of that of all.

    Args:
        colours: Of the network.
        truth: Real ones.
        foreground: Where there is a surface.
        starts: Whether the background counts next to nothing yet.
        extra: Weight of the foreground's own mean error afterwards.
    """
    error = (colours - truth).square()
    if starts:
        return _mean(error.mean(1), foreground) + 1e-3 * error.mean()
    return error.mean() + (extra * _mean(error.mean(1), foreground) if extra else 0.0)


def point_loss(
    points: Float[Tensor, "n h w 3"],
    confidence: Float[Tensor, "n h w"],
    truth: Float[Tensor, "n h w 3"],
    foreground: Bool[Tensor, "n h w"],
    *,
    alpha: float,
    background: bool,
) -> Float[Tensor, ""]:
    """Points of the foreground with and without confidence, their normals, and all points.

    Args:
        points: Of the network.
        confidence: Theirs.
        truth: True points, zero in the background.
        foreground: Where there is a surface.
        alpha: Weight of the logarithm of the confidence.
        background: Whether points of the background count as much (they are pulled to the origin).
    """
    error = (points - truth).norm(dim=-1)
    weighted = confidence * error - alpha * confidence.log()
    surface = _without_worst(weighted, foreground) + _without_worst(error, foreground)
    surface = surface + normal_loss(points, truth, foreground)
    everywhere = (points - truth).abs().mean()
    return 0.5 * surface + 0.5 * everywhere if background else surface + 0.01 * everywhere


def normal_loss(
    points: Float[Tensor, "n h w 3"], truth: Float[Tensor, "n h w 3"], foreground: Bool[Tensor, "n h w"]
) -> Float[Tensor, ""]:
    """Mean of 1 - cos between the normals of both surfaces, at one, two and four pixels' distance."""
    total = points.new_zeros(())
    for step in (1, 2, 4):
        coarse = (slice(None), slice(None, None, step), slice(None, None, step))
        ours, theirs, there = points[coarse], truth[coarse], foreground[coarse]
        if min(ours.shape[1:3]) < 2:
            continue
        whole = there[:, :-1, :-1] & there[:, 1:, :-1] & there[:, :-1, 1:]
        cosine = (_normals(ours) * _normals(theirs)).sum(-1)
        total = total + _mean(1 - cosine, whole) / 3
    return total


def camera_loss(
    estimates: Float[Tensor, "iterations batch views 9"],
    truth: Float[Tensor, "batch views 9"],
    *,
    discount: float,
    kind: Literal["l1", "huber"],
) -> Float[Tensor, ""]:
    """Error of translation, quaternion and half of that of the angles of view, over all estimates of the head."""
    difference = estimates - truth
    error = difference.abs()
    if kind == "huber":
        error = torch.where(error < 1, 0.5 * error.square(), error - 0.5)
    translation = error[..., :3].clamp_max(_FARTHEST).mean((1, 2, 3))
    rotation, lens = error[..., 3:7].mean((1, 2, 3)), error[..., 7:].mean((1, 2, 3))
    goes = len(estimates)
    weights = discount ** torch.arange(goes - 1, -1, -1, dtype=error.dtype, device=error.device)
    return (weights * (translation + rotation + 0.5 * lens)).mean()


def _normals(points: Float[Tensor, "n h w 3"]) -> Float[Tensor, "n rows columns 3"]:
    """Unit normals of the surface at each pixel that has neighbours below and to the right."""
    down, right = points[:, 1:, :-1] - points[:, :-1, :-1], points[:, :-1, 1:] - points[:, :-1, :-1]
    return torch.nn.functional.normalize(torch.linalg.cross(down, right), dim=-1)


def _mean(x: Float[Tensor, "n rows columns"], where: Bool[Tensor, "n rows columns"]) -> Float[Tensor, ""]:
    """Over some places of every view, of which there may be none, then over views."""
    x, where = x.flatten(1), where.flatten(1)
    return ((x * where).sum(1) / where.sum(1).clamp_min(1)).mean()


def _without_worst(errors: Float[Tensor, "n h w"], where: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    """As :func:`_mean`, without the largest 2 % of a view, where there are enough to tell."""
    errors, where = errors.flatten(1), where.flatten(1)
    there = where.sum(1, keepdim=True)
    dropped = torch.where(there > _FEW, there - (_KEPT * there).long(), 0)
    worst_first = errors.masked_fill(~where, -torch.inf).sort(dim=1, descending=True).values
    rank = torch.arange(errors.shape[1], device=errors.device)
    kept = torch.where((rank >= dropped) & (rank < there), worst_first, 0.0)
    return (kept.sum(1, keepdim=True) / (there - dropped).clamp_min(1)).mean()
