"""How many views of a training scene are references and how many are targets (Kaleido section 3.2.1 (iii))."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.randomness import seeded


@dataclass(frozen=True)
class ViewCounts:
    """References and targets of one draw, and how many of each stay visible."""

    references: int
    targets: int
    visible_references: int
    visible_targets: int


@dataclass(frozen=True, kw_only=True)
class ViewSampling:
    """Draws N references and M = V - N targets, then hides some of both.

    Attributes:
        views: V, the views of a scene in training.
        kind: ``exponential`` halves the probability with every further reference (eq. 5, truncated to 1..V-1);
            ``uniform`` draws N from 1..V-1; ``fixed`` has N = V // 2 (of a single view none).
        rate: lambda of the exponential; the paper's is ln 2.
        masking: Random attention masking: n ~ U{1..N} references and m ~ U{1..M} targets stay. ``scene`` draws for
            every scene and masks (paper, open choice E9); ``drop`` draws once a batch and leaves hidden views out,
            which costs less; ``none`` keeps all.
        max_targets: In mode ``drop`` an upper bound on the targets that stay; in mode ``none`` M itself, beside which N
            is drawn from 1..V-M.
    """

    views: int = 12
    kind: Literal["exponential", "uniform", "fixed"] = "exponential"
    rate: float = math.log(2)
    masking: Literal["scene", "drop", "none"] = "scene"
    max_targets: int | None = None

    def __post_init__(self) -> None:
        check_choices(self)
        single = self.views == 1 and self.kind == "fixed" and self.masking == "none"  # a target, and no reference
        if self.views < 2 and not single:
            raise ValueError(f"A training scene needs at least 2 views, got {self.views}.")

        fits = self.max_targets is None or 0 < self.max_targets < (self.views if self.masking == "none" else math.inf)
        if not fits:
            raise ValueError(f"max_targets must be from 1 to below {self.views} views, got {self.max_targets}.")

    def of(self, views: int | None) -> ViewSampling:
        """The same draw from another number of views (None: from its own)."""
        return self if views is None else replace(self, views=views)

    def mean_views(self) -> float:
        """Views of a scene that a network computes on average: all, but those that are left out."""
        some = self.masking == "drop" or (self.masking == "none" and self.max_targets is not None)
        return sum(self.mean_counts()) if some else float(self.views)

    def mean_counts(self) -> tuple[float, float]:
        """References and targets of a scene that can be seen, on average."""
        generator = torch.Generator().manual_seed(0)
        draws = [self.sample(generator) for _ in range(2000)]
        references, targets = (
            sum(x) for x in zip(*((d.visible_references, d.visible_targets) for d in draws), strict=True)
        )
        return references / len(draws), targets / len(draws)

    def sample(self, generator: torch.Generator) -> ViewCounts:
        """Draw the counts of one scene (or of one batch in mode ``drop``)."""
        references = self._references(generator)
        targets = self.views - references
        if self.masking == "none":
            targets = min(targets, self.max_targets or targets)
            return ViewCounts(references, targets, references, targets)
        n = int(torch.randint(1, references + 1, (), generator=generator))
        m = int(torch.randint(1, targets + 1, (), generator=generator))
        if self.masking == "drop" and self.max_targets is not None:
            m = min(m, self.max_targets)
        return ViewCounts(references, targets, n, m)

    def _references(self, generator: torch.Generator) -> int:
        top = self.views - ((self.masking == "none" and self.max_targets) or 1)
        if self.kind == "fixed":
            return self.views // 2
        if self.kind == "uniform":
            return int(torch.randint(1, top + 1, (), generator=generator))
        weights = torch.exp(-self.rate * torch.arange(1, top + 1, dtype=torch.float64))
        return 1 + int(torch.multinomial(weights, 1, generator=generator))

    def sample_batch(
        self, batch: int, generator: torch.Generator
    ) -> tuple[int, int, Bool[Tensor, "batch views"] | None]:
        """Counts of a batch: references, targets, and which views are present (None: all).

        In mode ``scene`` N is common to the batch, so that references and targets line up, and what is hidden differs
        from scene to scene.
        """
        counts = self.sample(generator)
        if self.masking == "none":
            return counts.references, counts.targets, None
        if self.masking == "drop":
            return counts.visible_references, counts.visible_targets, None
        present = torch.zeros(batch, self.views, dtype=torch.bool)
        for scene in range(batch):
            n = int(torch.randint(1, counts.references + 1, (), generator=generator))
            m = int(torch.randint(1, counts.targets + 1, (), generator=generator))
            present[scene, torch.randperm(counts.references, generator=generator)[:n]] = True
            chosen = counts.references + torch.randperm(counts.targets, generator=generator)[:m]
            present[scene, chosen] = True
        return counts.references, counts.targets, present


SINGLE = ViewSampling(views=1, kind="fixed", masking="none")
"""One view, or what stands for it, is all that there is of a scene."""


def some_again(
    numbers: Sequence[int], references: int, views: int, *, share: float, seed: int, stream: int
) -> Int[Tensor, "batch targets"]:
    """Which views of scenes are asked for: those behind the references, some of which give way to a reference.

    Args:
        numbers: Places of the scenes in the run.
        references: Views that come first.
        views: Of a scene.
        share: Of the targets, how many give way.
        seed: Of the run.
        stream: Keeps this draw apart from others of the same scene.
    """
    rows, count, targets = [], views - references, torch.arange(references, views)
    for number in numbers:
        draw = seeded(seed, stream, number)
        again = torch.rand(count, generator=draw) < share
        rows.append(torch.where(again, torch.randint(references, (count,), generator=draw), targets))
    return torch.stack(rows)
