"""Views of a capture as a model takes them."""

from __future__ import annotations

import torch
from jaxtyping import Float

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.fitting import cut_cameras, cut_images, fit_views
from kaleidoscene.rendering.system import System


def prepare_views(
    system: System, capture: Capture, *, masked: bool = False
) -> tuple[Float[torch.Tensor, "views 3 h w"], Cameras]:
    """Images and cameras of a capture at the size and field of view of a model, in the capture's world.

    Args:
        system: The model.
        capture: What to prepare.
        masked: Lay its masks on white.
    """
    images = capture.images(masked=masked)
    if system.renderer.capabilities.any_lens:
        return cut_images(images, system.image_size), cut_cameras(capture.cameras, system.image_size)
    return fit_views(images, capture.cameras, system.image_size, system.focal_over_height)


def prepare_images(system: System, capture: Capture, *, masked: bool = False) -> Float[torch.Tensor, "views 3 h w"]:
    """Images of a capture without cameras at the size of a model, cut about their middle."""
    return cut_images(capture.images(masked=masked), system.image_size)


def model_lens(system: System, cameras: Cameras) -> Cameras:
    """The same poses with the lens and image size that a model renders.

    Raises:
        KaleidosceneError: The focal length changes along the path, which the model cannot show.
    """
    h, w = system.image_size
    if system.renderer.capabilities.any_lens:
        return cut_cameras(cameras, (h, w))
    focal = cameras.intrinsics[..., 1, 1] / cameras.image_size[0]
    if float(focal.max() / focal.min()) > 1.01:
        raise KaleidosceneError(
            "The focal length changes along the camera path (dolly-zoom?); this model has one field of view."
        )
    f = system.focal_over_height * h
    matrix = cameras.intrinsics.new_tensor([[f, 0.0, w / 2], [0.0, f, h / 2], [0.0, 0.0, 1.0]])
    return Cameras(cameras.world_from_cam, matrix.expand(*cameras.batch_shape, 3, 3).contiguous(), (h, w))
