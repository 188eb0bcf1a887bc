"""Rendering with Kaleido: references to a scene, a scene and cameras to images."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.codecs.codec import Codec
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.flow.guidance import guide
from kaleidoscene.flow.path import velocity_from_data
from kaleidoscene.flow.solvers import Velocity, integrate
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.nn.kv_cache import KVCache
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.randomness import draw_noise
from kaleidoscene.rendering.renderer import OnStep, Rendering, Scene

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True, eq=False)
class KaleidoScene:
    """Clean reference latents with their place in the world, and their keys and values where these can be kept.

    Attributes:
        latents: Latents of the references.
        cameras: Their cameras ``(batch, refs)``, world units.
        normalisation: Origin and scale of the network's world; fixed when the scene is made, or its targets are known.
        features: Auxiliary features of the references.
        cache: Keys and values of a causal model.
        clip: Places of the references in a clip, where they are frames of a video and their cameras mean nothing.
        knows_targets: Whether the scale counts all targets, where it depends on them.
    """

    latents: Float[Tensor, "batch refs c h w"]
    cameras: Cameras
    normalisation: SceneNormalisation
    features: Float[Tensor, "batch refs tokens feature"] | None
    cache: KVCache | None
    clip: ViewPositions | None = None
    knows_targets: bool = False

    @property
    def num_references(self) -> int:
        """References in the scene."""
        return self.latents.shape[1]

    @property
    def nbytes(self) -> int:
        """Memory of latents, features and cache."""
        kept = self.latents.nbytes + (0 if self.cache is None else self.cache.nbytes)
        return kept + (0 if self.features is None else self.features.nbytes)


class KaleidoRenderer:
    """A Kaleido network with its codec, ready to render.

    Args:
        model: The network, in evaluation mode.
        settings: Of its checkpoint.
        codec: Image codec.
        features: Encoder of auxiliary features, if the network takes any.
        precision: Autocast type of matrix products; geometry stays fp32.
        use_cache: Keep keys and values of references (causal models only). None: wherever it is possible.
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
    ) -> None:
        if use_cache and not settings.model.cacheable:
            raise KaleidosceneError(
                "A bidirectional Kaleido model has no exact reference cache; use_cache must be off."
            )
        self.model, self.settings, self.codec, self.features = model, settings, codec, features
        self.sampling: SamplingConfig = settings.sampling
        self.precision: Precision = precision
        self.use_cache = settings.model.cacheable if use_cache is None else use_cache
        self.image_size = settings.image_size

    @property
    def renders_depth(self) -> bool:
        """Never: Kaleido makes images alone."""
        return False

    def changed(
        self,
        *,
        sampling: SamplingConfig | None = None,
        image_size: tuple[int, int] | None = None,
        use_cache: bool | None = None,
    ) -> KaleidoRenderer:
        """The same renderer with another way of sampling, another image size, with or without the cache."""
        use_cache = self.use_cache if use_cache is None else use_cache
        other = KaleidoRenderer(
            self.model, self.settings, self.codec, self.features, precision=self.precision, use_cache=use_cache
        )
        other.sampling = sampling or self.sampling
        other.image_size = image_size or self.image_size
        return other

    @torch.no_grad()
    def encode(
        self,
        images: Float[Tensor, "batch refs 3 h w"],
        cameras: Cameras,
        *,
        normalisation: SceneNormalisation | None = None,
    ) -> KaleidoScene:
        """Make a scene of references.

        Args:
            images: RGB in [0, 1].
            cameras: ``(batch, refs)``, world units.
            normalisation: Origin and scale; by default the world's origin and the farthest reference.

        Raises:
            KaleidosceneError: No reference, or cameras that do not match the images.
        """
        if cameras.batch_shape != tuple(images.shape[:2]):
            raise KaleidosceneError(
                f"Images and cameras do not match in number: {tuple(images.shape[:2])} and {cameras.batch_shape}."
            )
        if not images.shape[1]:
            raise KaleidosceneError("A scene needs at least one reference.")
        if normalisation is None:
            origin = torch.zeros_like(cameras.centres[..., 0, :])
            normalisation = SceneNormalisation.from_cameras(cameras, origin)
        latents = self.codec.encode(images.to(self._device))
        features = None if self.features is None else self.features(images.to(self._device))
        return self._with_cache(KaleidoScene(latents, cameras, normalisation, features, None))

    @torch.no_grad()
    def extend(
        self, scene: Scene, images: Float[Tensor, "batch new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> KaleidoScene:
        """A scene with the references ``keep`` of the old one and new ones behind them, in the old normalisation."""
        assert isinstance(scene, KaleidoScene)
        kept = list(keep)
        latents = torch.cat([scene.latents[:, kept], self.codec.encode(images.to(self._device))], dim=1)
        features = scene.features
        if self.features is not None and features is not None:
            features = torch.cat([features[:, kept], self.features(images.to(self._device))], dim=1)
        poses = torch.cat([scene.cameras.world_from_cam[:, kept], cameras.world_from_cam], dim=1)
        lenses = torch.cat([scene.cameras.intrinsics[:, kept], cameras.intrinsics], dim=1)
        together = Cameras(poses, lenses, cameras.image_size)
        # All references are read anew: their keys know of each other, so that no old ones can be kept exactly.
        grown = KaleidoScene(latents, together, scene.normalisation, features, None, knows_targets=scene.knows_targets)
        return self._with_cache(grown)

    def expect(self, scene: Scene, cameras: Cameras) -> KaleidoScene:
        """The scene with its scale from references and these targets, in models with ``scale_from="all"``."""
        assert isinstance(scene, KaleidoScene)
        if self.settings.scale_from == "references":
            return scene
        return replace(scene, normalisation=_scale_of_all(scene, cameras), knows_targets=True)

    @torch.no_grad()
    def render(
        self,
        scene: Scene,
        cameras: Cameras,
        *,
        seeds: Sequence[int],
        independent: bool = False,
        on_step: OnStep | None = None,
    ) -> Rendering:
        """Render targets by integrating the flow; see :class:`kaleidoscene.rendering.renderer.Renderer`.

        Raises:
            KaleidosceneError: No targets, or not one seed for each.
        """
        assert isinstance(scene, KaleidoScene)
        batch, targets = cameras.batch_shape
        if not targets:
            raise KaleidosceneError("There is nothing to render: zero targets.")
        if len(seeds) != targets:
            raise KaleidosceneError(f"{targets} targets need as many seeds, got {len(seeds)}.")
        shape = scene.latents.shape[2:]
        noise = _noise(batch, shape, seeds)
        scene = scene if scene.knows_targets else self.expect(scene, cameras)
        positions = self._positions(scene.normalisation.normalise(cameras))
        if independent:
            noise, positions, scene = _fold(noise, positions, scene)
        times = self.sampling.schedule.times()
        steps = len(times) - 1
        field = guide(self._field(scene, positions), self._field(None, positions), self.sampling.guidance)
        latents = integrate(
            field, noise.to(self._device), times, solver=self.sampling.solver,
            on_step=None if on_step is None else lambda done: on_step(done, steps),
        )  # fmt: skip
        images = self.codec.decode(latents).float()
        return Rendering(images.reshape(batch, targets, *images.shape[-3:]), cameras)

    @torch.no_grad()
    def continue_video(
        self, frames: Float[Tensor, "batch refs 3 h w"], after: int, *, clip: int, seeds: Sequence[int]
    ) -> Float[Tensor, "batch new 3 h w"]:
        """The frames that follow those of a video: the same network with the frame index in place of the pose.

        Args:
            frames: RGB in [0, 1] at the model's size, neighbouring ones.
            after: How many frames to make.
            clip: T, the frames of a clip in training; known and new ones together must not be more.
            seeds: One for each new frame.

        Raises:
            KaleidosceneError: There are more frames than a clip has, or not one seed for each.
        """
        batch, count = frames.shape[:2]
        if not 1 <= after <= clip - count:
            raise KaleidosceneError(f"{count} frames and {after} new ones do not fit a clip of {clip}.")
        if len(seeds) != after:
            raise KaleidosceneError(f"{after} frames need as many seeds, got {len(seeds)}.")
        times = (torch.arange(count + after, device=self._device) / clip).expand(batch, -1)
        positions = ViewPositions.from_times(times)
        known, new = positions.select(slice(0, count)), positions.select(slice(count, None))
        latents = self.codec.encode(frames.to(self._device))
        features = None if self.features is None else self.features(frames.to(self._device))
        still = Cameras.from_field_of_view(torch.eye(4).expand(batch, count, 4, 4), 1.0, self.image_size)
        scene = KaleidoScene(
            latents, still, SceneNormalisation(torch.zeros(batch, 3), torch.ones(batch)), features, None, known
        )
        field = guide(self._field(self._with_cache(scene), new), self._field(None, new), self.sampling.guidance)
        noise = _noise(batch, latents.shape[2:], seeds)
        out = integrate(field, noise.to(self._device), self.sampling.schedule.times(), solver=self.sampling.solver)
        return self.codec.decode(out).float()

    def _field(self, scene: KaleidoScene | None, positions: ViewPositions) -> Velocity:
        """Velocity of the targets given a scene; without one, of targets alone (the unconditional branch)."""

        def velocity(x: Tensor, t: float) -> Tensor:
            time = torch.full((len(x),), t, device=x.device)
            with self._autocast():
                if scene is None or scene.cache is not None:
                    out = self.model(x, time, positions, 0, cache=None if scene is None else scene.cache)
                else:
                    n = scene.num_references
                    both = self._reference_positions(scene).join(positions)
                    latents = torch.cat([scene.latents, x], dim=1)
                    out = self.model(latents, time, both, n, features=scene.features)
            return velocity_from_data(x, out, time) if self.settings.model.prediction == "data" else out

        return velocity

    def _with_cache(self, scene: KaleidoScene) -> KaleidoScene:
        """Read the references and keep their keys and values, if this renderer does."""
        if not self.use_cache:
            return scene
        batch, count = scene.latents.shape[:2]
        cache = self.model.allocate_cache(batch, count, self._grid(scene.latents), self._dtype)
        positions = self._reference_positions(scene)
        with self._autocast():
            self.model.encode_references(scene.latents, positions, cache, features=scene.features)
        return replace(scene, cache=cache)

    def _reference_positions(self, scene: KaleidoScene) -> ViewPositions:
        return scene.clip or self._positions(scene.normalisation.normalise(scene.cameras))

    def _positions(self, normalised: Cameras) -> ViewPositions:
        return ViewPositions.from_cameras(normalised.to(self._device))

    def _grid(self, latents: Tensor) -> tuple[int, int]:
        size = self.settings.model.patch_size
        return latents.shape[-2] // size, latents.shape[-1] // size

    def _autocast(self):
        return nullcontext() if self.precision == "fp32" else torch.autocast(self._device.type, self._dtype)

    @property
    def _device(self) -> torch.device:
        return self.model.head.weight.device

    @property
    def _dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]


def _noise(batch: int, shape: Sequence[int], seeds: Sequence[int]) -> Float[Tensor, "batch targets c h w"]:
    """Noise of targets, each from its own seed."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return draw_noise((len(seeds), batch, *shape), generators).transpose(0, 1)


def _scale_of_all(scene: KaleidoScene, targets: Cameras) -> SceneNormalisation:
    """The paper's scale: the farthest camera of references and targets is at distance 1."""
    poses = torch.cat([scene.cameras.world_from_cam, targets.world_from_cam], 1)
    lenses = torch.cat([scene.cameras.intrinsics, targets.intrinsics], 1)
    together = Cameras(poses, lenses, targets.image_size)
    return SceneNormalisation.from_cameras(together, scene.normalisation.origin)


def _fold(noise: Tensor, positions: ViewPositions, scene: KaleidoScene) -> tuple[Tensor, ViewPositions, KaleidoScene]:
    """Make every target a scene of its own with the same references."""
    targets = noise.shape[1]
    alone = ViewPositions(
        positions.cam_from_world.reshape(-1, 1, 4, 4), positions.lens.reshape(-1, 1, 4),
        positions.times.reshape(-1, 1), positions.is_video.repeat_interleave(targets),
    )  # fmt: skip

    def repeat(x: Tensor) -> Tensor:
        return x.repeat_interleave(targets, 0)

    cameras = scene.cameras
    normalisation = SceneNormalisation(repeat(scene.normalisation.origin), repeat(scene.normalisation.scale))
    folded = KaleidoScene(
        repeat(scene.latents),
        Cameras(repeat(cameras.world_from_cam), repeat(cameras.intrinsics), cameras.image_size),
        normalisation,
        None if scene.features is None else repeat(scene.features),
        None if scene.cache is None else scene.cache.expand(targets),
    )
    return noise.flatten(0, 1)[:, None], alone, folded
