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

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido import matching
from kaleidoscene.families.kaleido.coarse import STRIDE, Coarse
from kaleidoscene.families.kaleido.matching import Volume, around, spread_at
from kaleidoscene.families.kaleido.outlines import SEVERAL, WHITE, Inside
from kaleidoscene.families.kaleido.packing import Chosen
from kaleidoscene.families.kaleido.ray_points import Lattice, RayPoints, Sources
from kaleidoscene.families.kaleido.weighing import HIDDEN, Weighing
from kaleidoscene.nn.positions import ViewPositions

# Points that are looked at in one go where no gradient is wanted, and how many fp32 numbers are held for each of them
# at the peak, in all and for every channel: 66 were measured with 3 channels, 156 with 16.
BAND, POINT_NUMBERS, POINT_CHANNELS = 2**16, 50, 7
# As many times more points are asked in one go whether to look at them.
FEWER = 16


class Reprojection(Weighing):
    """Weighs painted against copied pixels.

    Args:
        width: Channels of tokens.
        channels: Channels of latents.
        depths: Points about the middle of a ray, as :class:`Weighing` has them.
        beyond: Points before and behind these.
        contrast: Power of the shares of points.
        references: That a target is copied from, the nearest ones; 0: all.
        points_per_depth: Points that are looked at for each of these depths, with what tokens say taken linearly
            between them: copies that are shifted against each other blend.
        coarse_to_fine: Where no gradient is wanted, look closely only where a coarse pass found something.
        windows: In which references are compared, as :class:`Weighing` has them.
        blending_angle: As there.
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
        coarse_to_fine: bool = False,
        windows: Sequence[int] = (),
        blending_angle: float | None = None,
    ) -> None:
        super().__init__(width, channels, depths, beyond, contrast, windows, blending_angle)
        self.references, self.points_per_depth, self.coarse_to_fine = references, points_per_depth, coarse_to_fine

    def forward(
        self,
        painted: Float[Tensor, "batch targets c h w"],
        tokens: Float[Tensor, "batch targets tokens width"],
        sources: Sources,
        targets: ViewPositions,
        grid: tuple[int, int],
        lattice: Lattice | None = None,
        magnification: int = 1,
    ) -> Float[Tensor, "batch targets c h w"]:
        """Targets with what can be copied.

        Args:
            painted: As the network painted them.
            tokens: That they were painted from.
            sources: References of the same scenes.
            targets: Positions of the targets.
            grid: Of the tokens.
            lattice: Pixels at which anything is copied; None: all.
            magnification: How many times larger pictures are than in training: so many times more points are looked at.
        """
        context = self.cells(tokens, grid)
        one_by_one = 0 < self.references < sources.latents.shape[1] or sources.outlines is not None
        one_by_one = one_by_one or not torch.is_grad_enabled()
        lattice, per_depth = lattice or Lattice(), magnification * self.points_per_depth
        places, old = lattice.places(painted.shape[-2:], painted.device), lattice.of(painted)
        if one_by_one:
            new = self._one_by_one(old, context, sources, targets, places, magnification)
        else:
            # In training the windows are those of the pixels that take part.
            own = places.shape[:2] if lattice.stride == matching.STRIDE and magnification == 1 else None
            volume = self._volume(sources, targets, magnification) if own is None else None
            given = (context, sources, targets, places.flatten(0, 1), per_depth, volume, own)
            new = self._at(old.flatten(3), *given)[0].reshape(old.shape)
        if lattice.stride == 1 and lattice.size is None:
            return new
        out = painted.clone()
        lattice.of(out).copy_(new)
        return out

    def _one_by_one(
        self,
        painted: Tensor,
        context: Tensor,
        sources: Sources,
        targets: ViewPositions,
        places: Tensor,
        magnification: int,
    ) -> Tensor:
        """The same, a target at a time, so that memory does not grow with what is asked for."""
        asks, parts = sources.outlines is not None and sources.latents.shape[1] >= SEVERAL, []
        for scene in range(len(painted)):
            some = sources.scene(scene)
            for view in range(painted.shape[1]):
                at = (slice(scene, scene + 1), slice(view, view + 1))
                alone = targets.scene(scene).select(at[1])
                near = some.nearest(alone, self.references)
                volume = self._volume(near, alone, magnification)
                per_depth = magnification * self.points_per_depth
                asked = _Target(context[at], near, some if asks else None, alone, per_depth, volume)
                parts.append(self._whole(painted[at], asked, places))
        return torch.cat(parts, 1).reshape(painted.shape).to(painted.dtype)

    @torch.no_grad()
    def _volume(self, sources: Sources, targets: ViewPositions, magnification: int) -> Volume | None:
        """What windows of targets say, where any are asked; at the size of training, band by band."""
        if not self.windows:
            return None
        images = nn.functional.avg_pool2d(sources.latents.float().flatten(0, 1), magnification)
        sources = replace(sources, latents=images.unflatten(0, sources.latents.shape[:2]))
        size, found = (images.shape[-2], images.shape[-1]), []
        places = Lattice(stride=matching.STRIDE).places(size, images.device)
        with torch.autocast(places.device.type, enabled=False):
            steps, count = self.steps(1, places.device), max(1, BAND // self.points)
            for band in places.flatten(0, 1).split(count):
                found.append(spread_at(sources, RayPoints.of(targets, band, steps)))
            deviation, seen = (torch.cat(part, -1).unflatten(-1, places.shape[:2]) for part in zip(*found, strict=True))
            return Volume(around(deviation, seen > 1, self.windows), size)

    def _whole(
        self, painted: Float[Tensor, "1 1 c rows cols"], target: _Target, places: Float[Tensor, "rows cols 2"]
    ) -> Float[Tensor, "1 1 c rows cols"]:
        """One target; shares of points are kept of its coarse pass alone."""
        per_depth, old, flat = target.per_depth, painted.flatten(3), places.flatten(0, 1)
        if not self.coarse_to_fine or torch.is_grad_enabled():
            return self._rays(old, target, flat, per_depth)[0].reshape(painted.shape)
        some, at = painted[..., ::STRIDE, ::STRIDE], places[::STRIDE, ::STRIDE]
        # Between coarse points an outline that leaves little would be missed.
        few = 1 if target.outlined is None else per_depth
        picture, shares = self._rays(some.flatten(3), target, at.flatten(0, 1), few, keep=True)
        assert shares is not None
        picture, shares = (x.unflatten(-1, at.shape[:2])[0, 0] for x in (picture, shares))
        found = Coarse.of(picture, shares, painted[0, 0].float(), per_depth // few)
        out = found.smooth.flatten(1)
        if len(found.rays):
            out[:, found.rays] = self._rays(old[..., found.rays], target, flat[found.rays], per_depth, found)[0][0, 0]
        return out.reshape(painted.shape)

    def _rays(
        self,
        painted: Float[Tensor, "1 1 c pixels"],
        target: _Target,
        places: Float[Tensor, "pixels 2"],
        per_depth: int,
        found: Coarse | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "1 1 c pixels"], Float[Tensor, "1 1 points pixels"] | None]:
        """Pixels at some places of a target, some at a time, from all points or those ``found``; shares to ``keep``."""
        few = found is not None or target.outlined is not None
        count = max(1, (FEWER if few else 1) * BAND // (per_depth * self.points))
        bands, kept = [], []
        for start in range(0, len(places), count):
            band, at = slice(start, start + count), places[start : start + count]
            if few:
                chosen = None if found is None else found.points(found.rays[band])
                new, shares = self._chosen(painted[..., band], target, at, per_depth, chosen, keep)
            else:
                given = (target.context, target.near, target.position, at, per_depth, target.volume)
                new, shares = self._at(painted[..., band], *given)
            bands.append(new)
            kept += [shares] if keep else []
        return torch.cat(bands, -1), torch.cat(kept, -1) if keep else None

    def _at(
        self,
        painted: Float[Tensor, "batch targets c pixels"],
        context: Float[Tensor, "batch targets numbers gh gw"],
        sources: Sources,
        targets: ViewPositions,
        places: Float[Tensor, "pixels 2"],
        per_depth: int,
        volume: Volume | None,
        own: Sequence[int] | None = None,
    ) -> tuple[Float[Tensor, "batch targets c pixels"], Float[Tensor, "batch targets points pixels"]]:
        """Pixels at some places, with the shares of all of their points.

        Windows are those of the ``volume``; without one, places are ``own`` rows and columns of pixels of windows.
        """
        with torch.autocast(painted.device.type, enabled=False):
            points = RayPoints.of(targets, places, self.steps(per_depth, places.device))
            look = self.look(sources, points, matches=False)
            said = self.said(context, places, per_depth)
            matched = None
            if volume is not None:
                matched = self.matched_at(volume, places, per_depth)
            elif self.windows and own is not None:
                deviation, seen = (x.unflatten(-1, own) for x in (look.deviation, look.count))
                matched = around(deviation, seen > 1, self.windows).flatten(4)
        logit = self.occupancies(look.evidence, said, matched)
        with torch.autocast(painted.device.type, enabled=False):
            return self.compose(look.seen, look.colours, logit, painted, per_depth)

    def _chosen(
        self,
        painted: Float[Tensor, "1 1 c pixels"],
        target: _Target,
        places: Float[Tensor, "pixels 2"],
        per_depth: int,
        chosen: Bool[Tensor, "points pixels"] | None,
        keep: bool,
    ) -> tuple[Float[Tensor, "1 1 c pixels"], Float[Tensor, "1 1 points pixels"] | None]:
        """The same, looking at those points alone that are chosen and lie inside the outlines of all references."""
        with torch.autocast(painted.device.type, enabled=False):
            points = RayPoints.of(target.position, places, self.steps(per_depth, places.device))
            mask, left = _inside(points, target.outlined, chosen)
            new, packs = [], list(Chosen.packed(mask, BAND))
            shares = torch.zeros(1, 1, *mask.shape, device=painted.device) if keep else None
            if not packs:
                return (painted if left is None else WHITE + left * (painted - WHITE)), shares
            rays = torch.cat([pack.rays for pack in packs])
            said = self.said(target.context, places[rays], per_depth)
            around_all = None if target.volume is None else self.matched_at(target.volume, places[rays], per_depth)
        for pack in packs:
            with torch.autocast(painted.device.type, enabled=False):
                look = self.look(target.near, points.only(pack), matches=False)
                depths, token = said[..., pack.at].split([len(mask), HIDDEN], 2)
                numbers = torch.cat([depths.gather(2, pack.number[None, None]), token], 2)
                matched = None
                if around_all is not None:
                    some = around_all[..., pack.at]
                    matched = some.gather(3, pack.number.expand(*some.shape[:3], -1, -1))
            logit = self.occupancies(look.evidence, numbers, matched)
            with torch.autocast(painted.device.type, enabled=False):
                pixels, share = self.compose(look.seen, look.colours, logit, painted[..., pack.rays], per_depth)
            new.append(pixels)
            if shares is not None:
                whole = share.new_zeros(len(mask), len(pack.rays)).scatter_add(0, pack.number, share[0, 0])
                shares.index_copy_(3, pack.rays, whole[None, None])
        out = painted.index_copy(3, rays, torch.cat(new, -1).to(painted.dtype))
        return (out if left is None else WHITE + left * (out - WHITE)), shares


@dataclass(frozen=True, eq=False)
class _Target:
    """One view to be composed.

    Attributes:
        context: What its tokens say of its cells.
        near: References that it is copied from.
        outlined: All references of the scene, where their outlines are asked.
        position: Its own.
        per_depth: Points that are looked at for each depth.
        volume: What windows say of it, where any are asked.
    """

    context: Float[Tensor, "1 1 numbers gh gw"]
    near: Sources
    outlined: Sources | None
    position: ViewPositions
    per_depth: int
    volume: Volume | None


def _inside(
    points: RayPoints, outlined: Sources | None, chosen: Bool[Tensor, "points pixels"] | None
) -> tuple[Bool[Tensor, "points pixels"], Float[Tensor, " pixels"] | None]:
    """Points of one view that are looked at; with outlines, how much of each pixel they leave."""
    usable = points.usable[0, 0] if chosen is None else points.usable[0, 0] & chosen
    if outlined is None:
        return usable, None
    inside = Inside.of(points, outlined)
    return usable & inside.mask, inside.share
