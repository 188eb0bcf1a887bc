"""What outlines of references rule out: an object on white is not where a reference sees white.

Ours, not Kaleido's. Networks blur the outlines of what they are not sure of; many references say exactly where an
object cannot be. What all references allow is the visual hull, tighter with each of them. Points of rays outside of it
need not be looked at, which saves most lookups, and a pixel is white by as much as no point of its ray lies inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.ray_points import NEAR, RayPoints, Sources

WHITE = 1.0
"""Of latents that are pixels in [-1, 1]."""
SEVERAL = 5
"""From so many references on outlines are asked. With fewer they rule out little, and networks show background by
copying the white from outside of them."""
# What a background has more of in all channels, the share of an image's border that it must have, and what counts as
# outside of an outline.
_BRIGHT, _BORDER, _OUTSIDE = 0.97, 0.5, 0.02


def outlines_of(latents: Float[Tensor, "batch views 3 h w"]) -> Float[Tensor, "batch views h w"]:
    """1 where pixels in [-1, 1] may show an object, 0 where white reaches in from their borders.

    An image whose border is not white for the most part says nothing: it is 1 everywhere.
    """
    white = (latents.float().amin(2) > _BRIGHT).float()
    inner = torch.zeros_like(white)
    inner[..., 1:-1, 1:-1] = 1
    border = 1 - inner
    enough = (white * border).sum((-2, -1), keepdim=True) >= _BORDER * border.sum((-2, -1), keepdim=True)
    white = white * enough
    reached = white * border
    while True:
        wider = nn.functional.max_pool2d(reached, (3, 1), 1, (1, 0))
        wider = torch.maximum(wider, nn.functional.max_pool2d(reached, (1, 3), 1, (0, 1))) * white
        if wider.equal(reached):
            return 1 - reached
        reached = wider


@dataclass(frozen=True, eq=False)
class Inside:
    """Points of the rays of one view that lie inside the outlines of all references that see them.

    Attributes:
        mask: Which points.
        share: How much of each ray's pixel can be an object: what the outlines leave of its best point. All of it where
            the ray has no points to be asked about.
    """

    mask: Bool[Tensor, "points rays"]
    share: Float[Tensor, " rays"]

    @classmethod
    def of(cls, points: RayPoints, sources: Sources) -> Inside:
        """Of one view of one scene whose references have outlines."""
        assert sources.outlines is not None
        foot, direction, steps = points.foot[0, 0], points.direction[0, 0], points.steps.reshape(-1)
        number, ray = points.usable[0, 0].nonzero().unbind(-1)
        inside = torch.ones_like(steps[number])
        for reference, outline in enumerate(sources.outlines[0]):
            if sources.present is not None and not bool(sources.present[0, reference]):
                continue
            pose, lens = sources.positions.cam_from_world[0, reference], sources.positions.lens[0, reference]
            start, slope = pose[:3, :3] @ foot + pose[:3, 3:], pose[:3, :3] @ direction
            place = torch.addcmul(start.index_select(1, ray), slope.index_select(1, ray), steps[number])
            inside = torch.minimum(inside, _shown(place, outline, lens))
            kept = (inside > _OUTSIDE).nonzero()[:, 0]  # most points are given up by the first reference
            ray, number, inside = (x.index_select(0, kept) for x in (ray, number, inside))
        nothing = (~points.usable[0, 0].any(0)).to(inside.dtype)
        mask = torch.zeros_like(points.usable[0, 0])
        mask[number, ray] = True
        return cls(mask, nothing.scatter_reduce(0, ray, inside, "amax"))


def _shown(
    place: Float[Tensor, "3 points"], outline: Float[Tensor, "h w"], lens: Float[Tensor, " 4"]
) -> Float[Tensor, " points"]:
    """What an outline says of places in axes of its camera; 1 where that does not see them."""
    far = place[2].clamp_min(NEAR)
    x, y = (2 * (lens[axis] * place[axis] / far + lens[2 + axis]) - 1 for axis in (0, 1))
    seen = (place[2] > NEAR) & (torch.maximum(x.abs(), y.abs()) < 1)
    at = torch.stack([x, y], -1)[None, None]
    found = nn.functional.grid_sample(outline[None, None], at, align_corners=False, padding_mode="border")
    return torch.where(seen, found[0, 0, 0], 1.0)
