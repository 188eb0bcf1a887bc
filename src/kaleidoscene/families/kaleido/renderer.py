"""Rendering with Kaleido: references to a scene, a scene and cameras to images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.codecs.codec import Codec
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.encoding import grow_scene, make_scene, with_cache
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.parts import KaleidoParts
from kaleidoscene.families.kaleido.ray_points import Lattice
from kaleidoscene.families.kaleido.refinement import depths_of
from kaleidoscene.families.kaleido.sampling import draw_targets, target_noise
from kaleidoscene.families.kaleido.scene import KaleidoScene, scale_of_all
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.precision import Precision
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.renderer import OnStep, Rendering, Scene, check_references, check_targets

CAPABILITIES = Capabilities(samples=True)


class KaleidoRenderer:
    """A Kaleido network with its codec, ready to render.

    Args:
        model: The network, in evaluation mode.
        settings: Of its checkpoint.
        codec: Image codec.
        features: Encoder of auxiliary features, if the network takes any.
        precision: Autocast type of matrix products; geometry stays fp32.
        use_cache: Keep keys and values of references (causal models only). None: wherever it is possible.
        magnification: How many times larger views are than the network sees them: it says where pixels are copied from.
    """

    def __init__(
        self,
        model: Kaleido,
        settings: KaleidoSettings,
        codec: Codec,
        features: FeatureEncoder | None = None,
        *,
        precision: Precision = "fp32",
        use_cache: bool | None = None,
        magnification: int = 1,
    ) -> None:
        if use_cache and not settings.model.cacheable:
            raise KaleidosceneError(
                "A bidirectional Kaleido model has no exact reference cache; use_cache must be off."
            )
        kept = settings.model.cacheable if use_cache is None else use_cache
        # What cells find are surfaces: models that refine know depth.
        self.capabilities: Capabilities = replace(
            CAPABILITIES, renders_depth=settings.model.refined_points > 0, any_lens=settings.lenses is not None
        )
        self.parts = KaleidoParts(model, settings, codec, features, precision, kept, magnification)
        self.sampling: SamplingConfig = settings.sampling
        h, w = settings.image_size
        self.image_size = (magnification * h, magnification * w)

    @property
    def model(self) -> Kaleido:
        """The network."""
        return self.parts.model

    @property
    def settings(self) -> KaleidoSettings:
        """Of the checkpoint."""
        return self.parts.settings

    def changed(
        self,
        *,
        sampling: SamplingConfig | None = None,
        image_size: tuple[int, int] | None = None,
        use_cache: bool | None = None,
        magnification: int | None = None,
    ) -> KaleidoRenderer:
        """The same renderer with other sampling, another image size or magnification, with or without the cache."""
        parts = self.parts
        other = KaleidoRenderer(
            parts.model, parts.settings, parts.codec, parts.features, precision=parts.precision,
            use_cache=parts.use_cache if use_cache is None else use_cache,
            magnification=magnification or parts.magnification,
        )  # fmt: skip
        other.sampling = sampling or self.sampling
        other.image_size = image_size or self.image_size
        return other

    @torch.no_grad()
    def encode(
        self,
        images: Float[Tensor, "batch refs 3 h w"],
        cameras: Cameras | None,
        *,
        normalisation: SceneNormalisation | None = None,
    ) -> KaleidoScene:
        """Make a scene of references; see :class:`kaleidoscene.rendering.renderer.Renderer`.

        Args:
            images: RGB in [0, 1].
            cameras: ``(batch, refs)``, world units.
            normalisation: Origin and scale; by default the world's origin and the farthest reference.
        """
        check_references(images, cameras, self.image_size)
        assert cameras is not None
        return make_scene(self.parts, images, cameras, normalisation)

    @torch.no_grad()
    def extend(
        self, scene: Scene, images: Float[Tensor, "batch new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> KaleidoScene:
        """A scene with the references ``keep`` of the old one and new ones behind them, in the old normalisation."""
        assert isinstance(scene, KaleidoScene)
        return grow_scene(self.parts, scene, images, cameras, keep)

    @torch.no_grad()
    def expect(self, scene: Scene, cameras: Cameras) -> KaleidoScene:
        """The scene in the scale that all its targets ask for.

        With ``scale_from="all"`` that is of references and targets; otherwise it is that of the references, but for
        targets that would be farther than :data:`kaleidoscene.geometry.normalisation.FARTHEST_TARGET`.
        """
        assert isinstance(scene, KaleidoScene)
        origin = scene.normalisation.origin
        if self.settings.scale_from == "all":
            return replace(scene, normalisation=scale_of_all(scene.cameras, cameras, origin), knows_targets=True)
        bounded = SceneNormalisation.from_references(scene.cameras, cameras, origin).scale
        # A scene keeps a scale that it was given, unless its targets are too far for it, or its references all stand at
        # the origin and told nothing.
        known = ((scene.cameras.centres - origin[..., None, :]).norm(dim=-1).amax(-1) > 0).to(bounded)
        scale = torch.maximum(bounded, known * scene.normalisation.scale)
        if scale.equal(scene.normalisation.scale.to(scale)):
            return replace(scene, knows_targets=True)
        moved = replace(scene, normalisation=SceneNormalisation(origin, scale), cache=None, knows_targets=True)
        return with_cache(self.parts, moved)

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
        """Render targets by integrating the flow; see :class:`kaleidoscene.rendering.renderer.Renderer`.

        Raises:
            KaleidosceneError: No targets, or not one seed for each.
        """
        assert isinstance(scene, KaleidoScene)
        check_targets(cameras, seeds)
        batch, targets = cameras.batch_shape
        scene = scene if scene.knows_targets else self.expect(scene, cameras)
        scale = scene.normalisation.scale
        noise = target_noise(batch, scene.latents.shape[2:], seeds)
        positions = scene.target_positions(cameras)
        if independent:
            noise, positions, scene = _apart(noise, positions, scene)
        steps = self.sampling.schedule.steps
        images, surfaces = draw_targets(
            self.parts, self.sampling, scene, positions, noise,
            None if on_step is None else lambda done: on_step(done, steps),
        )  # fmt: skip
        images = images.reshape(batch, targets, *images.shape[-3:])
        if surfaces is None or not depth:
            return Rendering(images, cameras)
        depths = depths_of(surfaces, positions)[None]  # of latents, which may be smaller than images
        depths = torch.nn.functional.interpolate(depths.flatten(1, 2), images.shape[-2:], mode="nearest-exact")[0]
        depths = depths.reshape(batch, targets, *images.shape[-2:]) * scale.to(depths)[:, None, None, None]
        return Rendering(images, cameras, depths)

    @torch.no_grad()
    def draft(self, scene: Scene, cameras: Cameras, *, seeds: Sequence[int]) -> Rendering:
        """Every second pixel of every second row, for which alone pixels of references are looked for.

        They are those of :meth:`render` with ``independent`` where that takes one step, but for what ``coarse_to_fine``
        leaves out.
        """
        assert isinstance(scene, KaleidoScene)
        check_targets(cameras, seeds)
        scene, lattice = scene if scene.knows_targets else self.expect(scene, cameras), Lattice(stride=2)
        noise = target_noise(len(scene.latents), scene.latents.shape[2:], seeds)
        noise, positions, apart = _apart(noise, scene.target_positions(cameras), scene)
        images, _ = draw_targets(self.parts, self.sampling, apart, positions, noise, lattice=lattice)
        return Rendering(lattice.of(images).unflatten(0, cameras.batch_shape)[:, :, 0], cameras)


def _apart(noise: Tensor, positions: ViewPositions, scene: KaleidoScene) -> tuple[Tensor, ViewPositions, KaleidoScene]:
    """Make every target a scene of its own with the same references."""
    targets = noise.shape[1]
    alone = ViewPositions(
        positions.cam_from_world.reshape(-1, 1, 4, 4), positions.lens.reshape(-1, 1, 4),
        positions.times.reshape(-1, 1), positions.is_video.repeat_interleave(targets),
    )  # fmt: skip
    return noise.flatten(0, 1)[:, None], alone, scene.repeated(targets)
