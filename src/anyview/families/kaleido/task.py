"""Training of Kaleido: views to the flow-matching loss (Kaleido section 3.1, eq. 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from anyview.codecs.codec import Codec
from anyview.data.views import Views
from anyview.encoders.features import FeatureEncoder
from anyview.families.kaleido.checkpoint import describe
from anyview.families.kaleido.model import Kaleido, initialise
from anyview.families.kaleido.settings import KaleidoSettings, ScaleFrom
from anyview.flow.path import interpolate, masked_mean_square, velocity, velocity_from_data
from anyview.flow.timesteps import TimestepSampler
from anyview.geometry.cameras import Cameras
from anyview.geometry.normalisation import SceneNormalisation
from anyview.nn.positions import ViewPositions
from anyview.randomness import draw_noise, seeded


@dataclass(frozen=True, kw_only=True)
class KaleidoLoss:
    """The training objective."""

    timesteps: TimestepSampler = TimestepSampler()
    min_time: float = 0.02
    """Data predictions become velocities by dividing by t; times are kept above this (prediction ``data`` only)."""
    weighting: Literal["velocity", "data"] = "velocity"
    """``velocity`` is the mean square of the velocity error (paper); ``data`` that of the data error, t^2 times it."""


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
        n, config = views.num_references, self.settings.model
        numbers = views.numbers or range(len(views.images))
        generators = [seeded(seed, 3, number) for number in numbers]
        # Means of the posterior for references, samples of it for targets (method A.11).
        data = self.codec.encode(views.images[:, n:], generators)
        references = self.codec.encode(views.images[:, :n]) if n else data[:, :0]
        device, batch, count = data.device, len(data), views.images.shape[1]
        t = torch.cat([self.loss.timesteps.sample(1, generator) for generator in generators])
        if config.prediction == "data":
            t = t.clamp_min(self.loss.min_time)
        t = t.to(device)
        noise = draw_noise(data.shape, generators).to(device)
        noised = interpolate(data, noise, t)
        features = self.features(views.images[:, :n]) if self.features is not None and n else None
        out = self.model(
            torch.cat([references, noised], dim=1), t, positions_of(views, self.settings.scale_from), n,
            present=views.present, features=features,
        )  # fmt: skip
        if config.prediction == "data":
            out = velocity_from_data(noised, out, t)
        is_target = torch.ones(batch, count - n, dtype=torch.bool, device=device)
        counts = is_target if views.present is None else views.present[:, n:]
        weight = (t**2)[:, None].expand(-1, count - n) if self.loss.weighting == "data" else None
        return {"loss": masked_mean_square(out, velocity(data, noise), counts, weight)}


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
