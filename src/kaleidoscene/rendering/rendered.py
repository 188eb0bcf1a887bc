"""New views of a capture, for Python: shown in a notebook, saved as a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.camera_path import write_camera_path
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.notebook import pictures_html
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.rendering.outputs import FrameWriter, SheetRow, depth_pictures, write_contact_sheet

_SHOWN = 24


@dataclass(frozen=True, eq=False)
class RenderedViews:
    """New views of a capture.

    Attributes:
        images: RGB in [0, 1], in the order of ``cameras``.
        cameras: In the world of the capture, with the model's lens and size.
        references: What they were made from, as the model saw it.
        capture: The references' capture.
        depths: Along the optical axis in world units, 0 where nothing is met; None of models that render none.
    """

    images: Float[Tensor, "targets 3 h w"]
    cameras: Cameras
    references: Float[Tensor, "refs 3 h w"]
    capture: Capture
    depths: Float[Tensor, "targets h w"] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        h, w = self.images.shape[-2:]
        depth = "" if self.depths is None else ", with depth"
        return f"RenderedViews({len(self)} views of {h}x{w} from {len(self.references)} of {self.capture.name}{depth})"

    def _repr_html_(self) -> str:
        return pictures_html(repr(self), [Image.fromarray(to_bytes(image)) for image in self.images[:_SHOWN]])

    def save(
        self, folder: str | Path, *, overwrite: bool = False, truth: Tensor | None = None, fps: float = 24.0
    ) -> Path:
        """Write frames, video.mp4, transforms.json, camera_path.json, contact_sheet.png, and depth maps if any.

        The folder appears when all is written.

        Args:
            folder: Where to.
            overwrite: Replace a folder that is not empty.
            truth: Real images of the same cameras, for the contact sheet.
            fps: Of the video.

        Raises:
            KaleidosceneError: The folder is there and not empty, or what was rendered from lies in it.
        """
        folder = Path(folder)
        with whole_folder(folder, overwrite=overwrite, sources=[self.capture.root]) as partial:
            writer = FrameWriter(partial, self.cameras, centred=self.capture.centred, fps=fps)
            writer.write(list(range(len(self.images))), self.images)
            writer.finish([] if self.depths is None else list(self.depths))
            write_camera_path(partial / "camera_path.json", self.cameras, fps=fps)
            rows = [SheetRow("references", list(self.references)), SheetRow("new views", list(self.images))]
            if self.depths is not None:
                rows.append(SheetRow("depth", depth_pictures(self.depths)))
            if truth is not None:
                rows.append(SheetRow("truth", list(truth)))
            write_contact_sheet(partial / "contact_sheet.png", rows)
        return folder
