"""What a training run of Kaleido is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from kaleidoscene.datasets.batches import BatchConfig
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.task import KaleidoLoss
from kaleidoscene.training.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class KaleidoRecipe:
    """One training run."""

    settings: KaleidoSettings
    loss: KaleidoLoss = KaleidoLoss()
    data: BatchConfig = BatchConfig()
    synthetic: SyntheticScenes | None = SyntheticScenes()
    """What to render ahead where no shards are given; None: shards must be given."""
    train: TrainConfig = TrainConfig()

    @property
    def batches(self) -> BatchConfig:
        """``data`` at the size of the network, where it has no buckets of its own."""
        return self.data if self.data.buckets else replace(self.data, image_size=self.settings.image_size)
