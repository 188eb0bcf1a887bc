"""Training batches as a pure function of the step: the batch of any step can be made without those before it.

Everything random about a scene is told by its place in the run, everything that scenes must share by the step. Ranks,
worker processes and micro-batches only cut the batch of a step: however it is cut, the run sees the same numbers.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader, Dataset

from kaleidoscene.datasets.batch_config import BatchConfig, Bucket, Share
from kaleidoscene.datasets.damage import allowed_damage
from kaleidoscene.datasets.mixture import Mixture, WeightedDraws
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.scenes import TrainingScene, prepare_scene
from kaleidoscene.datasets.shards import DAMAGE, ShardFolder
from kaleidoscene.datasets.stacking import Counts, stacked
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.randomness import seeded

# Scenes tried in place of a damaged one before the run gives up.
_ATTEMPTS = 8


@dataclass(frozen=True, eq=False)
class Source:
    """Scenes of a folder of shards and their weight among all sources."""

    folder: ShardFolder
    weight: float = 1.0


class ViewBatches(Dataset[Views]):
    """``batches[step]`` is the batch of a step: every scene once in the epoch of its source, in an order of its own.

    Args:
        sources: One folder of shards, or several with weights.
        config: Size and randomness.

    Raises:
        KaleidosceneError: There are fewer scenes than a batch needs, or a scene has fewer views than are sampled.
    """

    def __init__(self, sources: ShardFolder | Sequence[Source], config: BatchConfig) -> None:
        self.sources = [Source(sources)] if isinstance(sources, ShardFolder) else list(sources)
        self.config = config
        self._shapes = config.shapes
        self.mixture = Mixture(
            [len(source.folder) for source in self.sources], [source.weight for source in self.sources], config.seed
        )
        self._steps = WeightedDraws([shape.weight for shape in self._shapes], config.seed, 5)
        self._check()

    def _check(self) -> None:
        scenes, largest = sum(self.mixture.sizes), max(shape.batch_size for shape in self._shapes)
        names = ", ".join(str(source.folder.name) for source in self.sources)
        if scenes < largest:
            raise KaleidosceneError(f"{names}: {scenes} scenes, a batch needs {largest}.")
        most = max(self._sampling(shape).views for shape in self._shapes)
        for source in self.sources:
            fewest = source.folder.fewest_views
            if fewest < most:
                raise KaleidosceneError(f"{source.folder.name}: scenes have {fewest} views, training needs {most}.")

    @property
    def fingerprint(self) -> list[list[str | float]]:
        """What the data is, for a run that goes on to compare: one entry a source."""
        return [[source.folder.fingerprint, source.weight] for source in self.sources]

    def parts(self, ranks: int) -> int:
        """Micro-batches a process needs, among so many processes."""
        return self.config.parts(ranks)

    def allowed_damage(self, step: int) -> float:
        """How many scenes may have been damaged by the end of a step (``config.damaged_share``)."""
        return allowed_damage(self.config.damaged_share, self.first_place(step + 1), sum(self.mixture.sizes))

    def _shape(self, step: int) -> Bucket:
        return self._shapes[self._steps[step]]

    def _sampling(self, shape: Bucket) -> ViewSampling:
        return self.config.sampling.of(shape.views)

    def first_place(self, step: int) -> int:
        """How many scenes the steps before ``step`` took."""
        if len(self._shapes) == 1:
            return step * self._shapes[0].batch_size
        sizes = [shape.batch_size for shape in self._shapes]
        return int(sum(self._steps.before(step) * sizes))

    def __getitem__(self, step: int) -> Views:
        return self.part(step, Share(), 0)

    def part(self, step: int, share: Share, part: int) -> Views:
        """One micro-batch of a step.

        Raises:
            KaleidosceneError: The batch cannot be cut so, or scene after scene is damaged.
        """
        self.config.check_cut(share.ranks, share.parts)
        shape = self._shape(step)
        chosen = share.scenes(shape.batch_size, part)
        counts = self._counts(step, shape, chosen)
        first = self.first_place(step)
        scenes, damaged = [], []
        for place in chosen:
            scene, bad = self._scene(first + place, counts.views, shape)
            scenes.append(scene)
            damaged += bad
        return replace(
            stacked(scenes, counts, depth=self.config.depth),
            numbers=tuple(first + place for place in chosen),
            step=step,
            damaged=tuple(damaged),
        )

    def _counts(self, step: int, shape: Bucket, chosen: range) -> Counts:
        """The draw of the scenes ``chosen``, which must share one."""
        group = self.config.share_counts or shape.batch_size
        number, start = chosen[0] // group, chosen[0] // group * group
        generator = seeded(self.config.seed, 1, step, number)
        size = min(group, shape.batch_size - start)
        n, m, present = self._sampling(shape).sample_batch(size, generator)
        if present is not None:
            present = present[chosen[0] - start : chosen[-1] + 1 - start]
        if torch.rand((), generator=generator) < self.config.reference_dropout:
            return Counts(0, m, None if present is None else present[:, n:], dropped=n)
        return Counts(n, m, present)

    def _scene(self, place: int, count: int, shape: Bucket) -> tuple[TrainingScene, list[str]]:
        """The scene at a place of the run; where it cannot be read another one, with the names of what was damaged."""
        source, scene = self.mixture[place]
        folder, damaged = self.sources[source].folder, []
        for attempt in range(_ATTEMPTS):
            generator = seeded(self.config.seed, 6, place, attempt)
            if attempt:
                scene = int(torch.randint(len(folder), (), generator=generator))
            try:
                return self._prepared(folder, scene, count, shape, generator), damaged
            except KaleidosceneError:
                raise
            except DAMAGE as error:
                damaged.append(f"{folder.name}: {folder.key(scene)} ({error})")
                if self.config.damaged_share <= 0:
                    raise KaleidosceneError(f"Damaged scene: {damaged[-1]}.") from error
        raise KaleidosceneError(f"{_ATTEMPTS} damaged scenes one after the other, the last one is {damaged[-1]}.")

    def _prepared(
        self, folder: ShardFolder, scene: int, count: int, shape: Bucket, generator: torch.Generator
    ) -> TrainingScene:
        config, views, size = self.config, self._sampling(shape).views, shape.image_size

        def read(order: list[int]) -> StoredScene:
            # Depth is stored at full size only and must match its image.
            return folder.read(scene, order, depth=config.depth, at_least=None if config.depth else size)

        return prepare_scene(read, folder.stock(scene), views, count, size, config.augmentation, generator)

    def loader(self, steps: range, *, workers: int, share: Share | None = None) -> Iterator[Views]:
        """The micro-batches of ``steps`` in their order, made ahead by worker processes (0: in this process)."""
        share = share or Share()
        self.config.check_cut(share.ranks, share.parts)
        return self._unpacked(
            DataLoader(
                _Cut(self, share),
                batch_size=None,
                sampler=_Parts(steps, share.parts),
                num_workers=workers,
                prefetch_factor=4 if workers else None,
                worker_init_fn=_ignore_signals if workers else None,
            )
        )

    @staticmethod
    def _unpacked(loader: Iterable[Views | KaleidosceneError]) -> Iterator[Views]:
        """What worker processes found wrong is raised here, in its own words."""
        for views in loader:
            if isinstance(views, KaleidosceneError):
                raise views
            yield views


def _ignore_signals(number: int) -> None:
    """A signal that asks a whole group of processes to stop must leave workers the step that is under way.

    They end with the process that they work for.
    """
    del number
    for stopping in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(stopping, signal.SIG_IGN)


@dataclass(frozen=True)
class _Parts:
    """All (step, part) in order."""

    steps: range
    parts: int

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((step, part) for step in self.steps for part in range(self.parts))

    def __len__(self) -> int:
        return len(self.steps) * self.parts


@dataclass(frozen=True, eq=False)
class _Cut(Dataset[Views | KaleidosceneError]):
    """What one rank reads of the batches."""

    batches: ViewBatches
    share: Share

    def __getitem__(self, at: tuple[int, int]) -> Views | KaleidosceneError:
        try:
            return self.batches.part(at[0], self.share, at[1])
        except KaleidosceneError as error:
            return error
