"""Training of Kaleido: views to the flow-matching loss (Kaleido section 3.1, eq. 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.choices import check_choices
from kaleidoscene.codecs.codec import Codec
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.batch_positions import positions_of, world_of
from kaleidoscene.families.kaleido.checkpoint import describe
from kaleidoscene.families.kaleido.depth_loss import KnownSurfaces, depth_losses
from kaleidoscene.families.kaleido.initialisation import initialise
from kaleidoscene.families.kaleido.matching import STRIDE as MATCHED_STRIDE
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.plan import token_grid
from kaleidoscene.families.kaleido.ray_points import EXTENT, Lattice
from kaleidoscene.families.kaleido.refinement import Surfaces
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.system import KaleidoSystem
from kaleidoscene.flow.path import interpolate, masked_mean_square, velocity, velocity_from_data
from kaleidoscene.flow.timesteps import TimestepSampler
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.precision import no_autocast
from kaleidoscene.nn.view_parallel import ViewGroup
from kaleidoscene.nn.windows import Windows
from kaleidoscene.randomness import draw_noise, seeded


@dataclass(frozen=True, kw_only=True)
class KaleidoLoss:
    """The training objective."""

    timesteps: TimestepSampler = TimestepSampler()
    min_time: float = 0.02
    """Data predictions become velocities by dividing by t; times are kept above this (prediction ``data`` only)."""
    weighting: Literal["velocity", "data"] = "velocity"
    """``velocity`` is the mean square of the velocity error (paper); ``data`` that of the data error, t^2 times it."""
    reprojection_stride: int = 4
    """Of the lattice of pixels at which reprojection takes part in a training step; every step has another corner."""
    patch: bool = False
    """Take as many pixels in one piece instead, every second one where the network compares windows."""
    depth: float = 0.0
    """Weight of what true depths say (``depth_loss.py``), where the network refines and the data has depth."""

    def __post_init__(self) -> None:
        check_choices(self)
        if self.reprojection_stride < 1:
            raise ValueError(f"reprojection_stride must be at least 1, got {self.reprojection_stride}.")
        if self.depth < 0:
            raise ValueError(f"depth must be at least 0, got {self.depth}.")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A batch in latents, before any time is chosen for it.

    Attributes:
        references: Clean latents.
        data: Latents of the targets.
        noise: Of the targets.
        times: One drawn for each scene.
        positions: Of references and targets.
        counts: Targets that carry a loss.
        present: Views that may be seen; None: all.
        features: Of the references.
        num_references: Of the scene.
        group: Where the views of a scene are spread over processes: ``references``, ``data``, ``noise``, ``positions``,
            ``counts`` and ``features`` are then those of this process.
    """

    references: Float[Tensor, "batch refs c h w"]
    data: Float[Tensor, "batch targets c h w"]
    noise: Float[Tensor, "batch targets c h w"]
    times: Float[Tensor, " batch"]
    positions: ViewPositions
    counts: Bool[Tensor, "batch targets"]
    present: Bool[Tensor, "batch views"] | None
    features: Float[Tensor, "batch refs tokens feature"] | None
    num_references: int
    group: ViewGroup | None = None

    def targets_alone(self) -> Prepared:
        """The same targets without references: the unconditional branch of guidance."""
        n = self.references.shape[1]
        return replace(
            self, references=self.references[:, :0], positions=self.positions.select(slice(n, None)),
            present=None if self.present is None else self.present[:, n:], features=None, num_references=0,
        )  # fmt: skip


class KaleidoTask:
    """Loss of a batch of views: noise the targets, keep the references clean, compare velocities on the targets."""

    watched = "loss"

    def __init__(
        self, settings: KaleidoSettings, loss: KaleidoLoss, *, codec: Codec, features: FeatureEncoder | None = None
    ) -> None:
        self.settings, self.loss = settings, loss
        self.model: nn.Module = Kaleido(settings.model)
        self.codec, self.features = codec, features
        self._group: Callable[[int], ViewGroup] | None = None

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return describe(self.settings)

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the network."""
        initialise(unit)

    def weight(self, views: Views) -> float:
        """How many targets the loss is a mean over."""
        batch, count = views.images.shape[:2]
        own, n = self._own(count), views.num_references
        first = max(n, own.start)
        if views.present is None:
            return float(batch * max(0, own.stop - first))
        return float(views.present[:, first : max(first, own.stop)].sum())

    def tokens(self, views: Views) -> int:
        """Tokens that the network computes for this batch."""
        batch, count = views.images.shape[:2]
        size = self.settings.image_size if views.latents is not None else tuple(views.images.shape[-2:])
        rows, cols = token_grid(self.settings, (size[0], size[1]))
        return batch * len(self._own(count)) * rows * cols

    def system(self, model: nn.Module) -> KaleidoSystem:
        """The network as it stands, ready to render."""
        assert isinstance(model, Kaleido)
        return KaleidoSystem(KaleidoRenderer(model, self.settings, self.codec, self.features))

    def spread(self, rank: int, size: int, group: Any) -> None:
        """Take this share of the views of every scene from now on."""
        if self.settings.model.reprojection_depths:
            raise KaleidosceneError("--train.view-parallel: reprojection needs all references of a scene together.")
        grid = token_grid(self.settings, self.settings.image_size)
        ViewGroup(group, rank, size, size).own_windows(Windows(grid, self.settings.model.window))
        self._group = partial(ViewGroup, group, rank, size)

    def _own(self, count: int) -> range:
        """Which of so many views of a scene this process has."""
        return range(count) if self._group is None else self._group(count).own

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """The loss to minimise and what else is worth logging.

        Args:
            views: A batch; references first.
            seed: With the place of a scene in the run it tells the scene's noise and time, on the CPU, so that every
                device draws the same.
        """
        prepared = self.prepare(views, seed)
        t, config = prepared.times, self.settings.model
        if config.prediction == "data":
            t = t.clamp_min(self.loss.min_time)
        noised = interpolate(prepared.data, prepared.noise, t)
        lattice = self._lattice(seed, views.step, noised.shape[-2:])
        found: list[Surfaces] = []
        out = self.velocity(self.model, prepared, noised, t, lattice, found if self.loss.depth else None)
        error = self._error(out, velocity(prepared.data, prepared.noise), t, prepared.counts, lattice)
        if not self.loss.depth:
            return {"loss": error}
        return self._with_depth(error, views, prepared, found, lattice)

    def _with_depth(
        self, error: Tensor, views: Views, prepared: Prepared, found: list[Surfaces], lattice: Lattice | None
    ) -> dict[str, Tensor]:
        """The loss with what true depths say; a batch without references has no surfaces to judge."""
        if views.depth is None or views.mask is None or views.cameras is None:
            raise KaleidosceneError("loss.depth needs 3D scenes with depth: data.depth, and shards that hold it.")
        names = ("bins", "references", "pixels", "outline")
        terms = {name: error.new_zeros(()) for name in names}
        if found:
            scale = world_of(views, self.settings.scale_from).scale.to(views.depth)
            depth = views.depth / scale[:, None, None, None]
            with no_autocast(depth):  # geometry stays exact
                known = KnownSurfaces.of(prepared.positions, depth, views.mask)
            (surfaces,) = found
            n = prepared.num_references
            terms = depth_losses(surfaces, known, n, lattice, prepared.counts, prepared.present)
        # Lengths count in bins of depth, as the cross-entropies do.
        bin_width = 2 * EXTENT / self.settings.model.reprojection_depths
        lengths = (terms["references"] + terms["pixels"]) / bin_width
        depth_loss = terms["bins"] + terms["outline"] + lengths
        return {"loss": error + self.loss.depth * depth_loss, "image": error.detach()} | {
            f"depth/{name}": value.detach() for name, value in terms.items()
        }

    def _error(self, out: Tensor, true: Tensor, t: Tensor, counts: Tensor, lattice: Lattice | None) -> Tensor:
        """Mean square of what velocities of targets at time ``t`` are wrong by, weighted as the loss says."""
        weight = (t**2)[:, None].expand(-1, out.shape[1]) if self.loss.weighting == "data" else None
        error = masked_mean_square(out, true, counts, weight)
        if lattice is None:
            return error
        # Painted pixels, most of them, count as much as the few that are composed: they are what is left to paint.
        return error + masked_mean_square(lattice.of(out), lattice.of(true), counts, weight)

    def _lattice(self, seed: int, step: int, size: Sequence[int]) -> Lattice | None:
        """Pixels of this step that reprojection is trained on, where the network has any."""
        if not self.settings.model.reprojection_depths:
            return None
        stride = min(self.loss.reprojection_stride, *size)
        generator = seeded(seed, 5, step)
        if self.loss.patch:
            step = MATCHED_STRIDE if self.settings.model.matched_windows else 1
            h, w = (side // stride for side in size)
            row, col = (
                int(torch.randint(side - step * (part - 1), (), generator=generator))
                for side, part in zip(size, (h, w), strict=True)
            )
            return Lattice(row, col, step, (h, w))
        row, col = torch.randint(stride, (2,), generator=generator).tolist()
        return Lattice(row, col, stride)

    def prepare(self, views: Views, seed: int) -> Prepared:
        """Latents, noise, times and positions of a batch."""
        n, count = views.num_references, views.images.shape[1]
        group = None if self._group is None else self._group(count)
        own = range(count) if group is None else group.own
        generators = [seeded(seed, 3, number) for number in views.numbers or range(len(views.images))]
        first, last = min(n, own.stop), max(n, own.start)
        references, data = self._latents(views, generators, slice(own.start, first), slice(last, max(last, own.stop)))
        t = torch.cat([self.loss.timesteps.sample(1, generator) for generator in generators])
        # Of all targets, whoever has them: the noise of a target is that of its place.
        noise = draw_noise((len(data), count - n, *data.shape[2:]), generators)[:, last - n : last - n + data.shape[1]]
        all_count = torch.ones(data.shape[:2], dtype=torch.bool, device=data.device)
        present = views.present
        return Prepared(
            references, data, noise.to(data.device), t.to(data.device),
            positions_of(views, self.settings.scale_from, data.device).select(slice(own.start, own.stop)),
            all_count if present is None else present[:, last : last + data.shape[1]], present,
            self._features(views, slice(own.start, first)) if first > own.start else None, n, group,
        )  # fmt: skip

    def _latents(
        self, views: Views, generators: Sequence[torch.Generator], references: slice, targets: slice
    ) -> tuple[Tensor, Tensor]:
        """Of references and targets of this process: means of the posterior, and samples of it (method A.11)."""
        n = views.num_references
        own = slice(targets.start - n, targets.stop - n)
        if views.latents is not None:
            mean, std = views.latents
            noise = draw_noise(mean[:, n:].shape, generators).to(mean.device)
            return mean[:, references], (mean[:, n:] + std[:, n:] * noise)[:, own]
        # Samples are drawn for all targets, so that those of a share are the same.
        if self._group is None or self.settings.codec.kind == "pixel":
            data = self._encoded(views.images[:, targets], generators)
        else:
            data = self._encoded(views.images[:, n:], generators)[:, own]
        return self._encoded(views.images[:, references], None), data

    def _encoded(self, images: Tensor, generators: Sequence[torch.Generator] | None) -> Tensor:
        """Latents of views ``(batch, views, 3, h, w)``, of which there may be none."""
        if images.shape[1]:
            return self.codec.encode(images, generators)
        size = tuple(side // self.codec.factor for side in images.shape[-2:])
        return images.new_zeros(len(images), 0, self.codec.channels, *size)

    def _features(self, views: Views, references: slice) -> Tensor | None:
        """Of the references, where the network takes any."""
        if not self.settings.model.feature_channels:
            return None
        if views.features is not None:
            return views.features[:, references]
        return None if self.features is None else self.features(views.images[:, references])

    def velocity(
        self,
        model: nn.Module,
        prepared: Prepared,
        noised: Tensor,
        t: Tensor,
        lattice: Lattice | None = None,
        found: list[Surfaces] | None = None,
    ) -> Tensor:
        """What a network says of targets at time ``t``, as a velocity; ``found`` takes the surfaces that it finds."""
        out = model(
            torch.cat([prepared.references, noised], dim=1), t, prepared.positions, prepared.num_references,
            present=prepared.present, features=prepared.features, lattice=lattice, group=prepared.group, found=found,
        )  # fmt: skip
        return velocity_from_data(noised, out, t) if self.settings.model.prediction == "data" else out
