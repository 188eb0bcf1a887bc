"""Shapes of batches: image sizes of equal area for aspect ratios, and batch sizes of equal cost."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kaleidoscene.datasets.batch_config import Bucket
from kaleidoscene.errors import KaleidosceneError


def bucket_sizes(side: int, ratios: Sequence[float], *, multiple: int) -> tuple[tuple[int, int], ...]:
    """Sizes with about the area of a square of ``side``.

    Args:
        side: Of the square, in pixels.
        ratios: Width over height.
        multiple: Of which both sides are to be (pixels of a token, or of a window of tokens).

    Returns:
        ``(height, width)`` for every ratio.
    """

    def fitted(length: float) -> int:
        return max(1, round(length / multiple)) * multiple

    return tuple((fitted(side / math.sqrt(ratio)), fitted(side * math.sqrt(ratio))) for ratio in ratios)


def buckets_within(
    tokens: int, sizes: Sequence[tuple[int, int]], *, views: int, pixels_per_token: int, multiple: int = 1
) -> tuple[Bucket, ...]:
    """Batch sizes such that a step of any shape has at most so many tokens.

    Args:
        tokens: Budget of a step, over all processes.
        sizes: ``(height, width)`` of each shape.
        views: V of a scene.
        pixels_per_token: Side of a token in pixels.
        multiple: Of which batch sizes are to be (processes times micro-batches).

    Raises:
        KaleidosceneError: The budget has no room for ``multiple`` scenes of a shape.
    """
    buckets = []
    for height, width in sizes:
        of_scene = views * (height // pixels_per_token) * (width // pixels_per_token)
        batch = tokens // of_scene // multiple * multiple
        if not batch:
            raise KaleidosceneError(
                f"{multiple} scenes of {views} views of {height}x{width} are {multiple * of_scene} tokens, "
                f"the budget of a step is {tokens}."
            )
        buckets.append(Bucket(image_size=(height, width), batch_size=batch, views=views))
    return tuple(buckets)
