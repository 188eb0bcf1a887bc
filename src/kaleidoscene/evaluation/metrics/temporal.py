"""Whether a sequence of views holds together: flicker, view-to-view change, and agreement through depth."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project, to_sampling_grid, unproject

# Share of its depth by which a point may lie behind the surface that is seen there.
_OCCLUDED = 0.02


def flicker(frames: Float[Tensor, "views 3 h w"]) -> float:
    """Mean absolute second difference in time, times 255: 0 for still and for linearly fading frames.

    It needs no warp; a moving camera has some as well, so that it is read against that of the true frames.

    Raises:
        KaleidosceneError: Fewer than three frames.
    """
    if len(frames) < 3:
        raise KaleidosceneError(f"Flicker needs at least 3 frames, got {len(frames)}.")
    return float((frames[:-2] - 2 * frames[1:-1] + frames[2:]).abs().mean() * 255)


def view_to_view(frames: Float[Tensor, "views 3 h w"]) -> float:
    """Mean PSNR in dB of each frame against the one before it.

    Raises:
        KaleidosceneError: Fewer than two frames.
    """
    if len(frames) < 2:
        raise KaleidosceneError(f"Change from view to view needs at least 2 frames, got {len(frames)}.")
    error = (frames[1:] - frames[:-1]).square().mean(dim=(-3, -2, -1)).clamp_min(1e-10)
    return float((-10 * torch.log10(error)).mean())


def reproject(
    image: Float[Tensor, "3 h w"], depth: Float[Tensor, "h w"], cameras: Cameras, other_depth: Float[Tensor, "h w"]
) -> tuple[Float[Tensor, "3 h w"], Bool[Tensor, "h w"]]:
    """What the second camera's pixels look like in the image of the first, and where that can be told.

    Args:
        image: Of the first camera.
        depth: Of the first camera along its optical axis, 0 where unknown.
        cameras: ``(2,)``.
        other_depth: Of the second camera.

    Returns:
        The second view from the first one's pixels (bilinear), and a mask of the pixels whose point has a depth, lies
        in the first image and is not hidden there (2 % of its depth).
    """
    size = cameras.image_size
    pixels, z = project(cameras[0], unproject(cameras[1], other_depth).flatten(0, 1))
    z, grid = z.unflatten(0, size), to_sampling_grid(pixels, size).unflatten(0, size)[None]
    seen = torch.nn.functional.grid_sample(image[None], grid, align_corners=False)[0]
    there = torch.nn.functional.grid_sample(depth[None, None], grid, mode="nearest", align_corners=False)[0, 0]
    inside = (grid[0].abs() < 1).all(-1) & (z > 0) & (other_depth > 0) & (there > 0)
    return seen, inside & ((there - z).abs() < _OCCLUDED * z)


def reprojection_psnr(
    frames: Float[Tensor, "views 3 h w"], depths: Float[Tensor, "views h w"], cameras: Cameras
) -> float:
    """PSNR in dB of each frame against what the one before it shows of the same surface, where both see it.

    The mean is over the neighbours that see a surface in common.

    Args:
        frames: RGB in [0, 1].
        depths: Along the optical axis in world units, 0 where unknown.
        cameras: ``(views,)``.

    Raises:
        KaleidosceneError: No two neighbours see a surface in common.
    """
    values = []
    for number in range(1, len(frames)):
        seen, mask = reproject(frames[number - 1], depths[number - 1], cameras[number - 1 : number + 1], depths[number])
        if not bool(mask.any()):
            continue
        error = (seen - frames[number])[:, mask].square().mean().clamp_min(1e-10)
        values.append(-10 * torch.log10(error))
    if not values:
        raise KaleidosceneError("No two neighbouring frames see a surface in common.")
    return float(torch.stack(values).mean())
