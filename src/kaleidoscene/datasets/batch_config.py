"""Size and randomness of training batches, and how the batch of a step is cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

from kaleidoscene.choices import check_range
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.errors import KaleidosceneError


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """One of the shapes that batches have; every step draws one (Kaleido Table 5, stage 4: mixed aspect ratios).

    Attributes:
        image_size: ``(height, width)``; None keeps that of the stored views.
        batch_size: Scenes of a step of this shape, so that every shape costs about as much (``datasets/buckets.py``).
        views: V of such a step; None is the sampling's own.
        weight: Relative share of the steps.
    """

    image_size: tuple[int, int] | None
    batch_size: int
    views: int | None = None
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Size and randomness of training batches."""

    batch_size: int = 16
    """Scenes of a step, over all ranks and micro-batches."""
    sampling: ViewSampling = ViewSampling()
    augmentation: Augmentation = Augmentation()
    reference_dropout: float = 0.1
    """Share of the draws without references, for classifier-free guidance (method A.10)."""
    share_counts: int | None = None
    """Scenes that share one draw of view counts, which lets them be stacked; None: all of a step."""
    image_size: tuple[int, int] | None = None
    """Size to bring stored views to (cropped to its aspect ratio, by area if smaller); None keeps theirs."""
    buckets: tuple[Bucket, ...] = ()
    """Shapes to draw from in place of ``batch_size`` and ``image_size``."""
    depth: bool = False
    """Read depth maps as well, where the shards have them."""
    damaged_share: float = 0.0
    """Scenes that cannot be read are replaced, counted and named up to this share of those seen, which is judged from
    10,000 on (or from the start, if fewer are stored: by their number); above it the run stops."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_range(self, 1, math.inf, "batch_size", "share_counts", "image_size")
        check_range(self, 0, 1, "reference_dropout", "damaged_share")

    @property
    def shapes(self) -> tuple[Bucket, ...]:
        """What a step may look like: the buckets, or the one shape that the other fields tell."""
        return self.buckets or (Bucket(image_size=self.image_size, batch_size=self.batch_size),)

    def parts(self, ranks: int) -> int:
        """Micro-batches of each of so many processes for none to be larger than ``share_counts``.

        Raises:
            KaleidosceneError: The batch cannot be cut evenly.
        """
        parts = max(-(-shape.batch_size // (ranks * (self.share_counts or shape.batch_size))) for shape in self.shapes)
        self.check_cut(ranks, parts)
        return parts

    def check_cut(self, ranks: int, parts: int) -> None:
        """Raise if a step cannot be cut so: evenly, and no micro-batch of scenes with different view counts.

        Raises:
            KaleidosceneError: With what would fit.
        """
        for shape in self.shapes:
            micro_batch = len(Share(0, ranks, parts).scenes(shape.batch_size, 0))
            group = self.share_counts or shape.batch_size
            if group < shape.batch_size and group % micro_batch:
                raise KaleidosceneError(
                    f"A micro-batch of {micro_batch} scenes does not fit the groups of {group} scenes that share their "
                    "view counts (share_counts): it must divide them; cut the batch finer with --train.accumulate."
                )


@dataclass(frozen=True)
class Share:
    """Which part of the batch of a step belongs to one rank: ``parts`` micro-batches of those of ``ranks`` ranks."""

    rank: int = 0
    ranks: int = 1
    parts: int = 1

    def scenes(self, batch_size: int, part: int) -> range:
        """Places in the batch of one micro-batch.

        Raises:
            KaleidosceneError: The batch cannot be cut evenly.
        """
        pieces = self.ranks * self.parts
        if batch_size % pieces:
            raise KaleidosceneError(
                f"A batch of {batch_size} scenes cannot be cut for {self.ranks} processes with {self.parts} "
                f"micro-batches each: it must be a multiple of {pieces}."
            )
        size = batch_size // pieces
        first = (part * self.ranks + self.rank) * size
        return range(first, first + size)
