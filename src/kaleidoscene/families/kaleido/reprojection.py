"""Copying from references at the resolution of latents: every pixel of a target looks along its ray for a surface.

Ours, not Kaleido's. A small transformer learns quickly where things are and slowly how to paint them: its tokens must
carry every pixel through their width. Here the network says of each pixel of a target how likely its ray meets a
surface at each of some depths, and the colour there is taken from the references, into which the point is projected.
What it meets nowhere, or what no reference shows, stays as the network has painted it:

    x = sum_k w_k c_k + (1 - sum_k w_k) x_painted,    w_k = o_k prod_{j < k} (1 - o_j)

with o_k the occupancy at depth k, nearest first, and c_k the blend of the references there. References, too, say how
far away their surface is, so that points in front of it count as empty and what it hides is not taken for it. Part of
the evidence is made for pixels in [-1, 1] and objects before white: it says little on other latents.

Depths are counted along rays from the point nearest to the scene's origin: rotations of the world change nothing.
Objects lie within half the distance of the farthest reference; for places, more points go on to infinity (``beyond``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.agreement import TINY, Agreement
from kaleidoscene.families.kaleido.outlines import SEVERAL, WHITE, Inside
from kaleidoscene.families.kaleido.ray_points import Lattice, RayPoints, Sources
from kaleidoscene.nn.positions import ViewPositions

# Rows and columns of a token in which the network speaks of depths, channels of the network that weighs evidence, and
# numbers of evidence beside the colour.
CELLS, HIDDEN, EVIDENCE = 4, 16, 9
# Points that are looked at in one go where no gradient is wanted, and how many fp32 numbers are held for each of them
# at the peak, in all and for every channel: 66 were measured with 3 channels, 156 with 16.
BAND, POINT_NUMBERS, POINT_CHANNELS = 2**16, 50, 7
# As many times more rows are done in one go where outlines leave few points to look at.
FEWER = 4
# Weights are kept this much smaller than they act: optimisers take steps of about one size for all of them.
_GAIN, _OCCUPANCY_GAIN = 4.0, 20.0


class Reprojection(nn.Module):
    """Weighs painted against copied pixels.

    Args:
        width: Channels of tokens.
        channels: Channels of latents.
        depths: Points that are looked at on every ray, about the place that is nearest to the origin.
        beyond: More of them, before and behind.
        contrast: Power of the shares of points; their sum on a ray stays.
        references: That a target is copied from, the nearest ones; 0: all.
        points_per_depth: Points that are looked at for each of these depths, with what tokens say taken linearly
            between them: copies that are shifted against each other blend.
    """

    def __init__(
        self,
        width: int,
        channels: int,
        depths: int,
        *,
        beyond: int = 0,
        contrast: float = 1.0,
        references: int = 0,
        points_per_depth: int = 1,
    ) -> None:
        super().__init__()
        self.depths, self.contrast, self.references = depths, contrast, references
        self.points_per_depth = points_per_depth
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
        more = () if self.beyond is None else (self.beyond,)
        for layer in (self.context, self.surface, self.occupancy, *more):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        nn.init.xavier_uniform_(self.weigh.weight, gain=1 / _GAIN)
        nn.init.zeros_(self.weigh.bias)
        nn.init.constant_(self.occupancy.bias, -10 / _OCCUPANCY_GAIN)
        nn.init.constant_(self.log_sharpness, 2.5)

    def surfaces(self, tokens: Tensor, grid: tuple[int, int]) -> Float[Tensor, "batch refs rows cols"]:
        """Where references see something, in cells; tokens ``(batch, refs, tokens, width)``."""
        return _cells(self.surface(tokens).float(), grid)[:, :, 0] - 0.2

    def cells(
        self, tokens: Float[Tensor, "batch targets tokens width"], grid: tuple[int, int]
    ) -> Float[Tensor, "batch targets numbers rows cols"]:
        """What targets' tokens say of their cells: of each point of a ray, and to those who weigh evidence."""
        said = _cells(_GAIN * self.context(tokens).float(), grid)
        if self.beyond is None:
            return said
        more = _cells(_GAIN * self.beyond(tokens).float(), grid)
        return torch.cat(
            [more[:, :, : self.near], said[:, :, : self.depths], more[:, :, self.near :], said[:, :, self.depths :]], 2
        )

    def forward(
        self,
        painted: Float[Tensor, "batch targets c h w"],
        tokens: Float[Tensor, "batch targets tokens width"],
        sources: Sources,
        targets: ViewPositions,
        grid: tuple[int, int],
        lattice: Lattice | None = None,
    ) -> Float[Tensor, "batch targets c h w"]:
        """Targets with what can be copied.

        Args:
            painted: As the network painted them.
            tokens: That they were painted from.
            sources: References of the same scenes.
            targets: Positions of the targets.
            grid: Of the tokens.
            lattice: Pixels at which anything is copied; None: all.
        """
        context = self.cells(tokens, grid)
        one_by_one = 0 < self.references < sources.latents.shape[1] or sources.outlines is not None
        if one_by_one or (lattice is None and not torch.is_grad_enabled()):
            return self._in_bands(painted, context, sources, targets, lattice or Lattice())
        lattice = lattice or Lattice()
        rows, cols = lattice.places(painted.shape[-2:], painted.device)
        new = self._at(lattice.of(painted), context, sources, targets, rows, cols)
        if lattice.stride == 1:
            return new
        out = painted.clone()
        lattice.of(out).copy_(new)
        return out

    def _in_bands(
        self, painted: Tensor, context: Tensor, sources: Sources, targets: ViewPositions, lattice: Lattice
    ) -> Tensor:
        """The same, a target and some rows at a time, so that memory does not grow with what is asked for."""
        rows, cols = lattice.places(painted.shape[-2:], painted.device)
        old, parts = lattice.of(painted), []
        height = max(1, BAND // (len(cols) * self.points_per_depth * self.points))
        asks = sources.outlines is not None and sources.latents.shape[1] >= SEVERAL
        height = height * FEWER if asks else height
        for scene in range(len(painted)):
            some = sources.scene(scene)
            for view in range(painted.shape[1]):
                at = (slice(scene, scene + 1), slice(view, view + 1))
                alone = targets.scene(scene).select(at[1])
                near = some.nearest(alone, self.references)
                compose = partial(self._inside, some) if asks else self._at
                bands = [
                    compose(
                        old[(*at, slice(None), slice(band, band + height))], context[at], near, alone,
                        rows[band : band + height], cols,
                    )
                    for band in range(0, len(rows), height)
                ]  # fmt: skip
                parts.append(torch.cat(bands, -2))
        out = painted.clone()
        lattice.of(out).copy_(torch.cat(parts, 1).reshape(old.shape))
        return out

    def _at(
        self, painted: Tensor, context: Tensor, sources: Sources, targets: ViewPositions, rows: Tensor, cols: Tensor
    ) -> Tensor:
        """Of the pixels where ``rows`` and ``cols`` (places of their centres, as shares of the image) cross."""
        with torch.autocast(painted.device.type, enabled=False):
            points = RayPoints.of(targets, rows, cols, self._steps(rows.device))
            look = self.look(sources, points, matches=False)
            context = self._said(context, rows, cols)
        # Half precision is enough here, and not for the sum of shares.
        hidden = (_GAIN * self.weigh.weight @ look.evidence.flatten(2)).unflatten(2, look.seen.shape[1:])
        with torch.autocast(painted.device.type, enabled=False):
            logit = self._logits(hidden.float(), context)
            new = self._compose(look.seen, look.colours, logit, painted.flatten(3).transpose(1, 2))
        return new.transpose(1, 2).reshape(painted.shape)

    def _inside(
        self,
        outlined: Sources,
        painted: Tensor,
        context: Tensor,
        sources: Sources,
        target: ViewPositions,
        rows: Tensor,
        cols: Tensor,
    ) -> Tensor:
        """The same of one view, looking at those points alone that lie inside the outlines of all references."""
        with torch.autocast(painted.device.type, enabled=False):
            points = RayPoints.of(target, rows, cols, self._steps(rows.device))
            at = Inside.of(points, outlined)
            look = self.look(sources, points.only(at.ray, at.number), matches=False)
            context, count = self._said(context, rows, cols), len(points.steps)
            said = torch.cat([context[:, :, at.number, at.ray][:, :, None], context[:, :, count:, at.ray]], 2)
        hidden = (_GAIN * self.weigh.weight @ look.evidence.flatten(2)).unflatten(2, look.seen.shape[1:])
        with torch.autocast(painted.device.type, enabled=False):
            logit = self._logits(hidden.float(), said)

            def spread(found: Tensor) -> Tensor:
                """Over all points; those that are not looked at count as seen by nobody."""
                whole = found.new_zeros(*found.shape[:-2], count, len(rows) * len(cols))
                whole[..., at.number, at.ray] = found[..., 0, :]
                return whole

            seen, colours = spread(look.seen), spread(look.colours)
            new = self._compose(seen, colours, spread(logit), painted.flatten(3).transpose(1, 2))
            new = WHITE + at.share * (new - WHITE)
        return new.transpose(1, 2).reshape(painted.shape)

    def _steps(self, device: torch.device) -> Float[Tensor, "points 1"]:
        """Where points lie on rays."""
        depths, near, far = (self.points_per_depth * count for count in self._parts)
        return RayPoints.steps_beyond(depths, near, far, device)

    @property
    def _parts(self) -> tuple[int, int, int]:
        """Depths, points before them, and points behind."""
        return self.depths, self.near, self.points - self.depths - self.near

    def _said(self, context: Tensor, rows: Tensor, cols: Tensor) -> Float[Tensor, "batch views numbers pixels"]:
        """What tokens say of the points of pixels, and to those who weigh evidence."""
        context = between_cells(context, rows, cols)
        if self.points_per_depth == 1:
            return context
        depths, near, far = self._parts
        *parts, more = context.split([near, depths, far, HIDDEN], dim=2)
        finer = [
            nn.functional.interpolate(part, (self.points_per_depth * part.shape[2], part.shape[3]), mode="bilinear")
            for part in parts
            if part.shape[2]
        ]
        return torch.cat([*finer, more], 2)

    def look(self, sources: Sources, points: RayPoints, *, matches: bool = True) -> Look:
        """What references show at points; their features as well, where they have some and ``matches`` is set."""
        sharpness = self.log_sharpness.float().exp()
        none = torch.zeros_like(points.square)
        agreement = Agreement.of_none(none, sources.latents.shape[2])
        own, there, free, copied = none + TINY, none, none, torch.zeros_like(agreement.colour)
        mean = square = None
        for view in points.seen_from(sources if matches else replace(sources, features=None)):
            offset = (view.along - view.surface) * sharpness
            on_surface = 1 / (1 + offset.square())
            own_weight = view.weight * (on_surface + 0.05)
            own, copied = own + own_weight, torch.addcmul(copied, own_weight[:, None], view.colours)
            there = torch.addcmul(there, view.weight, on_surface)
            free = torch.addcmul(free, view.weight, torch.sigmoid(-offset))
            if view.features is not None:
                weighted = view.weight[:, None] * view.features
                mean = weighted if mean is None else mean + weighted
                weighted = weighted * view.features
                square = weighted if square is None else square + weighted
            agreement.add(view)
        colours, total = copied / own[:, None], agreement.total
        speaks = [there / total, free / total, *agreement.numbers(sources.counts())]
        found = None
        if mean is not None and square is not None:
            mean, square = mean / total[:, None], square / total[:, None]
            found = torch.cat([mean, square - mean.square()], 1)
        evidence = torch.cat([colours, *(number[:, None] for number in speaks)], 1)
        return Look(colours, evidence, agreement.count > 0, found)

    def occupancies(
        self,
        evidence: Float[Tensor, "batch evidence targets depths pixels"],
        context: Float[Tensor, "batch targets numbers pixels"],
    ) -> Float[Tensor, "batch targets depths pixels"]:
        """How likely there is a surface at each point, as logits."""
        hidden = (_GAIN * self.weigh.weight @ evidence.flatten(2)).unflatten(2, evidence.shape[2:])
        return self._logits(hidden.float(), context)

    def _logits(self, hidden: Tensor, context: Float[Tensor, "batch targets numbers pixels"]) -> Tensor:
        depth, token = context.split([context.shape[2] - HIDDEN, HIDDEN], dim=2)
        hidden.add_((token + _GAIN * self.weigh.bias.float()[:, None]).transpose(1, 2)[..., None, :])
        hidden = nn.functional.silu(hidden, inplace=not torch.is_grad_enabled())
        weight, bias = (_OCCUPANCY_GAIN * part.float() for part in (self.occupancy.weight, self.occupancy.bias))
        return (weight @ hidden.flatten(2)).view(depth.shape) + (bias + _GAIN * depth)

    def _compose(
        self,
        seen: Bool[Tensor, "batch targets depths pixels"],
        colours: Float[Tensor, "batch c targets depths pixels"],
        logit: Float[Tensor, "batch targets depths pixels"],
        painted: Float[Tensor, "batch c targets pixels"],
    ) -> Float[Tensor, "batch c targets pixels"]:
        # An occupancy is that of the length between two depths.
        keep = torch.where(seen, nn.functional.logsigmoid(-logit) / self.points_per_depth, 0.0)
        through = keep.cumsum(2)
        share = (through - keep).exp() * -torch.expm1(keep)
        if self.contrast != 1:
            total, share = share.sum(2, keepdim=True), share.clamp_min(TINY) ** self.contrast
            share = share * (total / share.sum(2, keepdim=True))
        copied = (share[:, None] * colours).sum(3)
        return torch.addcmul(copied, through[:, None, :, -1].exp(), painted)


@dataclass(frozen=True, eq=False)
class Look:
    """What references show at points.

    Attributes:
        colours: Blend of all of them.
        evidence: What speaks for a surface there; the blend first.
        seen: Whether any reference sees the point.
        matches: Weighted mean and variance of their features.
    """

    colours: Float[Tensor, "batch c targets depths pixels"]
    evidence: Float[Tensor, "batch evidence targets depths pixels"]
    seen: Bool[Tensor, "batch targets depths pixels"]
    matches: Float[Tensor, "batch matches targets depths pixels"] | None = None


def flops(width: int, channels: int, depths: int) -> tuple[int, int]:
    """Multiply-adds times two for a token and for a pixel, matrix products only."""
    pixel = depths * ((channels + EVIDENCE) * HIDDEN + HIDDEN + channels)
    return 2 * width * CELLS**2 * (depths + HIDDEN), 2 * pixel


def _cells(x: Float[Tensor, "batch views tokens numbers"], grid: tuple[int, int]) -> Tensor:
    """Numbers of tokens, ``CELLS`` x ``CELLS`` times some, as maps ``(batch, views, some, rows, cols)``."""
    x = x.unflatten(-1, (CELLS, CELLS, -1)).unflatten(2, grid)
    return x.permute(0, 1, 6, 2, 4, 3, 5).flatten(3, 4).flatten(4, 5)


def between_cells(
    maps: Float[Tensor, "batch views numbers gh gw"], rows: Float[Tensor, " rows"], cols: Float[Tensor, " cols"]
) -> Float[Tensor, "batch views numbers pixels"]:
    """Numbers of cells, linearly interpolated where ``rows`` and ``cols`` cross (shares of the image)."""
    y, x = torch.meshgrid(2 * rows - 1, 2 * cols - 1, indexing="ij")
    places = torch.stack([x, y], dim=-1).expand(maps.shape[0] * maps.shape[1], -1, -1, -1)
    found = nn.functional.grid_sample(maps.flatten(0, 1), places, align_corners=False, padding_mode="border")
    return found.flatten(2).unflatten(0, maps.shape[:2])
