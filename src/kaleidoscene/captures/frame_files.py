"""What the files of one frame hold: its size, pixels, opacity, mask and depth, as the lens took them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.images.files import image_size, read_depth, read_image
from kaleidoscene.images.videos import read_video_frames


def frame_size(frame: Frame) -> tuple[int, int]:
    """``(height, width)`` of a frame: what its camera says, else the image.

    Raises:
        KaleidosceneError: Nothing says it, and the image cannot be read.
    """
    return frame.image_size or image_size(frame.image, upright=frame.upright)


def read_pixels(frames: Sequence[Frame]) -> list[Float[Tensor, "3 h w"]]:
    """The images of frames, RGB in [0, 1], each of the size that its camera says; videos are gone through once.

    Raises:
        KaleidosceneError: An image is missing, truncated, or of another size than its camera says.
    """
    videos = read_video_frames([(frame.image, frame.position) for frame in frames])
    out = []
    for frame in frames:
        if frame.position is not None:
            image = torch.from_numpy(videos[frame.image, frame.position].copy()).movedim(-1, 0).float() / 255
        else:
            image, _ = read_image(frame.image, upright=frame.upright)
        (h, w), found = frame_size(frame), tuple(image.shape[-2:])
        if found != (h, w):
            raise KaleidosceneError(f"{frame.image}: the image is {found[0]}x{found[1]}, its camera is of {h}x{w}.")
        out.append(image)
    return out


def read_alpha(frame: Frame) -> Float[Tensor, "1 h w"] | None:
    """Opacity of the image of a frame, None if it has no alpha channel."""
    if frame.position is not None:
        return None
    alpha = read_image(frame.image, upright=frame.upright)[1]
    return None if alpha is None else alpha[None]


def read_mask(frame: Frame) -> Float[Tensor, "1 h w"]:
    """The mask of a frame, 1 where the object is.

    Raises:
        KaleidosceneError: It has none, or not of the size of its image.
    """
    if frame.mask is None:
        raise KaleidosceneError(f"{frame.image}: {frame.name} has no mask.")
    mask, alpha = read_image(frame.mask)
    if alpha is not None and float(alpha.min()) < 1:  # a cut-out: its colours say nothing
        mask = alpha.expand(3, -1, -1)
    (h, w), (height, width) = mask.shape[-2:], frame_size(frame)
    if (h, w) != (height, width):
        raise KaleidosceneError(f"{frame.mask}: the mask is {h}x{w}, the image {height}x{width}.")
    return mask.mean(0, keepdim=True)


def read_frame_depth(frame: Frame) -> Float[Tensor, "1 h w"]:
    """The depth map of a frame at the size of its image, world units, 0 where unknown; not interpolated.

    Raises:
        KaleidosceneError: It has none, or not of the shape of its image.
    """
    if frame.depth is None:
        raise KaleidosceneError(f"{frame.image}: {frame.name} has no depth map.")
    depth = read_depth(frame.depth, frame.depth_scale)
    (h, w), (height, width) = depth.shape, frame_size(frame)
    if abs(h * width - w * height) > 0.01 * h * width:  # sensors of depth are often coarser, not of another shape
        raise KaleidosceneError(f"{frame.depth}: the depth map is {h}x{w}, its image {height}x{width}.")
    return torch.nn.functional.interpolate(depth[None, None], (height, width), mode="nearest-exact")[0]
