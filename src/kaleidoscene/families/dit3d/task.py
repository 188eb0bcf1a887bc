"""Training of 3DDiT: tokens of all views, disturbed, from tokens of the few that are seen (method C.5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.dit3d.checkpoint import Autoencoder, describe
from kaleidoscene.families.dit3d.initialisation import initialise
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.renderer import Dit3dRenderer
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.dit3d.system import Dit3dSystem
from kaleidoscene.families.rae3d.task import tokens_of
from kaleidoscene.flow.path import interpolate, velocity
from kaleidoscene.flow.timesteps import shift
from kaleidoscene.nn.precision import no_autocast
from kaleidoscene.randomness import draw_noise, seeded
from kaleidoscene.training.task import PlainTask

_HIDING, _TIME, _NOISE, _NAMELESS = 31, 32, 33, 35


@dataclass(frozen=True, kw_only=True)
class Dit3dLoss:
    """What is hidden in training.

    Attributes:
        hidden_share: Smallest and largest share of the views of a scene that are not seen.
        all_hidden: Share of the scenes of which no view is seen.
        label_dropout: Share of the scenes whose label is left out, of networks that have labels.
    """

    hidden_share: tuple[float, float] = (0.6, 0.9)
    all_hidden: float = 0.1
    label_dropout: float = 0.1

    def __post_init__(self) -> None:
        low, high = self.hidden_share
        if not (0 <= low <= high <= 1 and 0 <= self.all_hidden <= 1):
            raise ValueError("hidden_share and all_hidden are shares from 0 to 1.")
        if not 0 <= self.label_dropout <= 1:
            raise ValueError(f"label_dropout is a share from 0 to 1, got {self.label_dropout}.")


class Dit3dTask(PlainTask):
    """The flow of scene tokens."""

    family = "dit3d"

    def __init__(self, settings: Dit3dSettings, loss: Dit3dLoss, autoencoder: Autoencoder) -> None:
        self.settings, self.loss, self.autoencoder = settings, loss, autoencoder
        self.model: nn.Module = Dit3d(settings.model)

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return describe(self.settings)

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the network."""
        initialise(unit)

    def weight(self, views: Views) -> float:
        """Scenes."""
        return float(views.images.shape[0])

    def tokens(self, views: Views) -> int:
        """Of the scenes."""
        return views.images.shape[0] * self.settings.model.tokens

    def system(self, model: nn.Module) -> Dit3dSystem:
        """The network as it stands, ready to render."""
        assert isinstance(model, Dit3d)
        return Dit3dSystem(Dit3dRenderer(model, self.settings, self.autoencoder))

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """The squared error of the velocity.

        Args:
            views: Posed 3D scenes; references and targets are views alike.
            seed: With the place of a scene in the run it tells time, noise and what is hidden.

        Raises:
            KaleidosceneError: There are no cameras, no labels for a network that has some, or views are hidden by
                masks.
        """
        if views.present is not None:
            raise KaleidosceneError("3DDiT hides no views by masks: data.sampling.masking must be drop or none.")
        numbers = views.numbers or tuple(range(len(views.images)))
        device, config = views.images.device, self.settings.model
        data, condition = self.data_and_condition(views, numbers, seed)
        with no_autocast(views.images):
            uniform = torch.stack([torch.rand((), generator=seeded(seed, _TIME, number)) for number in numbers])
            t = shift(uniform, config.shift).to(device)
            noise = self.noise(data, numbers, seed)
            disturbed = interpolate(data, noise, t)
        found = self.model(disturbed, t, condition, self.labels(views, numbers, seed))
        with no_autocast(views.images):
            loss = (found - velocity(data, noise)).square().mean()
        return {"loss": loss}

    def data_and_condition(
        self, views: Views, numbers: tuple[int, ...], seed: int
    ) -> tuple[Float[Tensor, "batch latents channels"], Float[Tensor, "batch latents channels"]]:
        """Tokens to be drawn, and of what is seen; made here or ahead, of mean 0 and variance 1."""
        if views.tokens is None:
            return self.tokens_of(views, self.visible(numbers, views.images.shape[1], seed).to(views.images.device))
        data, seen, alone = map(self.autoencoder.statistics.enter, views.tokens)
        draws = torch.stack([torch.rand((), generator=seeded(seed, _HIDING, number)) for number in numbers])
        nothing = (draws < self.loss.all_hidden).to(data.device)
        return data, torch.where(nothing[:, None, None], alone, seen)

    def poses_alone(self, views: Views) -> Float[Tensor, "batch latents channels"]:
        """Tokens of scenes of which nothing is seen."""
        if views.tokens is not None:
            return self.autoencoder.statistics.enter(views.tokens[2])
        nothing = torch.zeros(views.images.shape[:2], dtype=torch.bool, device=views.images.device)
        return self._encoded(views, nothing)

    def noise(
        self, like: Float[Tensor, "batch latents channels"], numbers: Sequence[int], seed: int
    ) -> Float[Tensor, "batch latents channels"]:
        """Of each scene its own."""
        return draw_noise(tuple(like.shape), [seeded(seed, _NOISE, number) for number in numbers]).to(like)

    @torch.no_grad()
    def tokens_of(
        self, views: Views, visible: Bool[Tensor, "batch views"]
    ) -> tuple[Float[Tensor, "batch latents channels"], Float[Tensor, "batch latents channels"]]:
        """Tokens of scenes that are seen from all sides, and of what is seen of them, of mean 0 and variance 1."""
        return self._encoded(views, None), self._encoded(views, visible)

    @torch.no_grad()
    def _encoded(self, views: Views, visible: Bool[Tensor, "batch views"] | None) -> Tensor:
        own = self.autoencoder.renderer
        return self.autoencoder.statistics.enter(tokens_of(own.model, views, visible, own.features))

    def labels(self, views: Views, numbers: tuple[int, ...], seed: int) -> Int[Tensor, " batch"] | None:
        """Classes of scenes, some of which are left out; None for a network without labels.

        Raises:
            KaleidosceneError: The network has labels and the scenes have none, or others.
        """
        classes = self.settings.model.classes
        if not classes:
            return None
        if views.labels is None:
            raise KaleidosceneError(
                f"A network of {classes} classes learns from scenes with labels: 'kaleidoscene convert PICTURES SHARDS "
                "--to shards --format classes' makes some."
            )
        if not 0 <= int(views.labels.min()) <= int(views.labels.max()) < classes:
            raise KaleidosceneError(
                f"Labels run from {int(views.labels.min())} to {int(views.labels.max())}, the network has {classes} "
                f"classes, counted from 0."
            )
        draws = torch.stack([torch.rand((), generator=seeded(seed, _NAMELESS, number)) for number in numbers])
        return torch.where((draws < self.loss.label_dropout).to(views.labels.device), classes, views.labels)

    def visible(self, numbers: tuple[int, ...], views: int, seed: int) -> Bool[Tensor, "batch views"]:
        """Which views are seen: a few, or none."""
        return seen_views(numbers, views, seed, self.loss)


def seen_views(numbers: tuple[int, ...], views: int, seed: int, loss: Dit3dLoss) -> Bool[Tensor, "batch views"]:
    """Which views of scenes are seen; the others are hidden (method C.5).

    Args:
        numbers: Of the scenes; what is hidden of one depends on its number alone.
        views: Of every scene.
        seed: Of the run.
        loss: How many are hidden.
    """
    rows, (low, high) = [], loss.hidden_share
    for number in numbers:
        draw = seeded(seed, _HIDING, number)
        everything, share = torch.rand(2, generator=draw).tolist()
        part = 1.0 if everything < loss.all_hidden else low + (high - low) * share
        order = torch.randperm(views, generator=draw)
        rows.append(order >= round(part * views))
    return torch.stack(rows)
