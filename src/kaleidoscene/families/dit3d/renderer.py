"""Rendering with 3DDiT: what is seen, and poses, to the tokens of a whole scene, drawn once; tokens to any view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.dit3d.checkpoint import Autoencoder
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.rae3d.plan import view_tokens
from kaleidoscene.families.rae3d.scene import Rae3dScene
from kaleidoscene.families.rae3d.world import RelativeWorld
from kaleidoscene.flow.guidance import guide
from kaleidoscene.flow.solvers import Velocity, integrate
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import plucker_rays
from kaleidoscene.nn.precision import Precision, autocast
from kaleidoscene.randomness import draw_noise, seeded
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.renderer import (
    OnStep,
    PlainRenderer,
    Rendering,
    Scene,
    check_references,
    check_targets,
    request_seed,
)

CAPABILITIES = Capabilities(
    needs_cameras=True, renders_depth=True, renders_points=True, samples=True, generates=True, any_lens=True,
    unit_of_cameras=True,
)  # fmt: skip
_NOISE = 34


@dataclass(frozen=True, eq=False)
class Dit3dScene:
    """References, the poses that will be asked for, and what was drawn for them.

    Attributes:
        seen: References as the autoencoder keeps them, without tokens.
        poses: Of targets, in the world of the references; None where they are not known.
        drawn: Scenes of the autoencoder by the seed of the request that they were drawn for; of None, what is decoded
            without drawing.
        generated: How many of the references were rendered (:meth:`Dit3dRenderer.extend`).
        label: Class of what is to be drawn; None: any.
    """

    seen: Rae3dScene
    poses: Cameras | None = None
    drawn: dict[int | None, Rae3dScene] = field(default_factory=dict)
    generated: int = 0
    label: int | None = None

    @property
    def num_references(self) -> int:
        """References."""
        return self.seen.num_references

    @property
    def cameras(self) -> Cameras:
        """Of the references, as they were given."""
        return self.seen.cameras

    @property
    def is_kept(self) -> bool:
        """Whether it is of a file, and nothing else can be drawn of it."""
        return self.seen.images is None

    @property
    def nbytes(self) -> int:
        """Of references and drawn tokens."""
        return self.seen.nbytes + sum(scene.nbytes for scene in self.drawn.values())


class Dit3dRenderer(PlainRenderer):
    """A 3DDiT network with its autoencoder, ready to render.

    Args:
        model: The network, in evaluation mode.
        settings: Of its checkpoint.
        autoencoder: Makes tokens of what is seen, and views of tokens.
        precision: Autocast type of the network's matrix products.
    """

    def __init__(
        self, model: Dit3d, settings: Dit3dSettings, autoencoder: Autoencoder, *, precision: Precision = "fp32"
    ) -> None:
        self.model, self.settings, self.autoencoder = model, settings, autoencoder
        self.precision: Precision = precision
        self.image_size = autoencoder.renderer.image_size
        can = autoencoder.renderer.capabilities
        self.capabilities = replace(
            CAPABILITIES, renders_depth=can.renders_depth, renders_points=can.renders_points
        )  # fmt: skip

    def encode(self, images: Float[Tensor, "batch refs 3 h w"], cameras: Cameras | None) -> Dit3dScene:
        """Keep references; tokens are drawn when it is known which views will be asked for.

        Args:
            images: RGB in [0, 1].
            cameras: ``(batch, refs)``, world units.

        Raises:
            KaleidosceneError: See :class:`kaleidoscene.rendering.renderer.Renderer`.
        """
        return Dit3dScene(self.autoencoder.renderer.encode(images, cameras))

    def expect(self, scene: Scene, cameras: Cameras) -> Dit3dScene:
        """The scene in units of all cameras, with the poses of these targets ``(batch, targets)`` in its condition."""
        assert isinstance(scene, Dit3dScene)
        if scene.poses is not None or scene.is_kept:
            return scene
        world = RelativeWorld.of(scene.cameras, cameras)
        return Dit3dScene(replace(scene.seen, world=world), self._some_of(cameras), generated=scene.generated)

    def imagine(self, cameras: Cameras, label: int | None = None) -> Dit3dScene:
        """A scene of which nothing is seen, for targets ``(batch, targets)``; its world is that of the first.

        Args:
            cameras: Of the targets.
            label: Class of what is to be drawn; None: any.

        Raises:
            KaleidosceneError: The network has no labels, or not this one.
        """
        classes = self.settings.model.classes
        if label is not None and not classes:
            raise KaleidosceneError("This model was not trained with class labels, and takes none.")
        if label is not None and not 0 <= label < classes:
            raise KaleidosceneError(f"Class labels run from 0 to {classes - 1}, got {label}.")
        blank = torch.zeros(cameras.batch_shape[0], 0, 3, *self.image_size, device=self.autoencoder.renderer.device)
        seen = Rae3dScene(blank, cameras[:, :0], RelativeWorld.of(cameras), None)
        return Dit3dScene(seen, self._some_of(cameras), label=label)

    def _some_of(self, cameras: Cameras) -> Cameras:
        """Those of targets that stand in the condition."""
        count = cameras.batch_shape[1]
        kept = min(count, self.settings.sampling.poses)
        return cameras[:, [round(n * (count - 1) / max(kept - 1, 1)) for n in range(kept)]]

    def extend(
        self, scene: Scene, images: Float[Tensor, "batch new 3 h w"], cameras: Cameras, *, keep: Sequence[int]
    ) -> Dit3dScene:
        """A scene that is drawn anew, with views that were rendered of it as further references (ours).

        Its world, the poses in its condition and the noise of a request stay; so does the way it is made, which is told
        by the references that were given.

        Args:
            scene: As it was.
            images: Rendered views.
            cameras: Theirs.
            keep: References of it that stay, the given ones first.

        Raises:
            KaleidosceneError: The scene is of a file.
        """
        assert isinstance(scene, Dit3dScene)
        if scene.seen.images is None:
            raise KaleidosceneError("A kept scene of dit3d cannot be drawn anew; begin with its images.")
        check_references(images, cameras, self.image_size)
        old, given = list(keep), scene.num_references - scene.generated
        together = torch.cat([scene.seen.images[:, old], images.to(scene.seen.images)], dim=1)
        known = scene.cameras[:, old]
        poses = torch.cat([known.world_from_cam, cameras.world_from_cam.to(known.world_from_cam)], dim=1)
        lenses = torch.cat([known.intrinsics, cameras.intrinsics.to(known.intrinsics)], dim=1)
        seen = replace(scene.seen, images=together, cameras=Cameras(poses, lenses, known.image_size))
        generated = images.shape[1] + sum(number >= given for number in old)
        return Dit3dScene(seen, scene.poses, generated=generated, label=scene.label)

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
        """Decode targets from the tokens of the scene, which are drawn at the first call of a request, or made of the
        references where there are enough (``Dit3dSampling.decode_from``).

        All targets of a request (:func:`kaleidoscene.rendering.renderer.request_seed`) are views of one drawn scene,
        in whatever calls they come.

        Raises:
            KaleidosceneError: No targets, or not one seed for each.
        """
        assert isinstance(scene, Dit3dScene)
        check_targets(cameras, seeds)
        tokens = self.draw(self.expect(scene, cameras), request_seed(seeds), on_step)
        return self.autoencoder.renderer.render(tokens, cameras, seeds=seeds, independent=independent, depth=depth)

    @torch.no_grad()
    def draw(self, scene: Scene, seed: int, on_step: OnStep | None = None) -> Rae3dScene:
        """What the requests of a seed are decoded from, drawn unless that is done; a kept scene is what was drawn.

        Args:
            scene: Of which it is known what will be asked for (:meth:`expect`).
            seed: Of the requests.
            on_step: Progress.
        """
        assert isinstance(scene, Dit3dScene)
        if scene.is_kept:
            return next(iter(scene.drawn.values()))
        drawn = self.settings.route(scene.num_references - scene.generated) == "diffusion"
        key = seed if drawn else None
        if key not in scene.drawn:
            own = self.autoencoder.renderer
            scene.drawn[key] = own.with_tokens(scene.seen) if key is None else self._draw(scene, key, on_step)
        return scene.drawn[key]

    def _draw(self, scene: Dit3dScene, seed: int, on_step: OnStep | None) -> Rae3dScene:
        """The autoencoder's scene with tokens that are drawn."""
        sampling, config = self.settings.sampling, self.settings.model
        poses_alone = self._condition(scene, seen=False)
        batch = len(poses_alone)
        generators = [seeded(seed, _NOISE, number) for number in range(batch)]
        noise = draw_noise((batch, config.tokens, config.channels), generators).to(poses_alone)
        times = self.settings.times(sampling.steps)
        field_of = self._velocity(poses_alone)
        if scene.num_references or scene.label is not None:
            seen = self._condition(scene, seen=True) if scene.num_references else poses_alone
            field_of = guide(self._velocity(seen, scene.label), field_of, sampling.guidance)
        done = None if on_step is None else (lambda step: on_step(step, sampling.steps))
        tokens = self.autoencoder.statistics.leave(integrate(field_of, noise, times, on_step=done))
        return replace(scene.seen, tokens=tokens)

    def _velocity(self, condition: Tensor, label: int | None = None) -> Velocity:
        """The field under a condition; without a label that of any class."""
        labels, classes = None, self.settings.model.classes
        if classes:
            labels = condition.new_full((len(condition),), classes if label is None else label, dtype=torch.long)

        def velocity(x: Tensor, t: float) -> Tensor:
            with autocast(x.device, self.precision):
                return self.model(x, x.new_full((len(x),), t), condition, labels).float()

        return velocity

    def _condition(self, scene: Dit3dScene, *, seen: bool) -> Float[Tensor, "batch latents channels"]:
        """Tokens of references and poses, of mean 0 and variance 1; with ``seen`` off of poses alone."""
        own, world = self.autoencoder.renderer, scene.seen.world
        assert scene.poses is not None and scene.seen.images is not None
        images = scene.seen.images
        both = [scene.cameras, scene.poses]
        rays = torch.cat([plucker_rays(world.enter(c).to(torch.float32).to(images.device)) for c in both], dim=1)
        batch, refs, unseen = images.shape[0], images.shape[1], scene.poses.batch_shape[1]
        blank = images.new_zeros(batch, unseen, *images.shape[2:])
        visible = torch.arange(refs + unseen, device=images.device).expand(batch, -1) < (refs if seen else 0)
        features = None
        if own.features is not None:
            unknown = images.new_zeros(
                batch, unseen, view_tokens(own.settings.model, self.image_size), own.settings.model.width
            )
            features = torch.cat([own.features(images), unknown], dim=1) if refs else unknown
        with autocast(images.device, own.precision):
            tokens = own.model.encode(torch.cat([images, blank], dim=1), rays, visible, features, world.bounds.to(rays))
        return self.autoencoder.statistics.enter(tokens)
