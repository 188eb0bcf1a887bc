"""New views from wherever somebody looks, of one scene that is encoded once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.photos import intrinsics_of
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.geometry.poses import focal_over_side
from kaleidoscene.geometry.view import View
from kaleidoscene.rendering.reconstruction import NO_DISTANCE, Reconstruction, expect_all_around
from kaleidoscene.rendering.renderer import TARGET_SEEDS
from kaleidoscene.rendering.system import Drafting


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """A view and what it took.

    Attributes:
        image: RGB in [0, 1].
        depth: Along the optical axis in world units; None of models that know none.
        seconds: It took.
        focal: Length, pixels.
    """

    image: Float[Tensor, "3 h w"]
    depth: Float[Tensor, "h w"] | None
    seconds: float
    focal: float


class LiveScene:
    """References of a capture, ready for one view after the other; any number of threads may ask.

    Args:
        model: Any.
        capture: Posed views.
        indices: Which of them are references.
        seed: As of a request with one target, which the views equal.
    """

    def __init__(self, model: Model, capture: Capture, indices: Sequence[int], seed: int = 0) -> None:
        references = capture.select(list(indices))
        self.asked, self.model = model, model.for_shape(references.cameras)
        self.indices, self.seed = tuple(indices), seed
        self._centred = SceneNormalisation(references.origin(), torch.ones(()))
        images, cameras = self.model.prepare(references)
        inside = self._centred.normalise(cameras).reshape(1, len(references))
        renderer = self.model.system.renderer
        self._scene = renderer.encode(images[None], inside)
        view = View(cameras[0], references.origin().to(cameras.world_from_cam), references.up())
        if self.model.capabilities.unit_of_cameras and view.distance > NO_DISTANCE:
            # Whoever moves about sees one scene, in one unit, wherever from: that of cameras all around it.
            self._scene = expect_all_around(self.model.system, self._scene, view)
        self._lock = Lock()

    @classmethod
    def of(cls, model: Model, made: Reconstruction) -> LiveScene:
        """A scene that was made before, of all its photographs.

        Args:
            model: That made it.
            made: In whose world everything is.
        """
        scene = object.__new__(cls)
        scene.asked = scene.model = model
        scene.indices, scene.seed = tuple(range(len(made.images))), made.seed
        scene._centred, scene._scene = SceneNormalisation(made.origin, torch.ones(())), made.scene
        scene._lock = Lock()
        return scene

    @property
    def any_lens(self) -> bool:
        """Whether views may have any field of view."""
        return self.model.capabilities.any_lens

    @property
    def intrinsics(self) -> Float[Tensor, "3 3"]:
        """The lens of the model, or its usual one."""
        h, _ = size = self.model.image_size
        return intrinsics_of(self.model.system.focal_over_height * h, size).float()

    def lens(self, degrees: float | None) -> Float[Tensor, "3 3"]:
        """Intrinsics of a vertical field of view, for models that show any; else, and for None, the model's own."""
        if degrees is None or not self.any_lens:
            return self.intrinsics
        h, _ = size = self.model.image_size
        return intrinsics_of(focal_over_side(degrees) * h, size).float()

    def camera(self, world_from_cam: Float[Tensor, "4 4"], degrees: float | None = None) -> Cameras:
        """A camera of the model in the world of the capture, ``(1,)``.

        Args:
            world_from_cam: Its pose.
            degrees: As of :meth:`lens`.
        """
        poses = world_from_cam[None].float()
        return Cameras(poses, self.lens(degrees)[None].to(poses), self.model.image_size)

    @property
    def drafts(self) -> bool:
        """Whether views can be had sooner, of fewer pixels."""
        return isinstance(self.model.system.renderer, Drafting)

    def draft(self, world_from_cam: Float[Tensor, "4 4"], degrees: float | None = None) -> LiveFrame:
        """Like :meth:`view`, sooner and of fewer pixels; ``focal`` stays that of the whole."""
        renderer, seen = self.model.system.renderer, self.model.lens(self.camera(world_from_cam, degrees))
        assert isinstance(renderer, Drafting)
        inside = self._centred.normalise(seen).reshape(1, 1)
        with self._lock:
            started = time.perf_counter()
            found = renderer.draft(renderer.expect(self._scene, inside), inside, seeds=[self.seed * TARGET_SEEDS])
            seconds = time.perf_counter() - started
        return LiveFrame(found.images[0, 0].cpu(), None, seconds, float(seen.intrinsics[0, 1, 1]))

    def view(self, world_from_cam: Float[Tensor, "4 4"], degrees: float | None = None) -> LiveFrame:
        """What is seen from a pose in the world of the capture; ``degrees`` as of :meth:`lens`."""
        return next(self.film(self.camera(world_from_cam, degrees)))

    def film(self, cameras: Cameras) -> Iterator[LiveFrame]:
        """The views of a path ``(frames,)``, each as a rendering of the whole path has it.

        Of models whose unit is told by all cameras, or that draw a scene for them, as a path all around has it.
        """
        renderer = self.model.system.renderer
        seen = self.model.lens(cameras)
        inside = self._centred.normalise(seen).reshape(1, len(cameras))
        with self._lock:
            scene = renderer.expect(self._scene, inside)
        for index in range(len(cameras)):
            with self._lock:
                started = time.perf_counter()
                one = inside[:, index : index + 1]
                found = renderer.render(scene, one, seeds=[self.seed * TARGET_SEEDS + index], independent=True)
                seconds = time.perf_counter() - started
            depth = None if found.depths is None else found.depths[0, 0].cpu()
            yield LiveFrame(found.images[0, 0].cpu(), depth, seconds, float(seen.intrinsics[index, 1, 1]))

    def with_seed(self, seed: int) -> LiveScene:
        """The same references with another seed."""
        other = object.__new__(LiveScene)
        other.__dict__ = {**self.__dict__, "seed": seed}
        return other


def letterbox(frame: LiveFrame, aspect: float) -> LiveFrame:
    """A view in the middle of a canvas that is as high: with white (of no depth) beside it, or without its own sides.

    A canvas shows the model's angle of view from its top to its bottom, so that what is drawn over it fits.

    Args:
        frame: To be laid.
        aspect: Width over height of the canvas.
    """
    wide, w = max(1, round(frame.image.shape[-2] * aspect)), frame.image.shape[-1]
    left = (wide - w) // 2
    image = torch.nn.functional.pad(frame.image, (left, wide - w - left), value=1.0)
    depth = None if frame.depth is None else torch.nn.functional.pad(frame.depth, (left, wide - w - left))
    return replace(frame, image=image, depth=depth)
