"""Which views of a capture stand for it: spread out, nearest to what is wanted, or one for each cluster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras


def _features(cameras: Cameras, like: Cameras | None = None) -> Float[Tensor, "views 6"]:
    """Places in units of the capture's extent, with viewing directions: what makes two views different."""
    frame = cameras if like is None else like
    middle = frame.centres.mean(0)
    extent = (frame.centres - middle).norm(dim=-1).max().clamp_min(1e-9)
    return torch.cat([(cameras.centres - middle) / extent, cameras.directions], dim=-1)


def evenly_spaced(views: int, count: int) -> list[int]:
    """Places of at most ``count`` among ``views``, the first to the last: what is left where no camera is known."""
    return [round(place) for place in torch.linspace(0, views - 1, min(count, views)).tolist()]


def spread(cameras: Cameras, count: int, targets: Cameras | None = None) -> list[int]:
    """Farthest-point sampling, from the view nearest to the middle of all; ``targets`` do not matter."""
    del targets
    features = _features(cameras)
    chosen = [int((features - features.mean(0)).norm(dim=-1).argmin())]
    distance = (features - features[chosen[0]]).norm(dim=-1)
    while len(chosen) < count:
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (features - features[chosen[-1]]).norm(dim=-1))
    return sorted(chosen)


def nearest(cameras: Cameras, count: int, targets: Cameras | None = None) -> list[int]:
    """Greedily the views that bring the targets, on average, nearest to one of them.

    Raises:
        KaleidosceneError: There are no targets.
    """
    if targets is None:
        raise KaleidosceneError("Nearest references need targets to be near to.")
    apart = torch.cdist(_features(targets, cameras), _features(cameras))
    best = torch.full((len(targets),), torch.inf, dtype=apart.dtype)
    chosen: list[int] = []
    for _ in range(count):
        mean = torch.minimum(best[:, None], apart).mean(0)
        mean[chosen] = torch.inf
        chosen.append(int(mean.argmin()))
        best = torch.minimum(best, apart[:, chosen[-1]])
    return sorted(chosen)


def kmeans(cameras: Cameras, count: int, targets: Cameras | None = None) -> list[int]:
    """The view nearest to each of ``count`` cluster centres (Lloyd's algorithm from :func:`spread`)."""
    features = _features(cameras)
    centres = features[spread(cameras, count, targets)]
    for _ in range(100):
        member = torch.cdist(features, centres).argmin(1)
        moved = torch.stack(
            [features[member == k].mean(0) if (member == k).any() else centres[k] for k in range(count)]
        )
        if torch.allclose(moved, centres):
            break
        centres = moved
    apart = torch.cdist(centres, features)
    chosen: list[int] = []
    for row in apart:
        row[chosen] = torch.inf  # two clusters may share their nearest view
        chosen.append(int(row.argmin()))
    return sorted(chosen)


SELECTIONS: dict[str, Callable[[Cameras, int, Cameras | None], list[int]]] = {
    "spread": spread,
    "nearest": nearest,
    "kmeans": kmeans,
}
"""By the name the command line knows them by."""


def select_views(kind: str, cameras: Cameras, count: int, targets: Cameras | None = None) -> list[int]:
    """Indices of ``count`` views, ascending.

    Args:
        kind: One of ``SELECTIONS``.
        cameras: ``(views,)`` to choose from.
        count: How many.
        targets: What is to be rendered (``nearest``).

    Raises:
        KaleidosceneError: More views are wanted than there are, or none.
    """
    if not 1 <= count <= len(cameras):
        raise KaleidosceneError(f"{count} references were asked for, there are {len(cameras)} views to choose from.")
    return SELECTIONS[kind](cameras, count, targets)
