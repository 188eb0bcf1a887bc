"""Rendering with 3DRAE: views to tokens, tokens and cameras to images, points and depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.families.rae3d.model import Decoded, Rae3d
from kaleidoscene.families.rae3d.scene import Rae3dScene
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import depth_along_axis, plucker_rays
from kaleidoscene.nn.precision import Precision, autocast
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.renderer import (
    OnStep,
    PlainRenderer,
    Rendering,
    Scene,
    check_references,
    check_targets,
    in_chunks,
)

CAPABILITIES = Capabilities(
    needs_cameras=True, renders_depth=True, renders_points=True, takes_back_views=False, any_lens=True,
    unit_of_cameras=True,
)  # fmt: skip

NEAREST = 0.6
"""Of models of objects in front of white: points nearer to the first camera than this share of its distance from what
the cameras look at are background, which training pulls to that camera; objects begin at 0.7."""
NOTHING_MET = 0.01
"""Of other models: points whose coordinates in the world of the first view sum up to less are background."""


class Rae3dRenderer(PlainRenderer):
    """A 3DRAE network, ready to render.

    Args:
        model: The network, in evaluation mode.
        settings: Of its checkpoint.
        features: Frozen encoder of references, where the network has none of its own.
        precision: Autocast type of matrix products; the dense head and geometry stay fp32.
    """

    def __init__(
        self,
        model: Rae3d,
        settings: Rae3dSettings,
        features: FeatureEncoder | None = None,
        *,
        precision: Precision = "fp32",
    ) -> None:
        self.model, self.settings, self.features = model, settings, features
        self.precision: Precision = precision
        self.image_size = settings.image_size
        has_points = settings.model.points is not None
        self.capabilities = replace(CAPABILITIES, renders_depth=has_points, renders_points=has_points)

    def encode(self, images: Float[Tensor, "batch refs 3 h w"], cameras: Cameras | None) -> Rae3dScene:
        """Keep references; their tokens are made when it is known which views will be asked for.

        The unit of the world is the distance of the farthest of all cameras, references and targets, from the first.

        Args:
            images: RGB in [0, 1].
            cameras: ``(batch, refs)``, world units.

        Raises:
            KaleidosceneError: See :class:`kaleidoscene.rendering.renderer.Renderer`.
        """
        check_references(images, cameras, self.image_size)
        assert cameras is not None
        return Rae3dScene(images.to(self.device), cameras, RelativeWorld.of(cameras), None)

    def expect(self, scene: Scene, cameras: Cameras) -> Rae3dScene:
        """The scene with tokens in units of all cameras, references and these targets ``(batch, targets)``.

        A scene whose tokens are made keeps them.
        """
        assert isinstance(scene, Rae3dScene)
        if scene.tokens is not None:
            return scene
        return self.with_tokens(replace(scene, world=RelativeWorld.of(scene.cameras, cameras)))

    @torch.no_grad()
    def with_tokens(self, scene: Rae3dScene) -> Rae3dScene:
        """The scene with the tokens of its references, in the world that it has."""
        assert scene.images is not None
        features = None if self.features is None else self.features(scene.images)
        rays = self._rays(scene, scene.cameras)
        visible = torch.ones(rays.shape[:2], dtype=torch.bool, device=rays.device)
        with autocast(rays.device, self.precision):
            tokens = self.model.encode(scene.images, rays, visible, features, scene.world.bounds.to(rays))
        return replace(scene, tokens=tokens)

    @torch.no_grad()
    def render(
        self,
        scene: Scene,
        cameras: Cameras,
        *,
        seeds: Sequence[int],
        independent: bool = False,
        depth: bool = True,
        on_step: OnStep | None = None,
    ) -> Rendering:
        """Decode targets, none of which sees another; nothing about them is random.

        Raises:
            KaleidosceneError: No targets, or not one seed for each.
        """
        del independent
        assert isinstance(scene, Rae3dScene)
        check_targets(cameras, seeds)
        scene = self.expect(scene, cameras)
        assert scene.tokens is not None
        rays, step, parts = self._rays(scene, cameras), self.settings.targets_at_once, []
        for some in in_chunks(rays.shape[1], step, on_step):
            with autocast(rays.device, self.precision):
                parts.append(self.model.decode(scene.tokens, rays[:, some], scene.world.bounds.to(rays), points=depth))
        images = torch.cat([part.images for part in parts], dim=1).clamp(0, 1)
        if self.settings.model.points is None or not depth:
            return Rendering(images, cameras)
        return self._with_points(images, parts, scene, cameras)

    def _with_points(self, images: Tensor, parts: list[Decoded], scene: Rae3dScene, cameras: Cameras) -> Rendering:
        points, confidence = (
            torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("points", "confidence")
        )
        met = self._met(points, scene)
        points = scene.world.leave_points(points)
        depth = depth_along_axis(cameras, points)
        return Rendering(images, cameras, depth.clamp_min(0) * met, points, confidence)

    def _met(self, points: Float[Tensor, "batch targets h w 3"], scene: Rae3dScene) -> Tensor:
        """Which points are of something: the background's are pulled to the first camera, the origin."""
        if self.settings.background == "any":
            return points.abs().sum(-1) > NOTHING_MET
        middle = scene.world.bounds.to(points)[:, None, None, :3].norm(dim=-1)
        return points.norm(dim=-1) > NEAREST * middle

    def _rays(self, scene: Rae3dScene, cameras: Cameras) -> Tensor:
        return plucker_rays(scene.world.enter(cameras).to(torch.float32).to(self.device))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.latents.device
