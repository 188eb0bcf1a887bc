"""Training of Kaleido: views to the flow-matching loss (Kaleido section 3.1, eq. 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.codecs.codec import Codec
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.families.kaleido.checkpoint import describe
from kaleidoscene.families.kaleido.model import Kaleido, initialise
from kaleidoscene.families.kaleido.settings import KaleidoSettings, ScaleFrom
from kaleidoscene.flow.path import interpolate, masked_mean_square, velocity, velocity_from_data
from kaleidoscene.flow.timesteps import TimestepSampler
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.ray_points import Lattice
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

    def __post_init__(self) -> None:
        if self.reprojection_stride < 1:
            raise ValueError(f"reprojection_stride must be at least 1, got {self.reprojection_stride}.")


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
    """

    references: Float[Tensor, "batch refs c h w"]
    data: Float[Tensor, "batch targets c h w"]
    noise: Float[Tensor, "batch targets c h w"]
    times: Float[Tensor, " batch"]
    positions: ViewPositions
    counts: Bool[Tensor, "batch targets"]
    present: Bool[Tensor, "batch views"] | None
    features: Float[Tensor, "batch refs tokens feature"] | None

    def targets_alone(self) -> Prepared:
        """The same targets without references: the unconditional branch of guidance."""
        n = self.references.shape[1]
        return replace(
            self, references=self.references[:, :0], positions=self.positions.select(slice(n, None)),
            present=None if self.present is None else self.present[:, n:], features=None,
        )  # fmt: skip


class KaleidoTask:
    """Loss of a batch of views: noise the targets, keep the references clean, compare velocities on the targets."""

    def __init__(
        self, settings: KaleidoSettings, loss: KaleidoLoss, *, codec: Codec, features: FeatureEncoder | None = None
    ) -> None:
        self.settings, self.loss = settings, loss
        self.model: nn.Module = Kaleido(settings.model)
        self.codec, self.features = codec, features

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return describe(self.settings)

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the network."""
        initialise(unit)

    def weight(self, views: Views) -> float:
        """How many targets the loss is a mean over."""
        batch, count = views.images.shape[:2]
        n = views.num_references
        return float(batch * (count - n) if views.present is None else views.present[:, n:].sum())

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
        out = self.velocity(self.model, prepared, noised, t, lattice)
        return {"loss": self._error(out, velocity(prepared.data, prepared.noise), t, prepared.counts, lattice)}

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
        row, col = torch.randint(stride, (2,), generator=seeded(seed, 5, step)).tolist()
        return Lattice(row, col, stride)

    def prepare(self, views: Views, seed: int) -> Prepared:
        """Latents, noise, times and positions of a batch."""
        n = views.num_references
        generators = [seeded(seed, 3, number) for number in views.numbers or range(len(views.images))]
        references, data = self._latents(views, generators)
        t = torch.cat([self.loss.timesteps.sample(1, generator) for generator in generators])
        noise = draw_noise(data.shape, generators)
        all_count = torch.ones(data.shape[:2], dtype=torch.bool, device=data.device)
        return Prepared(
            references, data, noise.to(data.device), t.to(data.device), positions_of(views, self.settings.scale_from),
            all_count if views.present is None else views.present[:, n:], views.present,
            self._features(views) if n else None,
        )  # fmt: skip

    def _latents(self, views: Views, generators: Sequence[torch.Generator]) -> tuple[Tensor, Tensor]:
        """Of references and targets: means of the posterior, and samples of it (method A.11)."""
        n = views.num_references
        if views.latents is not None:
            mean, std = views.latents
            noise = draw_noise(mean[:, n:].shape, generators).to(mean.device)
            return mean[:, :n], mean[:, n:] + std[:, n:] * noise
        data = self.codec.encode(views.images[:, n:], generators)
        return self.codec.encode(views.images[:, :n]) if n else data[:, :0], data

    def _features(self, views: Views) -> Tensor | None:
        """Of the references, where the network takes any."""
        if not self.settings.model.feature_channels:
            return None
        if views.features is not None:
            return views.features[:, : views.num_references]
        return None if self.features is None else self.features(views.images[:, : views.num_references])

    def velocity(
        self, model: nn.Module, prepared: Prepared, noised: Tensor, t: Tensor, lattice: Lattice | None = None
    ) -> Tensor:
        """What a network says of targets at time ``t``, as a velocity."""
        out = model(
            torch.cat([prepared.references, noised], dim=1), t, prepared.positions, prepared.references.shape[1],
            present=prepared.present, features=prepared.features, lattice=lattice,
        )  # fmt: skip
        return velocity_from_data(noised, out, t) if self.settings.model.prediction == "data" else out


def positions_of(views: Views, scale_from: ScaleFrom) -> ViewPositions:
    """Normalised positions of a training batch, world origin = scene origin (open choice E3).

    Scenes without references take their scale from all views.
    """
    count = views.images.shape[1]
    video = None if views.times is None else ViewPositions.from_times(views.times)
    if views.cameras is None:
        assert video is not None
        return video
    use = views.num_references if scale_from == "references" and views.num_references else count
    scene = ViewPositions.from_cameras(normalised(views.cameras, slice(0, use)))
    if video is None or not bool(views.is_video.any()):
        return scene
    choose = views.is_video[:, None]
    return ViewPositions(
        torch.where(choose[..., None, None], video.cam_from_world, scene.cam_from_world),
        torch.where(choose[..., None], video.lens, scene.lens),
        torch.where(choose, video.times, scene.times),
        views.is_video,
    )


def normalised(cameras: Cameras, scale_views: slice) -> Cameras:
    """Cameras ``(batch, views)`` such that the farthest of ``scale_views`` is at distance 1 from the world origin."""
    origin = torch.zeros_like(cameras.centres[..., 0, :])
    return SceneNormalisation.from_cameras(cameras[:, scale_views], origin).normalise(cameras)
