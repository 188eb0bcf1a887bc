"""Frames that follow those of a video: the same network with the frame index in place of the pose."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.encoding import make_clip
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.sampling import draw_targets, target_noise
from kaleidoscene.nn.positions import ViewPositions


@torch.no_grad()
def continue_video(
    renderer: KaleidoRenderer,
    frames: Float[Tensor, "batch refs 3 h w"],
    after: int,
    *,
    clip: int,
    seeds: Sequence[int],
) -> Float[Tensor, "batch new 3 h w"]:
    """The frames that follow those of a video, guided as views are.

    Args:
        renderer: Of weights that saw videos.
        frames: RGB in [0, 1] at the model's size, neighbouring ones.
        after: How many frames to make.
        clip: T, the frames of a clip in training; known and new ones together must not be more.
        seeds: One for each new frame.

    Raises:
        KaleidosceneError: There are more frames than a clip has, or not one seed for each.
    """
    parts, (batch, count) = renderer.parts, frames.shape[:2]
    if not 1 <= after <= clip - count:
        raise KaleidosceneError(f"{count} frames and {after} new ones do not fit a clip of {clip}.")
    if len(seeds) != after:
        raise KaleidosceneError(f"{after} frames need as many seeds, got {len(seeds)}.")
    times = (torch.arange(count + after, device=parts.device) / clip).expand(batch, -1)
    positions = ViewPositions.from_times(times)
    scene = make_clip(parts, frames, positions.select(slice(0, count)))
    noise = target_noise(batch, scene.latents.shape[2:], seeds)
    return draw_targets(parts, renderer.sampling, scene, positions.select(slice(count, None)), noise)[0]
