"""Rendering with RnG: photographs to a scene, a scene and cameras to images, depths and points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.families.rng.camera_encoding import decode_cameras
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.scene import RngScene
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.world import SourceWorld, first_pose
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
    needs_cameras=False, estimates_cameras=True, renders_depth=True, renders_points=True, takes_back_views=False,
    any_lens=True,
)  # fmt: skip
NOTHING_MET = 0.01
"""Points whose coordinates in the world of the first source sum up to less are background (method B.10)."""


class RngRenderer(PlainRenderer):
    """An RnG network, ready to render.

    Args:
        model: The network, in evaluation mode.
        settings: Of its checkpoint.
        features: Frozen encoder of sources, where the network has none of its own.
        precision: Autocast type of matrix products; heads and geometry stay fp32.
    """

    def __init__(
        self,
        model: Rng,
        settings: RngSettings,
        features: FeatureEncoder | None = None,
        *,
        precision: Precision = "fp32",
    ) -> None:
        self.model, self.settings, self.features = model, settings, features
        self.precision: Precision = precision
        self.image_size = settings.image_size
        self.capabilities = replace(CAPABILITIES, estimates_cameras=settings.model.camera is not None)

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "batch refs 3 h w"], cameras: Cameras | None) -> RngScene:
        """Make a scene of photographs.

        Args:
            images: RGB in [0, 1]; the first one fixes the world.
            cameras: ``(batch, refs)``. The network does not look at them: they say in which world, of what unit,
                targets are asked for (of them all the first one and its distance from the origin).

        Raises:
            KaleidosceneError: See :class:`kaleidoscene.rendering.renderer.Renderer`; the first camera is at the origin.
        """
        check_references(images, cameras, self.image_size, needs_cameras=False)
        images = images.to(self._like.device)
        features = None if self.features is None else self.features(images)
        with autocast(images.device, self.precision):
            sources = self.model.encode(images, features)
        world = SourceWorld.itself(len(images)) if cameras is None else SourceWorld.of(cameras)
        estimated = None if sources.cameras is None else world.leave(self._estimated(sources.cameras[-1]))
        return RngScene(sources, world, estimated if cameras is None else cameras, estimated)

    def _estimated(self, numbers: Float[Tensor, "batch views 9"]) -> Cameras:
        """Cameras in the world of the first source, which by definition stands where it stands; on the CPU, as all."""
        cameras = decode_cameras(numbers.cpu(), self.image_size)
        poses = cameras.world_from_cam.clone()
        poses[:, 0] = first_pose(poses)
        return replace(cameras, world_from_cam=poses)

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
        """Render targets, none of which sees another; nothing about them is random.

        Raises:
            KaleidosceneError: No targets, or not one seed for each.
        """
        del independent
        assert isinstance(scene, RngScene)
        check_targets(cameras, seeds)
        targets, step = cameras.batch_shape[1], self.settings.targets_at_once
        inside = scene.world.enter(cameras)
        rays, chunks = plucker_rays(inside.to(self._like)), in_chunks(targets, step, on_step)
        with autocast(rays.device, self.precision):
            if not depth:
                alone = [self.model.colours_alone(scene.sources, rays[:, some]) for some in chunks]
                return Rendering(torch.cat(alone, dim=1), cameras)
            parts = [self.model.render(scene.sources, rays[:, some]) for some in chunks]
        colours, points, confidence = (
            torch.cat([getattr(part, name) for part in parts], dim=1) for name in ("colours", "points", "confidence")
        )
        depths = depth_of(points, inside) * scene.world.scale.to(points)[:, None, None, None]
        return Rendering(colours, cameras, depths, scene.world.leave_points(points), confidence)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self._like.device

    @property
    def _like(self) -> Tensor:
        """Has the device and precision of the network's weights."""
        return self.model.embedder.rays.weight


def depth_of(points: Float[Tensor, "batch views h w 3"], cameras: Cameras) -> Float[Tensor, "batch views h w"]:
    """Depth along the optical axis of the points of a view, 0 where nothing is met (method B.11).

    Args:
        points: In the world of the first source.
        cameras: They were seen with, in the same world.
    """
    return depth_along_axis(cameras, points).clamp_min(0) * (points.abs().sum(-1) > NOTHING_MET)
