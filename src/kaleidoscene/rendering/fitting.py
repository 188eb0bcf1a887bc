"""Views of a capture as a model takes them."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.upright import level_up
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


def with_estimated_cameras(system: System, capture: Capture, *, masked: bool) -> Capture:
    """A capture of images with the cameras that a model estimates, in the world of its scenes.

    Args:
        system: The model.
        capture: Images; a lens that is known is kept.
        masked: Lay its masks on white.
    """
    images = prepare_images(system, capture, masked=masked)
    cameras = system.renderer.encode(images[None], None).cameras
    assert cameras is not None
    h, w = capture.common_size
    # The model saw the middle of every image, at its own size.
    scale = max(system.image_size[0] / h, system.image_size[1] / w)
    frames = []
    for frame, pose, matrix in zip(capture.frames, cameras.world_from_cam[0], cameras.intrinsics[0], strict=True):
        posed = replace(frame, world_from_cam=pose.double())
        if frame.intrinsics is None or frame.guessed_focal:
            own = matrix.clone().double()
            own[:2] /= scale
            own[0, 2] += w / 2 - 0.5 * system.image_size[1] / scale
            own[1, 2] += h / 2 - 0.5 * system.image_size[0] / scale
            in_frame = torch.linalg.inv(capture.framing(frame).matrix) @ own
            posed = replace(posed, intrinsics=in_frame, guessed_focal=False)
        frames.append(posed)
    up = level_up(cameras[0])
    return replace(capture, frames=tuple(frames), centre=torch.zeros(3), upward=up)
