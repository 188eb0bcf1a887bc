"""How likely a surface lies at points on the rays of targets, and what pixels become of that.

What tokens say of depths, what references show there and how much alike that is are weighed against each other; see
``reprojection.py`` for the formula, and for the pixels at which this is asked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.agreement import TINY
from kaleidoscene.families.kaleido.cells import CELLS, between_cells, between_depths, cells_of
from kaleidoscene.families.kaleido.looking import EVIDENCE, Look, look_at
from kaleidoscene.families.kaleido.matching import NUMBERS, Volume
from kaleidoscene.families.kaleido.ray_points import RayPoints, Sources

HIDDEN = 16
"""Channels of the network that weighs evidence."""
# Weights are kept this much smaller than they act: optimisers take steps of about one size for all of them.
_GAIN, _OCCUPANCY_GAIN = 4.0, 20.0


class Weighing(nn.Module):
    """Judges points of rays, and makes pixels of them.

    Args:
        width: Channels of tokens.
        channels: Channels of latents.
        depths: Points that are looked at on every ray, about the place that is nearest to the origin.
        beyond: More of them, before and behind.
        contrast: Power of the shares of points; their sum on a ray stays.
        windows: Sides of the windows in which references are compared; none: pixel by pixel alone.
        blending_angle: Degrees off a ray at which a reference counts for a quarter in a colour (``looking.py``).
    """

    def __init__(
        self,
        width: int,
        channels: int,
        depths: int,
        beyond: int = 0,
        contrast: float = 1.0,
        windows: Sequence[int] = (),
        blending_angle: float | None = None,
    ) -> None:
        super().__init__()
        self.blending_angle = None if blending_angle is None else math.radians(blending_angle)
        self.windows = tuple(windows)
        self.matched = nn.Linear(NUMBERS * len(windows), HIDDEN, bias=False) if windows else None
        self.depths, self.contrast = depths, contrast
        self.points, self.near = depths + beyond, beyond // 4
        self.beyond = nn.Linear(width, CELLS**2 * beyond) if beyond else None
        self.context = nn.Linear(width, CELLS**2 * (depths + HIDDEN))
        self.surface = nn.Linear(width, CELLS**2)
        self.weigh = nn.Linear(channels + EVIDENCE, HIDDEN)
        self.occupancy = nn.Linear(HIDDEN, 1)
        self.log_sharpness = nn.Parameter(torch.empty(1))  # sharding wants an axis
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Next to nothing is copied at first, and surfaces lie a little in front of the origin.

        Begun with occupancies of a hundredth, whose copies are wrong, a network unlearned copying in a few steps.
        """
        more = [layer for layer in (self.beyond, self.matched) if layer is not None]
        for layer in (self.context, self.surface, self.occupancy, *more):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)
        nn.init.xavier_uniform_(self.weigh.weight, gain=1 / _GAIN)
        nn.init.zeros_(self.weigh.bias)
        nn.init.constant_(self.occupancy.bias, -10 / _OCCUPANCY_GAIN)
        nn.init.constant_(self.log_sharpness, 2.5)

    def surfaces(self, tokens: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch refs rows cols"]:
        """Where references see something, in cells; tokens ``(batch, refs, tokens, width)``."""
        return cells_of(self.surface(tokens).float(), grid)[:, :, 0] - 0.2

    def cells(
        self, tokens: Float[Tensor, "batch targets tokens width"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch targets numbers rows cols"]:
        """What targets' tokens say of their cells: of each point of a ray, and to those who weigh evidence."""
        said = cells_of(_GAIN * self.context(tokens).float(), grid)
        if self.beyond is None:
            return said
        more = cells_of(_GAIN * self.beyond(tokens).float(), grid)
        return torch.cat(
            [more[:, :, : self.near], said[:, :, : self.depths], more[:, :, self.near :], said[:, :, self.depths :]], 2
        )

    def steps(self, per_depth: int, device: torch.device) -> Float[Tensor, "points 1"]:
        """Where points lie on rays."""
        depths, near, far = (per_depth * count for count in self._parts)
        return RayPoints.steps_beyond(depths, near, far, device)

    @property
    def _parts(self) -> tuple[int, int, int]:
        """Depths, points before them, and points behind."""
        return self.depths, self.near, self.points - self.depths - self.near

    def said(
        self, context: Float[Tensor, "batch views numbers gh gw"], places: Float[Tensor, "pixels 2"], per_depth: int
    ) -> Float[Tensor, "batch views more_numbers pixels"]:
        """What tokens say of the points of pixels, and to those who weigh evidence."""
        numbers = between_cells(context, places)
        if per_depth == 1:
            return numbers
        depths, near, far = self._parts
        *parts, more = numbers.split([near, depths, far, HIDDEN], dim=2)
        return torch.cat([*(between_depths(part, per_depth) for part in parts), more], 2)

    def matched_at(
        self, volume: Volume, places: Float[Tensor, "pixels 2"], per_depth: int
    ) -> Float[Tensor, "batch matched targets more_points pixels"]:
        """What windows say of the points of pixels."""
        numbers = volume.at(places)
        if per_depth == 1:
            return numbers
        depths, near, far = self._parts
        parts = numbers.flatten(0, 1).split([near, depths, far], dim=2)
        return torch.cat([between_depths(part, per_depth) for part in parts], 2).unflatten(0, numbers.shape[:2])

    def look(self, sources: Sources, points: RayPoints, *, matches: bool = True) -> Look:
        """What references show at points."""
        sharpness = self.log_sharpness.float().exp()
        return look_at(sources, points, sharpness, matches=matches, blending_angle=self.blending_angle)

    def occupancies(
        self,
        evidence: Float[Tensor, "batch evidence targets points pixels"],
        said: Float[Tensor, "batch targets numbers pixels"],
        matched: Float[Tensor, "batch matched targets points pixels"] | None = None,
    ) -> Float[Tensor, "batch targets points pixels"]:
        """How likely there is a surface at each point, as logits."""
        # Half precision is enough here, and not for the sum of shares.
        hidden = (_GAIN * self.weigh.weight @ evidence.flatten(2)).unflatten(2, evidence.shape[2:])
        if self.matched is not None and matched is not None:
            hidden = hidden + (_GAIN * self.matched.weight @ matched.flatten(2)).unflatten(2, evidence.shape[2:])
        with torch.autocast(evidence.device.type, enabled=False):
            return self._logits(hidden.float(), said)

    def _logits(self, hidden: Tensor, context: Float[Tensor, "batch targets numbers pixels"]) -> Tensor:
        depth, token = context.split([context.shape[2] - HIDDEN, HIDDEN], dim=2)
        hidden.add_((token + _GAIN * self.weigh.bias.float()[:, None]).transpose(1, 2)[..., None, :])
        hidden = nn.functional.silu(hidden, inplace=not torch.is_grad_enabled())
        weight, bias = (_OCCUPANCY_GAIN * part.float() for part in (self.occupancy.weight, self.occupancy.bias))
        return (weight @ hidden.flatten(2)).view(depth.shape) + (bias + _GAIN * depth)

    def compose(
        self,
        seen: Bool[Tensor, "batch targets points pixels"],
        colours: Float[Tensor, "batch c targets points pixels"],
        logit: Float[Tensor, "batch targets points pixels"],
        painted: Float[Tensor, "batch targets c pixels"],
        per_depth: int,
    ) -> tuple[Float[Tensor, "batch targets c pixels"], Float[Tensor, "batch targets points pixels"]]:
        """Pixels, and the shares of points in them."""
        # An occupancy is that of the length between two depths.
        keep = torch.where(seen, nn.functional.logsigmoid(-logit) / per_depth, 0.0)
        through = keep.cumsum(2)
        share = (through - keep).exp() * -torch.expm1(keep)
        if self.contrast != 1:
            total, share = share.sum(2, keepdim=True), share.clamp_min(TINY) ** self.contrast
            share = share * (total / share.sum(2, keepdim=True))
        copied = (share[:, None] * colours).sum(3).transpose(1, 2)
        return torch.addcmul(copied, through[:, :, -1:].exp(), painted), share


def flops(width: int, channels: int, depths: int) -> tuple[int, int]:
    """Multiply-adds times two for a token and for a pixel, matrix products only."""
    pixel = depths * ((channels + EVIDENCE) * HIDDEN + HIDDEN + channels)
    return 2 * width * CELLS**2 * (depths + HIDDEN), 2 * pixel
