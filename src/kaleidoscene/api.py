"""The Python interface: load a model, render a capture, save what came out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture, read_photographs
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.registry import load_folder, require
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.geometry.origin import scene_origin
from kaleidoscene.geometry.view import mean_up
from kaleidoscene.images.fitting import describe_fit
from kaleidoscene.machine import check_device
from kaleidoscene.memory import check_memory
from kaleidoscene.reconstruction.fusion import PointViews
from kaleidoscene.rendering.capabilities import Capabilities
from kaleidoscene.rendering.fitting import model_lens, prepare_views, with_estimated_cameras
from kaleidoscene.rendering.ordering import Chunk, Finished, RenderPlan, render_in_order
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.rendering.rendered import RenderedViews
from kaleidoscene.rendering.renderer import OnStep
from kaleidoscene.rendering.system import Magnifying, Routed, Sampler, System


def load(name: str | Path = "default", *, device: str = "cpu", precision: str = "fp32") -> Model:
    """Load a model: ``"default"`` (ships with the package), a checkpoint or run folder, or a hub id.

    Args:
        name: What to load.
        device: Where to put it.
        precision: ``fp32``, ``bf16`` or ``fp16`` for matrix products.

    Raises:
        KaleidosceneError: There is no such model, or it does not load strictly.
    """
    check_device(device)
    return Model(load_folder(resolve(name), device, precision), device)


class Model:
    """A loaded checkpoint of any family."""

    def __init__(self, system: System, device: str = "cpu") -> None:
        self.system, self.device = system, device

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        return self.system.image_size

    @property
    def capabilities(self) -> Capabilities:
        """What may be asked of it."""
        return self.system.renderer.capabilities

    def require(self, capability: str, what: str) -> None:
        """Refuse what it cannot do; see :func:`kaleidoscene.families.registry.require`."""
        require(capability, what, self.system.family, self.capabilities)

    def route(self, references: int) -> str | None:
        """What it does with so many references (:class:`kaleidoscene.rendering.system.Routed`); None of a model that
        has one way.
        """
        return self.system.route(references) if isinstance(self.system, Routed) else None

    def with_sampling(self, *, steps: int | None = None, guidance: float | None = None) -> Model:
        """The same model with another number of denoising steps or guidance scale.

        Raises:
            KaleidosceneError: It does not draw its views in steps, or not in so many.
        """
        if steps is None and guidance is None:
            return self
        self.require("samples", "A number of steps or a guidance scale")
        assert isinstance(self.system, Sampler)
        try:
            return Model(self.system.with_sampling(steps=steps, guidance=guidance), self.device)
        except ValueError as error:
            raise KaleidosceneError(str(error)) from error

    def at_size(self, pixels: int | None) -> Model:
        """The same model with views of so many pixels on their longer side; None leaves it as it is.

        What references show is copied at this size; what none shows is painted at the size of training, and enlarged.

        Args:
            pixels: A multiple of the size that it was trained at.

        Raises:
            KaleidosceneError: They are no such multiple, or the model copies no pixels.
        """
        system, now = self.system, max(self.system.image_size)
        own = now // (system.magnification if isinstance(system, Magnifying) else 1)
        if pixels is None or pixels == now:
            return self
        if pixels < own or pixels % own:
            raise KaleidosceneError(f"Views of {pixels} pixels: expected a multiple of {own}, what this model renders.")
        if not isinstance(system, Magnifying):
            raise KaleidosceneError(f"Views of {pixels} pixels: models of {self.system.family} render {own} alone.")
        return Model(system.magnified(pixels // own), self.device)

    def for_shape(self, cameras: Cameras) -> Model:
        """The same model at that of its image sizes whose aspect ratio is nearest to that of some cameras."""

        def stretch(size: tuple[int, int]) -> float:
            (h, w), (height, width) = size, cameras.image_size
            return abs(math.log(w * height / (h * width)))

        return Model(self.system.with_image_size(min(self.system.image_sizes, key=stretch)), self.device)

    def prepare(self, capture: Capture, *, masked: bool = False) -> tuple[Float[Tensor, "views 3 h w"], Cameras]:
        """Images and cameras of a capture at the size and field of view of the model, in the capture's world.

        Args:
            capture: What to prepare.
            masked: Lay its masks on white.
        """
        return prepare_views(self.system, capture, masked=masked)

    def describe_fit(self, capture: Capture) -> list[str]:
        """What :meth:`prepare` cuts off or leaves white, as sentences for users."""
        if self.capabilities.any_lens:
            return []
        return describe_fit(capture.cameras, self.image_size, self.system.focal_over_height)

    def lens(self, cameras: Cameras) -> Cameras:
        """The same poses with the lens and image size that the model renders.

        Raises:
            KaleidosceneError: The focal length changes along the path, which the model cannot show.
        """
        return model_lens(self.system, cameras)

    def estimate_cameras(self, capture: Capture, *, masked: bool = False) -> Capture:
        """A capture of images with the cameras that the model estimates, in the world of its scenes.

        A lens that is known, from EXIF say, is kept; the model's estimate takes the place of one that was guessed.
        The origin of that world stays the origin, since its unit is told from there. Up is told by cameras that are
        held level (:func:`kaleidoscene.geometry.upright.level_up`).

        Args:
            capture: Images without cameras.
            masked: Lay its masks on white.

        Raises:
            KaleidosceneError: The model needs cameras.
        """
        self.require("estimates_cameras", f"{capture.name}, {len(capture)} images without cameras,")
        return with_estimated_cameras(self.system, capture, masked=masked)

    def reconstruct(
        self, photographs: Capture | str | Path | Sequence[str | Path], *, masked: bool = False, seed: int = 0
    ) -> Reconstruction:
        """Photographs of one object to a scene: cameras, views with depth, a cloud of points.

        The world is that of the cameras, where there are some; else that of the object: z is up, and the first camera
        is at distance 1.

        Args:
            photographs: Image files, or a capture or where one lies, of which all views are used. Cameras that it has
                say in which world everything is; a model that estimates cameras does not look at them otherwise.
            masked: Lay the masks of the capture on white.
            seed: Of models that draw what no image shows; the same seed gives the same scene.

        Raises:
            KaleidosceneError: The model tells no points, or needs cameras and there are none.
        """
        if isinstance(photographs, str | Path):
            photographs = read_capture(photographs)
        capture = photographs if isinstance(photographs, Capture) else read_photographs(photographs)
        self.require("renders_points", f"Reconstructing {capture.name}")
        if not capture.is_posed:
            capture = self.estimate_cameras(capture, masked=masked).upright()
        images, cameras = self.prepare(capture, masked=masked)
        return Reconstruction.of(self.system, images, cameras, capture.origin(), capture.up(), seed=seed)

    def encode(
        self,
        images: Float[Tensor, "views 3 h w"],
        cameras: Cameras,
        *,
        origin: Float[Tensor, " 3"] | None = None,
        up: Float[Tensor, " 3"] | None = None,
        seed: int = 0,
    ) -> Reconstruction:
        """Images and cameras, as tensors, to a scene of which any view is rendered; as :meth:`reconstruct` of captures.

        Args:
            images: RGB in [0, 1], of the model's size (:meth:`prepare` brings those of captures to it).
            cameras: Theirs, ``(views,)``, with the lens of the images.
            origin: Of the object, in the world of the cameras; by default what they look at.
            up: In that world; by default that of the cameras.
            seed: As of :meth:`reconstruct`.

        Raises:
            KaleidosceneError: The model tells no points, or images and cameras do not fit it or each other.
        """
        self.require("renders_points", "Encoding images")
        if images.ndim != 4 or len(images) != len(cameras):
            shape, count = tuple(images.shape), len(cameras)
            raise KaleidosceneError(f"Images of shape {shape} with {count} cameras: expected ({count}, 3, h, w).")
        origin = scene_origin(cameras) if origin is None else origin
        up = mean_up(cameras) if up is None else up
        return Reconstruction.of(self.system, images, cameras, origin, up, seed=seed)

    def open_scene(self, path: str | Path) -> Reconstruction:
        """A reconstruction that was saved (:meth:`Reconstruction.save`), with the model that made it.

        Raises:
            KaleidosceneError: The file is damaged, or of another model.
        """
        return Reconstruction.load(path, self.system)

    @overload
    def render(self, capture: Reconstruction, cameras: Cameras) -> PointViews: ...

    @overload
    def render(
        self, capture: Capture, cameras: Cameras, *, seed: int = 0, plan: RenderPlan | None = None, depth: bool = True
    ) -> RenderedViews: ...

    def render(
        self,
        capture: Capture | Reconstruction,
        cameras: Cameras,
        *,
        seed: int = 0,
        plan: RenderPlan | None = None,
        depth: bool = True,
    ) -> RenderedViews | PointViews:
        """Render new views from all views of ``capture``, or from what :meth:`encode` or :meth:`reconstruct` made.

        Args:
            capture: The references (``capture.select`` chooses them), or a scene; of that views come with depth, points
                and confidence, and no other argument counts.
            cameras: Of the new views, in the world of the capture; poses count, the lens is the model's.
            seed: The same seed gives the same images.
            plan: Together, each by itself or one after the other; by default the model's own.
            depth: Depth maps as well, of models that render them; without, a network that makes them does not run.

        Raises:
            KaleidosceneError: Zero targets, more memory is needed than there is, or a scene is of another model.
        """
        if isinstance(capture, Reconstruction):
            if capture.system is not self.system:
                raise KaleidosceneError("The scene was made by another model: render it with that one.")
            if seed or plan is not None or not depth:
                raise KaleidosceneError("Views of a scene that is made have no seed and no plan, and come with depth.")
            return capture.render(self.lens(cameras))
        plan = plan or self.system.default_plan
        chunks = list(self.render_chunks(capture, cameras=cameras, seed=seed, plan=plan, depth=depth))
        order = torch.tensor([index for chunk in chunks for index in chunk.indices]).argsort()
        images = torch.cat([chunk.images for chunk in chunks])[order]
        maps = [chunk.depths for chunk in chunks if chunk.depths is not None]
        depths = torch.cat(maps)[order].cpu() if maps else None
        return RenderedViews(images.cpu(), self.lens(cameras), self.prepare(capture)[0], capture, depths)

    def render_chunks(
        self,
        capture: Capture,
        *,
        cameras: Cameras,
        seed: int,
        plan: RenderPlan,
        masked: bool = False,
        depth: bool = True,
        on_step: OnStep | None = None,
        finished: Finished | None = None,
    ) -> Iterator[Chunk]:
        """As :meth:`render`, chunk by chunk as they come; what ``finished`` knows is not rendered again.

        Raises:
            KaleidosceneError: Zero targets, or more memory is needed than there is.
        """
        if not len(cameras):
            raise KaleidosceneError("There is nothing to render: zero targets.")
        if plan.mode == "autoregressive":
            self.require("takes_back_views", "Autoregressive rendering")
        self._check_memory(len(capture), len(cameras), plan)
        images, reference_cameras = self.prepare(capture, masked=masked)
        centre = SceneNormalisation(capture.origin(), torch.ones(()))
        reference_cameras, targets = centre.normalise(reference_cameras), centre.normalise(self.lens(cameras))
        scene = self.system.renderer.encode(images[None], reference_cameras.reshape(1, len(capture)))
        yield from render_in_order(
            self.system.renderer, scene, reference_cameras, targets, plan,
            seed=seed, depth=depth, on_step=on_step, finished=finished,
        )  # fmt: skip

    def _check_memory(self, references: int, targets: int, plan: RenderPlan) -> None:
        chunk = plan.in_one_call(targets)
        references = max(references, plan.max_references) if plan.mode == "autoregressive" else references
        independent = plan.mode == "independent"

        def needed(count: int) -> int:
            return self.system.cost(references, count, independent=independent).memory

        check_memory(needed, chunk, device=self.device)
