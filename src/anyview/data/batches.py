"""Training batches as a pure function of the step: the batch of any step can be made without those before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from anyview.data.images import resize_image
from anyview.data.sampling import ViewSampling
from anyview.data.shards import ShardFolder
from anyview.data.transforms import Augmentation, augment
from anyview.data.views import Views
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras


def seeded(*numbers: int) -> torch.Generator:
    """A generator whose stream is told by all the numbers together."""
    state = np.random.SeedSequence(numbers).generate_state(2)
    return torch.Generator().manual_seed(int(state[0]) << 31 ^ int(state[1]))


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Size and randomness of training batches."""

    batch_size: int = 16
    sampling: ViewSampling = ViewSampling()
    augmentation: Augmentation = Augmentation()
    reference_dropout: float = 0.1
    """Share of the batches without references, for classifier-free guidance (method A.10)."""
    image_size: tuple[int, int] | None = None
    """Size to resample stored views to (by area if smaller); None keeps theirs."""
    depth: bool = False
    """Read depth maps as well, where the shards have them."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class _Scene:
    """One scene of a batch, augmented."""

    images: Tensor
    cameras: Cameras
    mask: Tensor
    depth: Tensor | None
    key: str


class ViewBatches(Dataset[Views]):
    """``batches[step]`` is the batch of a step: every scene once an epoch, in an order of the epoch's own.

    Raises:
        AnyViewError: There are fewer scenes than a batch needs, or a scene has fewer views than are sampled.
    """

    def __init__(self, folder: ShardFolder, config: BatchConfig) -> None:
        if len(folder) < config.batch_size:
            raise AnyViewError(f"{folder.folder}: {len(folder)} scenes, a batch needs {config.batch_size}.")
        if folder.num_views(0) < config.sampling.views:
            raise AnyViewError(
                f"{folder.folder}: scenes have {folder.num_views(0)} views, training needs {config.sampling.views}."
            )
        self.folder, self.config = folder, config
        self._epoch: tuple[int, Tensor] | None = None

    def __getitem__(self, step: int) -> Views:
        config = self.config
        generator = seeded(config.seed, 1, step)
        n, m, present = config.sampling.sample_batch(config.batch_size, generator)
        if torch.rand((), generator=generator) < config.reference_dropout:
            n, present = (0, None if present is None else present[:, n:])
        first = step * config.batch_size
        scenes = [self._scene(self._place(first + i), n + m, generator) for i in range(config.batch_size)]
        return Views(
            images=torch.stack([scene.images for scene in scenes]),
            cameras=Cameras.stack([scene.cameras for scene in scenes]),
            times=None,
            is_video=torch.zeros(len(scenes), dtype=torch.bool),
            num_references=n,
            present=present,
            depth=torch.stack([scene.depth for scene in scenes if scene.depth is not None]) if config.depth else None,
            mask=torch.stack([scene.mask for scene in scenes]),
            ids=tuple(scene.key for scene in scenes),
        )

    def _place(self, position: int) -> int:
        epoch, place = divmod(position, len(self.folder))
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, torch.randperm(len(self.folder), generator=seeded(self.config.seed, 2, epoch)))
        return int(self._epoch[1][place])

    def _scene(self, index: int, count: int, generator: torch.Generator) -> _Scene:
        order = torch.randperm(self.folder.num_views(index), generator=generator)[:count].tolist()
        stored = self.folder.read(index, order, depth=self.config.depth)
        rgba = torch.from_numpy(stored.rgba).movedim(-1, 1).float() / 255
        images, cameras, mirrored = augment(rgba, stored.cameras, self.config.augmentation, generator)
        mask, depth = rgba[:, 3], None if stored.depth is None else torch.from_numpy(stored.depth)
        if mirrored:
            mask, depth = mask.flip(-1), None if depth is None else depth.flip(-1)
        size = self.config.image_size
        if size is not None and size != cameras.image_size:
            images, cameras = resize_image(images, size), cameras.resize(*size)
            mask = torch.nn.functional.interpolate(mask[:, None], size, mode="area")[:, 0]
            if depth is not None:  # not averaged: there is nothing between an object and its background
                depth = torch.nn.functional.interpolate(depth[:, None], size, mode="nearest-exact")[:, 0]
        return _Scene(images, cameras, mask, depth, stored.key)

    def loader(self, steps: range, *, workers: int) -> DataLoader[Views]:
        """The batches of ``steps``, made ahead by worker processes (0: in this process)."""
        return DataLoader(
            self, batch_size=None, sampler=list(steps), num_workers=workers, prefetch_factor=4 if workers else None
        )
