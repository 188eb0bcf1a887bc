"""The Python interface: load a model, render a capture, save what came out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.registry import load_folder
from kaleidoscene.families.system import System
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.images.fitting import describe_fit, fit_views
from kaleidoscene.memory import check_memory
from kaleidoscene.rendering.ordering import Chunk, Finished, RenderPlan, render_in_order
from kaleidoscene.rendering.outputs import FrameWriter, SheetRow, whole_folder, write_contact_sheet
from kaleidoscene.rendering.renderer import OnStep
from kaleidoscene.training.checkpoint import list_checkpoints

DEFAULT_WEIGHTS = Path(__file__).parent / "weights" / "default"


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


def check_device(device: str) -> None:
    """Raise if a device is not there.

    Raises:
        KaleidosceneError: PyTorch does not know it, or has no such GPU.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise KaleidosceneError(f"Device {device!r} cannot be used here ({str(error).splitlines()[0]}).") from error


def resolve(name: str | Path) -> Path:
    """The checkpoint folder that a name stands for; of a run the last checkpoint.

    Raises:
        KaleidosceneError: There is none.
    """
    if str(name) == "default":
        return DEFAULT_WEIGHTS
    folder = Path(name)
    if folder.is_dir():
        checkpoints = list_checkpoints(folder)
        return checkpoints[-1] if checkpoints else folder
    if str(name).count("/") == 1 and not str(name).startswith((".", "/")):
        return _from_hub(str(name))
    raise KaleidosceneError(
        f"{name}: no such model; expected 'default', a checkpoint folder, or a hub id (owner/name)."
    )


def _from_hub(name: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # noqa: PLC0415  comes with the codecs extra
    except ImportError as error:
        raise KaleidosceneError(f"{name}: hub ids need huggingface_hub: pip install 'kaleidoscene[codecs]'.") from error
    try:
        return Path(snapshot_download(name, allow_patterns=["config.json", "model.safetensors"]))
    except Exception as error:  # the hub client's own and network errors alike
        raise KaleidosceneError(f"{name}: not a local folder, and the hub did not give it ({error}).") from error


@dataclass(frozen=True, eq=False)
class RenderedViews:
    """New views of a capture.

    Attributes:
        images: RGB in [0, 1], in the order of ``cameras``.
        cameras: In the world of the capture, with the model's lens and size.
        references: What they were made from, as the model saw it.
        capture: The references' capture.
    """

    images: Float[Tensor, "targets 3 h w"]
    cameras: Cameras
    references: Float[Tensor, "refs 3 h w"]
    capture: Capture

    def save(
        self, folder: str | Path, *, overwrite: bool = False, truth: Tensor | None = None, fps: float = 24.0
    ) -> Path:
        """Write frames, video.mp4, transforms.json and contact_sheet.png; the folder appears when all is written.

        Args:
            folder: Where to.
            overwrite: Replace a folder that is not empty.
            truth: Real images of the same cameras, for the contact sheet.
            fps: Of the video.
        """
        folder = Path(folder)
        with whole_folder(folder, overwrite=overwrite) as partial:
            writer = FrameWriter(partial, self.cameras, centred=self.capture.centred, fps=fps)
            writer.write(list(range(len(self.images))), self.images)
            writer.finish()
            rows = [SheetRow("references", list(self.references)), SheetRow("new views", list(self.images))]
            if truth is not None:
                rows.append(SheetRow("truth", list(truth)))
            write_contact_sheet(partial / "contact_sheet.png", rows)
        return folder


class Model:
    """A loaded checkpoint of any family."""

    def __init__(self, system: System, device: str = "cpu") -> None:
        self.system, self.device = system, device

    @property
    def image_size(self) -> tuple[int, int]:
        """``(height, width)`` of what it renders."""
        return self.system.image_size

    def with_sampling(self, *, steps: int | None = None, guidance: float | None = None) -> Model:
        """The same model with another number of denoising steps or guidance scale."""
        try:
            return Model(self.system.with_sampling(steps=steps, guidance=guidance), self.device)
        except ValueError as error:
            raise KaleidosceneError(str(error)) from error

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
        images = capture.images(masked=masked)
        return fit_views(images, capture.cameras, self.image_size, self.system.focal_over_height)

    def describe_fit(self, capture: Capture) -> list[str]:
        """What :meth:`prepare` cuts off or leaves white, as sentences for users."""
        return describe_fit(capture.cameras, self.image_size, self.system.focal_over_height)

    def lens(self, cameras: Cameras) -> Cameras:
        """The same poses with the lens and image size that the model renders.

        Raises:
            KaleidosceneError: The focal length changes along the path, which the model cannot show.
        """
        h, w = self.image_size
        focal = cameras.intrinsics[..., 1, 1] / cameras.image_size[0]
        if float(focal.max() / focal.min()) > 1.01:
            raise KaleidosceneError(
                "The focal length changes along the camera path (dolly-zoom?); this model has one field of view."
            )
        f = self.system.focal_over_height * h
        matrix = torch.tensor([[f, 0.0, w / 2], [0.0, f, h / 2], [0.0, 0.0, 1.0]])
        return Cameras(cameras.world_from_cam, matrix.expand(*cameras.batch_shape, 3, 3).contiguous(), (h, w))

    def render(
        self, capture: Capture, *, cameras: Cameras, seed: int = 0, plan: RenderPlan | None = None
    ) -> RenderedViews:
        """Render new views from all views of ``capture``.

        Args:
            capture: The references (``capture.select`` chooses them).
            cameras: Of the new views, in the world of the capture; poses count, the lens is the model's.
            seed: The same seed gives the same images.
            plan: Together, in chunks or one after the other; by default all together.
        """
        chunks = list(self.render_chunks(capture, cameras=cameras, seed=seed, plan=plan or RenderPlan()))
        order = torch.tensor([index for chunk in chunks for index in chunk.indices]).argsort()
        images = torch.cat([chunk.images for chunk in chunks])[order]
        return RenderedViews(images.cpu(), self.lens(cameras), self.prepare(capture)[0], capture)

    def render_chunks(
        self,
        capture: Capture,
        *,
        cameras: Cameras,
        seed: int,
        plan: RenderPlan,
        masked: bool = False,
        on_step: OnStep | None = None,
        finished: Finished | None = None,
    ) -> Iterator[Chunk]:
        """As :meth:`render`, chunk by chunk as they come; what ``finished`` knows is not rendered again.

        Raises:
            KaleidosceneError: Zero targets, or more memory is needed than there is.
        """
        if not len(cameras):
            raise KaleidosceneError("There is nothing to render: zero targets.")
        self._check_memory(len(capture), len(cameras), plan)
        images, reference_cameras = self.prepare(capture, masked=masked)
        centre = SceneNormalisation(capture.origin(), torch.ones(()))
        reference_cameras, targets = centre.normalise(reference_cameras), centre.normalise(self.lens(cameras))
        scene = self.system.renderer.encode(images[None], reference_cameras.reshape(1, len(capture)))
        yield from render_in_order(
            self.system.renderer, scene, reference_cameras, targets, plan,
            seed=seed, on_step=on_step, finished=finished,
        )  # fmt: skip

    def _check_memory(self, references: int, targets: int, plan: RenderPlan) -> None:
        chunk = min(targets, plan.chunk or (1 if plan.mode == "autoregressive" else targets))
        references = max(references, plan.max_references) if plan.mode == "autoregressive" else references
        independent = plan.mode == "independent"

        def needed(count: int) -> int:
            return self.system.cost(references, count, independent=independent).memory

        check_memory(needed, chunk, device=self.device)
