"""Training of 3DRAE: some views to tokens, disturbed, to the views that were not given."""

from __future__ import annotations

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
from kaleidoscene.families.rae3d.adversarial import adaptive_weight, hinge, rounded, varied
from kaleidoscene.families.rae3d.checkpoint import describe
from kaleidoscene.families.rae3d.discriminator import FrozenLayers
from kaleidoscene.families.rae3d.initialisation import initialise
from kaleidoscene.families.rae3d.loss import Rae3dLoss, gradient_loss, point_loss
from kaleidoscene.families.rae3d.model import Decoded, Rae3d
from kaleidoscene.families.rae3d.plan import view_tokens
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.families.rae3d.system import Rae3dSystem
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import plucker_rays, unproject
from kaleidoscene.nn.patches import patchify
from kaleidoscene.nn.precision import no_autocast
from kaleidoscene.randomness import draw_noise, seeded
from kaleidoscene.training.task import PlainTask

_HIDING, _NOISE, _AGAIN, _PLAYED, _REAL, _MADE = 21, 22, 23, 24, 25, 26


def tokens_of(
    model: Rae3d,
    views: Views,
    visible: Bool[Tensor, "batch views"] | None = None,
    features: FeatureEncoder | None = None,
) -> Float[Tensor, "batch latents width"]:
    """Tokens of all views of a batch, references and targets alike.

    Args:
        model: The network.
        views: Posed 3D scenes.
        visible: Views that are seen; None: all.
        features: Frozen encoder, where the network has none of its own.

    Raises:
        KaleidosceneError: There are no cameras.
    """
    if views.cameras is None:
        raise KaleidosceneError("3DRAE makes tokens of views with cameras.")
    images = views.images
    with no_autocast(images):
        world = RelativeWorld.of(views.cameras)
        inside = world.enter(views.cameras)
        rays = plucker_rays(inside.to(images.device).to(torch.float32))
    if visible is None:
        visible = torch.ones(images.shape[:2], dtype=torch.bool, device=images.device)
    shown = None if features is None else features(images)
    return model.encode(images, rays, visible, shown, world.bounds.to(rays))


class Rae3dTask(PlainTask):
    """Losses of a batch of posed views."""

    family = "rae3d"
    watched = "image"  # where points are told with a confidence, the loss may fall below 0

    def __init__(
        self,
        settings: Rae3dSettings,
        loss: Rae3dLoss,
        features: FeatureEncoder | None = None,
        perceptual: PerceptualDistance | None = None,
        judged: FrozenLayers | None = None,
    ) -> None:
        check_perceptual(loss.perceptual, perceptual)
        if (settings.model.discriminator is None) != (loss.adversarial == 0):
            raise KaleidosceneError(
                "The adversarial loss and a discriminator come together: take a recipe that has one, such as "
                "rae3d-nano-adversarial, or --loss.adversarial 0."
            )
        self.settings, self.loss, self.features, self.perceptual = settings, loss, features, perceptual
        self.judged = judged
        self.model: nn.Module = Rae3d(settings.model)

    def describe(self) -> dict[str, Any]:
        """The ``config.json`` of a checkpoint."""
        return describe(self.settings)

    def initialise(self, unit: nn.Module) -> None:
        """Give first weights to a part of the network."""
        initialise(unit)

    def tokens(self, views: Views) -> int:
        """Of views, and the latents beside each that is encoded or decoded."""
        h, w = views.images.shape[-2:]
        batch, count = views.images.shape[:2]
        return batch * (count * view_tokens(self.settings.model, (h, w)) + self.settings.model.tokens)

    def system(self, model: nn.Module) -> Rae3dSystem:
        """The network as it stands, ready to render."""
        assert isinstance(model, Rae3d)
        return Rae3dSystem(Rae3dRenderer(model, self.settings, self.features))

    def losses(self, views: Views, seed: int) -> dict[str, Tensor]:
        """The loss to minimise and its parts.

        Args:
            views: Posed 3D scenes; references come first, the others are scored.
            seed: With the place of a scene in the run it tells which references are hidden, the noise, and which
                references are scored in place of others (``Rae3dLoss.repeated``).

        Raises:
            KaleidosceneError: There are no references or cameras, or views are hidden by masks.
        """
        cameras, n = views.cameras, views.num_references
        if cameras is None:
            raise KaleidosceneError("3DRAE learns from views with cameras.")
        if not n:
            raise KaleidosceneError("3DRAE has no tokens without references: data.reference_dropout must be 0.")
        if views.present is not None:
            raise KaleidosceneError("3DRAE hides no views by masks: data.sampling.masking must be drop or none.")
        images, device = views.images, views.images.device
        with no_autocast(images):  # geometry stays exact
            world = RelativeWorld.of(cameras[:, :n], cameras[:, n:])
            inside = world.enter(cameras)
            rays = plucker_rays(inside.to(device).to(torch.float32))
        numbers = views.numbers or tuple(range(len(images)))
        visible = self._visible(numbers, n, seed).to(device)
        features = None if self.features is None else self.features(images[:, :n])
        own = some_again(numbers, n, images.shape[1], share=self.loss.repeated, seed=seed, stream=_AGAIN)
        scene = torch.arange(len(own))[:, None]
        decoded = self.model(
            images[:, :n], rays[:, :n], visible, rays[scene, own], features, self._noise(numbers, seed, device),
            world.bounds.to(rays),
        )  # fmt: skip
        depth = None
        if views.depth is not None:
            depth = views.depth[scene, own] / world.scale.to(views.depth)[:, None, None, None]
        with no_autocast(images):
            terms = self._terms(decoded, images[scene, own], inside[scene, own], depth)
            if self.loss.adversarial:
                terms |= self._played(terms["loss"], decoded, images[scene, own], views.step, numbers, seed)
            return terms

    def _terms(
        self, decoded: Decoded, views: Tensor, inside: Cameras, depth: Float[Tensor, "batch targets h w"] | None
    ) -> dict[str, Tensor]:
        loss, images, truth = self.loss, decoded.images.flatten(0, 1), views.flatten(0, 1)
        terms = {"image": (images - truth).square().mean(), "gradients": gradient_loss(images, truth)}
        total = terms["image"] + loss.gradients * terms["gradients"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(images, truth)
            total = total + loss.perceptual * terms["perceptual"]
        if decoded.points is not None and decoded.confidence is not None and depth is not None:
            points = unproject(inside.to(depth.device).to(depth.dtype), depth).flatten(0, 1)
            terms["points"] = point_loss(
                decoded.points.flatten(0, 1), decoded.confidence.flatten(0, 1), points, (depth > 0).flatten(0, 1),
                alpha=loss.confidence,
            )  # fmt: skip
            total = total + loss.points * terms["points"]
            if loss.background:
                tells = (depth > 0).flatten(1).any(1)[:, None, None, None]  # scenes without depth maps are all 0
                nothing = ((depth == 0) & tells).flatten(0, 1)[..., None]
                terms["background"] = torch.where(nothing, decoded.points.flatten(0, 1), 0.0).abs().mean()
                total = total + loss.background * terms["background"]
        return {"loss": total} | {name: term.detach() for name, term in terms.items()}

    def _played(
        self, fitting: Tensor, decoded: Decoded, views: Tensor, step: int, numbers: tuple[int, ...], seed: int
    ) -> dict[str, Tensor]:
        """The loss with its adversarial part, once its step has come, and what the discriminator minimises."""
        loss, patch = self.loss, self.settings.model.patch_size
        images, truth = decoded.images.flatten(0, 1), views.flatten(0, 1)
        each = [n for n in numbers for _ in range(views.shape[1])]
        total, terms = fitting, {}
        if step >= loss.adversarial_from:
            assert decoded.hidden is not None
            shown = images.detach().requires_grad_()
            played = -self._judged(shown, _draws(seed, _PLAYED, each)).mean()
            # Both gradients stop at the images: the discriminator gets none, and the network one pull, weighted.
            (pull,) = torch.autograd.grad(played, shown)
            (fit,) = torch.autograd.grad(fitting, decoded.images, retain_graph=True)
            fits, pulls = (0.5 * patchify(g, patch) for g in (fit.flatten(0, 1), pull))
            weight = loss.adversarial * adaptive_weight(fits, pulls, decoded.hidden.detach().flatten(0, 1).float())
            towards = (images * (weight * pull).detach()).sum()
            total = total + towards - towards.detach()
            terms |= {"adversarial": played.detach(), "adversarial_weight": weight.detach()}
        if step >= loss.discriminator_from:
            real = self._judged(rounded(truth), _draws(seed, _REAL, each))
            made = self._judged(rounded(images.detach()), _draws(seed, _MADE, each))
            told = hinge(real, made)
            total, terms["discriminator"] = total + told, told.detach()
        return {"loss": total} | terms

    def _judged(self, images: Tensor, draws: list[torch.Generator]) -> Tensor:
        seen = varied(images, draws)
        assert isinstance(self.model, Rae3d)
        return self.model.judge([seen] if self.judged is None else self.judged(seen))

    def _visible(self, numbers: tuple[int, ...], references: int, seed: int) -> Bool[Tensor, "batch references"]:
        """Which references are seen: of few scenes not all (method C.4)."""
        rows, (low, high) = [], self.loss.masked_share
        for number in numbers:
            draw = seeded(seed, _HIDING, number)
            hides, everything, share = torch.rand(3, generator=draw).tolist()
            hidden = 0
            if hides < self.loss.masked:
                part = 1.0 if everything < self.loss.all_hidden else low + (high - low) * share
                hidden = round(part * references)
            order = torch.randperm(references, generator=draw)
            rows.append(order >= hidden)
        return torch.stack(rows)

    def _noise(
        self, numbers: tuple[int, ...], seed: int, device: torch.device
    ) -> Float[Tensor, "batch latents width"] | None:
        """What is added to the tokens, of a standard deviation of its own for every scene."""
        if not self.loss.noise:
            return None
        config = self.settings.model
        generators = [seeded(seed, _NOISE, number) for number in numbers]
        sizes = torch.stack([torch.rand((), generator=generator) for generator in generators]) * self.loss.noise
        noise = draw_noise((len(numbers), config.tokens, config.width), generators)
        return (sizes[:, None, None] * noise).to(device)


def _draws(seed: int, stream: int, numbers: list[int]) -> list[torch.Generator]:
    """One for each view: those of a scene draw one after the other from one generator."""
    of_scene = {number: seeded(seed, stream, number) for number in numbers}
    return [of_scene[number] for number in numbers]
