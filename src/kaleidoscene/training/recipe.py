"""What a training run of any family is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from safetensors.torch import load_file
from torch import Tensor

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.rendering.cost import Plan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.cost import Placement, TrainingCost
from kaleidoscene.training.task import Task


@runtime_checkable
class Recipe(Protocol):
    """One training run; a frozen dataclass."""

    @property
    def family(self) -> str:
        """Whose networks it trains."""
        ...

    @property
    def train(self) -> TrainConfig:
        """Length, precision, sharding."""
        ...

    @property
    def batches(self) -> BatchConfig:
        """Batches at the sizes of the network."""
        ...

    @property
    def synthetic(self) -> SyntheticScenes | None:
        """What to render ahead where no shards are given; None: shards must be given."""
        ...

    @property
    def options(self) -> Any:
        """What of it a command line may change: a frozen dataclass, each field of which is an option."""
        ...

    def changed(self, options: Any) -> Recipe:
        """The recipe with other :attr:`options`.

        Raises:
            KaleidosceneError: They ask for what this recipe has not.
        """
        ...

    @property
    def plan(self) -> Plan:
        """What rendering with its network costs."""
        ...

    def training_costs(self, placement: Placement) -> Sequence[TrainingCost]:
        """Cost of a step of each of the shapes of its batches."""
        ...

    @property
    def remark(self) -> str:
        """What :meth:`training_costs` leave out; empty for nothing."""
        ...

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with its beginning beside settings, data and training: by name,
        dataclasses or plain values.
        """
        ...

    def check_start(self, init: str | None, *, resumes: bool, has_shards: bool) -> None:
        """Raise if a run of this recipe cannot begin so.

        Args:
            init: What its weights begin from.
            resumes: Whether there is a checkpoint already.
            has_shards: Whether shards are given; otherwise scenes are rendered for it.

        Raises:
            KaleidosceneError: With what is missing.
        """
        ...

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise if scenes were stored for another model than this.

        Raises:
            KaleidosceneError: Their lens or latents are others.
        """
        ...

    def make_task(self, device: str) -> Task:
        """The task, its network still on the meta device."""
        ...

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """Weights of a checkpoint of its family."""
        ...


@dataclass(frozen=True, kw_only=True)
class PlainOptions:
    """What of a plain recipe may be changed where it is started."""

    train: TrainConfig = TrainConfig()
    data: BatchConfig = BatchConfig()
    synthetic: SyntheticScenes | None = None


@dataclass(frozen=True, kw_only=True)
class PlainRecipe:
    """What most recipes have in common: one size, no options of their own, nothing to refuse.

    To be inherited from by those to whom that applies; ``family``, ``plan``, ``training_costs`` and ``make_task`` are
    left to say. Settings have an ``image_size``.
    """

    settings: Any
    train: TrainConfig
    data: BatchConfig
    synthetic: SyntheticScenes | None = None
    remark: ClassVar[str] = ""

    @property
    def batches(self) -> BatchConfig:
        """``data`` at the size of the network."""
        return replace(self.data, image_size=self.settings.image_size)

    @property
    def options(self) -> PlainOptions:
        """Training, data, synthetic scenes."""
        return PlainOptions(train=self.train, data=self.data, synthetic=self.synthetic)

    def changed(self, options: PlainOptions) -> PlainRecipe:
        """With other options.

        Raises:
            KaleidosceneError: They ask for views of another size.
        """
        check_size(options.data, self.settings.image_size)
        return replace(self, train=options.train, data=options.data, synthetic=options.synthetic)

    def identity(self) -> dict[str, Any]:
        """Nothing more."""
        return {}

    def check_start(self, init: str | None, *, resumes: bool, has_shards: bool) -> None:
        """Any start will do."""

    def check_shards(self, folder: ShardFolder, scene: StoredScene) -> None:
        """Raise if there are no views.

        Raises:
            KaleidosceneError: Something was made of them ahead that this recipe cannot take.
        """
        if scene.latents is not None:
            raise KaleidosceneError(f"{folder.name}: what was made of views ahead; this recipe takes views.")

    def read_weights(self, folder: Path) -> dict[str, Tensor]:
        """All tensors of a checkpoint."""
        return load_file(folder / "model.safetensors")


def check_size(data: BatchConfig, size: tuple[int, int]) -> None:
    """Raise if batches are asked for of another size than the network's, to which stored views are brought.

    Raises:
        KaleidosceneError: With both.
    """
    if data.buckets and data.image_size is not None:
        raise KaleidosceneError("--data.image-size: this recipe has batches of several shapes; leave it out.")
    if data.image_size not in (None, size):
        (h, w), (height, width) = data.image_size or size, size
        raise KaleidosceneError(
            f"--data.image-size {h} {w}: the network of this recipe is of {height}x{width}, and stored views are "
            "brought to that; take a recipe of another size."
        )
