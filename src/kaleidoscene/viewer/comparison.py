"""Two answers to one look, side by side: a model against another one, or against the photographs."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.images.fitting import fit_views
from kaleidoscene.viewer.live import LiveFrame, LiveScene
from kaleidoscene.viewer.things import scale_of

TRUTH = "truth"
"""In place of a model: the photographs."""
# A page that has been flown to a camera stands there up to what its browser rounds.
_NEAR, _STRAIGHT = 5e-3, 0.9999


class Photographs:
    """Images of a capture, where a page looks through one of its cameras.

    Args:
        capture: Posed.
        scene: Whose lens and image size they take.
    """

    def __init__(self, capture: Capture, scene: LiveScene) -> None:
        self._capture, self.intrinsics = capture, scene.intrinsics
        self._size, self._focal = scene.model.image_size, scene.model.system.focal_over_height
        self._near = _NEAR * scale_of(capture)

    def view(self, world_from_cam: Float[Tensor, "4 4"], degrees: float | None = None) -> LiveFrame | None:
        """The image of the camera that stands there, or next to it, by the usual lens of the model's views."""
        poses, asked = self._capture.cameras.world_from_cam, world_from_cam.float()
        apart = (poses[:, :3, 3] - asked[:3, 3]).norm(dim=-1)
        turned = (poses[:, :3, :3] * asked[:3, :3]).sum((1, 2)) / 3
        stands = (apart < self._near) & (turned > _STRAIGHT)
        if not bool(stands.any()):
            return None
        off = torch.where(stands, apart / self._near + (1 - turned) / (1 - _STRAIGHT), torch.inf)
        view = self._capture.select([int(off.argmin())])
        image = fit_views(view.images(), view.cameras, self._size, self._focal)[0][0]
        return LiveFrame(image, None, 0.0, float(self.intrinsics[1, 1]))


Other = LiveScene | Photographs
"""What is held against a model's views."""


def beside(frame: LiveFrame, other: LiveFrame, share: float) -> LiveFrame:
    """One picture of two: ``share`` of its width of the first, what is right of that of the other, a line between.

    Args:
        frame: Its size, lens and depth are kept.
        other: Brought to the same lens, and cropped to the same size, or laid on white where it shows less.
        share: 0 to 1.
    """
    h, w = frame.image.shape[-2:]
    image, zoom = other.image, frame.focal / other.focal
    if zoom != 1:
        size = [max(1, round(side * zoom)) for side in image.shape[-2:]]
        image = torch.nn.functional.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
    up, left = (h - image.shape[-2]) // 2, (w - image.shape[-1]) // 2
    image = torch.nn.functional.pad(image, (left, w - image.shape[-1] - left, up, h - image.shape[-2] - up), value=1.0)
    edge = round(share * w)
    out = torch.cat([frame.image[..., :edge], image[..., edge:]], dim=-1)
    if 0 < edge < w:
        out[..., edge] = torch.tensor([0.9, 0.2, 0.2])[:, None]
    return replace(frame, image=out, seconds=frame.seconds + other.seconds)
