"""How frames of several sizes become images of one: much larger ones are reduced, then all are cut about the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

# Frames whose longer side is longer than the shortest by more than this factor are of another resolution; others, such
# as those of an undistorted film, lose a few pixels at their borders and none of their sharpness.
_MUCH_LARGER = 1.1


@dataclass(frozen=True)
class Framing:
    """What of a frame is seen.

    Attributes:
        frame_size: ``(height, width)`` of the frame.
        reduced: That of the frame once it is resampled.
        size: That of what is cut out of the middle of it.
    """

    frame_size: tuple[int, int]
    reduced: tuple[int, int]
    size: tuple[int, int]

    @property
    def offset(self) -> tuple[int, int]:
        """Top and left of what is cut out, pixels of the reduced frame."""
        return (self.reduced[0] - self.size[0]) // 2, (self.reduced[1] - self.size[1]) // 2

    @property
    def matrix(self) -> Float[Tensor, "3 3"]:
        """From pixels of the frame to pixels of what is seen, homogeneous, in double precision."""
        (top, left), (h, w), (height, width) = self.offset, self.reduced, self.frame_size
        return torch.tensor([[w / width, 0, -left], [0, h / height, -top], [0, 0, 1]], dtype=torch.float64)

    def seen(
        self, image: Float[Tensor, "c h w"], *, mode: Literal["bilinear", "nearest"] = "bilinear"
    ) -> Float[Tensor, "c nh nw"]:
        """What is seen of an image of the frame; ``nearest`` interpolates nothing."""
        if self.reduced != self.frame_size:
            smooth = mode == "bilinear"
            low, high = image.min(), image.max()
            image = torch.nn.functional.interpolate(
                image[None], self.reduced, mode="bilinear" if smooth else "nearest-exact", antialias=smooth
            )[0].clamp(low, high)
        (top, left), (h, w) = self.offset, self.size
        return image[:, top : top + h, left : left + w]


def common_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Smallest height and smallest width of frames of some sizes, much larger ones reduced."""
    reduced = [_reduced(size, _shortest(sizes)) for size in sizes]
    return min(h for h, _ in reduced), min(w for _, w in reduced)


def framing(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> Framing:
    """What is seen of a frame of a size among frames of such sizes."""
    return Framing(size, _reduced(size, _shortest(sizes)), common_size(sizes))


def _shortest(sizes: Sequence[tuple[int, int]]) -> int:
    return min(max(size) for size in sizes)


def _reduced(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A size whose longer side is ``side``, where it is much larger."""
    longer = max(size)
    if longer <= _MUCH_LARGER * side:
        return size
    return max(1, round(size[0] * side / longer)), max(1, round(size[1] * side / longer))
