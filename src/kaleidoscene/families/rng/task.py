"""Training of RnG: sources once, targets from their keys and values, losses of colours, points and cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.datasets.sampling import some_again
from kaleidoscene.datasets.views import Views
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.encoders.vgg19 import PerceptualDistance
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.encoded_recipe import check_perceptual
from kaleidoscene.families.rng.camera_encoding import encode_cameras
from kaleidoscene.families.rng.checkpoint import describe
from kaleidoscene.families.rng.initialisation import initialise
from kaleidoscene.families.rng.loss import RngLoss, camera_loss, image_loss, point_loss
from kaleidoscene.families.rng.model import Dense, Rng, Sources
from kaleidoscene.families.rng.plan import view_tokens
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.system import RngSystem
from kaleidoscene.families.rng.world import SourceWorld
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import plucker_rays, unproject
from kaleidoscene.nn.precision import no_autocast
from kaleidoscene.training.task import PlainTask

_AGAIN = 6


@dataclass(frozen=True, eq=False)
class Truth:
    """What the network is asked for, in the world of the first source.

    Attributes:
        sources: Cameras of the sources.
        targets: Cameras of the targets.
        images: Of the targets.
        points: World points of the targets' pixels, zero in the background.
        foreground: Where there are such.
    """

    sources: Cameras
    targets: Cameras
    images: Float[Tensor, "batch targets 3 h w"]
    points: Float[Tensor, "batch targets h w 3"]
    foreground: Bool[Tensor, "batch targets h w"]


class RngTask(PlainTask):
    """Losses of a batch of views with depth."""

    family = "rng"
    watched = "image"  # where points are told with a confidence, the loss may fall below 0

    def __init__(
        self,
        settings: RngSettings,
        loss: RngLoss,
        features: FeatureEncoder | None = None,
        perceptual: PerceptualDistance | None = None,
    ) -> None:
        check_perceptual(loss.perceptual, perceptual)
        self.settings, self.loss, self.features, self.perceptual = settings, loss, features, perceptual
        self.model: nn.Module = Rng(settings.model)

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return describe(self.settings)

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the network."""
        initialise(unit)

    def tokens(self, views: Views) -> int:
        """Of sources and targets."""
        h, w = views.images.shape[-2:]
        return views.images.shape[0] * views.images.shape[1] * view_tokens(self.settings.model, (h, w))

    def system(self, model: nn.Module) -> RngSystem:
        """The network as it stands, ready to render."""
        assert isinstance(model, Rng)
        return RngSystem(RngRenderer(model, self.settings, self.features))

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """The loss to minimise and its parts.

        Args:
            views: 3D scenes with depth; sources come first.
            seed: With the place of a scene in the run it tells which targets are sources.

        Raises:
            KaleidosceneError: There are no sources, cameras or depths, or views are hidden by masks.
        """
        n = views.num_references
        images = views.images[:, :n]
        with no_autocast(images):  # geometry stays exact
            truth = self._truth(views, seed)
            rays = plucker_rays(truth.targets.to(images.device).to(torch.float32))
        features = None if self.features is None else self.features(images)
        sources, dense = self.model(images, rays, features)
        with no_autocast(images):
            return self._terms(sources, dense, truth, starts=views.step < self.loss.foreground_steps)

    def _terms(self, sources: Sources, dense: Dense, truth: Truth, *, starts: bool) -> dict[str, Tensor]:
        """The sum of the losses and each of them; ``starts`` where the background counts next to nothing."""
        foreground = truth.foreground.flatten(0, 1)
        terms = {
            "image": image_loss(
                dense.colours.flatten(0, 1), truth.images.flatten(0, 1), foreground, starts=starts,
                extra=self.loss.foreground,
            ),
            "points": point_loss(
                dense.points.flatten(0, 1), dense.confidence.flatten(0, 1), truth.points.flatten(0, 1), foreground,
                alpha=self.loss.confidence, background=not starts,
            ),
        }  # fmt: skip
        total = terms["image"] + self.loss.points * terms["points"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(dense.colours.flatten(0, 1), truth.images.flatten(0, 1))
            total = total + self.loss.perceptual * terms["perceptual"]
        if sources.cameras is not None:
            true = encode_cameras(truth.sources).to(sources.cameras)
            terms["cameras"] = camera_loss(
                sources.cameras, true, discount=self.loss.discount, kind=self.loss.camera_error
            )
            total = total + self.loss.cameras * terms["cameras"]
        return {"loss": total} | {name: term.detach() for name, term in terms.items()}

    def _truth(self, views: Views, seed: int) -> Truth:
        cameras, n = views.cameras, views.num_references
        if cameras is None or views.depth is None:
            raise KaleidosceneError("RnG learns from 3D scenes with depth: data.depth, and shards that hold it.")
        if not n:
            raise KaleidosceneError("RnG has no targets without sources: data.reference_dropout must be 0.")
        if views.present is not None:
            raise KaleidosceneError("RnG hides no views by masks: data.sampling.masking must be drop or none.")
        world = SourceWorld.of(cameras[:, :n])
        inside = world.enter(cameras)
        numbers, count = views.numbers or range(len(views.images)), views.images.shape[1]
        own = some_again(numbers, n, count, share=self.loss.repeated, seed=seed, stream=_AGAIN)
        scene = torch.arange(len(own))[:, None]
        targets = inside[scene, own]
        device = views.images.device
        depth = views.depth[scene, own] / world.scale.to(views.depth)[:, None, None, None]
        foreground = depth > 0
        points = unproject(targets.to(device).to(depth.dtype), depth) * foreground[..., None]
        return Truth(inside[:, :n], targets, views.images[scene, own], points, foreground)
