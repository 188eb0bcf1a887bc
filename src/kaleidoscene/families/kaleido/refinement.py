"""Reprojection in two passes: cells of 4 x 4 pixels find surfaces along rays, pixels look closely where these are.

Ours, not Kaleido's. In one pass (``reprojection.py``) every pixel looks at the same few places of its ray, which are
far apart, so that shifted copies overlay. Here the first pass gives cells a distribution over these places,
corrected by what a small volume of matching evidence shows (learned features of the references, how they vary at a
place, convolved along and across rays: a cost volume). The second pass looks at a few points a pixel, put where
that distribution has its mass, and judges each by the colours that references show there:

    w_i  ~  (1 - l) / K exp(d_i),    w_nothing  ~  l,    x = sum_i w_i v_i c_i + (1 - sum_i w_i v_i) x_painted

with l the share of the ray that passes everything, d_i and v_i (seen by a reference, and not hidden from it) what the
network says of point i of K. The distribution is one of surfaces, whether or not any reference shows them; it can be
taught true depths. Points stand at quantiles of it, through which no gradient passes; the colours teach it through
its log-density at the points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.families.kaleido.cells import between_cells
from kaleidoscene.families.kaleido.looking import EVIDENCE
from kaleidoscene.families.kaleido.ray_points import EXTENT, Lattice, RayPoints, Sources, along_of_axis
from kaleidoscene.families.kaleido.reprojection import BAND
from kaleidoscene.families.kaleido.weighing import HIDDEN, Weighing
from kaleidoscene.nn.positions import ViewPositions

# Channels of matching features and of the volume.
MATCH, VOLUME = 8, 8
# Share of the mass that is spread evenly over a ray before points are placed.
_FLOOR = 0.02
_LN2 = 0.6931471805599453
# Small numbers of the last layers act this much larger.
_GAIN = 4.0


@dataclass(frozen=True, eq=False)
class Surfaces:
    """What was found along the rays of targets.

    Attributes:
        shares: Logarithm of how likely rays through the middles of cells meet a surface first in each of equal bins.
        left: Logarithm of how likely they meet none.
        along: Where pixels see their surface, behind the place of the ray that is nearest to the origin.
        nothing: How likely they see none, as a logarithm.
        references: Where cells of references see theirs.
    """

    shares: Float[Tensor, "batch targets depths rows cols"]
    left: Float[Tensor, "batch targets rows cols"]
    along: Float[Tensor, "batch targets h w"]
    nothing: Float[Tensor, "batch targets h w"]
    references: Float[Tensor, "batch refs rows cols"]


def depths_of(surfaces: Surfaces, positions: ViewPositions) -> Float[Tensor, "batch targets h w"]:
    """Depths along the optical axes of targets, in normalised units; 0 where nothing is likelier to be met."""
    start, slant = along_of_axis(positions, surfaces.along.shape[-2:])
    return ((surfaces.along - start) / slant).clamp_min(0) * (surfaces.nothing < -_LN2)


class Refinement(nn.Module):
    """Finds surfaces in cells, then copies pixels from around them.

    Args:
        channels: Of latents.
        points: That a pixel looks at.
        references: That a target is copied from, the nearest ones; 0: all.
    """

    def __init__(self, channels: int, points: int, references: int = 0) -> None:
        super().__init__()
        self.points, self.references = points, references
        self.match_fine = nn.Conv2d(channels, 2 * MATCH, 3, stride=2, padding=1)
        self.match_coarse = nn.Conv2d(2 * MATCH, MATCH, 3, stride=2, padding=1)
        self.evidence = nn.Linear(2 * MATCH + EVIDENCE + 1 + HIDDEN, VOLUME)
        self.volume = nn.ModuleList(nn.Conv3d(VOLUME, VOLUME, 3, padding=1) for _ in range(2))
        self.correction = nn.Linear(VOLUME, 1)
        self.weigh = nn.Linear(channels + EVIDENCE, HIDDEN)
        self.judge = nn.Linear(HIDDEN, 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Cells begin with what reprojection says, pixels with what cells say, and copies are shown."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        for layer in (self.evidence, self.weigh):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.correction, self.judge):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def features(self, latents: Float[Tensor, "batch refs c h w"]) -> Float[Tensor, "batch refs features rows cols"]:
        """Matching features of references, a quarter of their size, of unit length."""
        with torch.autocast(latents.device.type, enabled=False):
            x = nn.functional.silu(self.match_fine(latents.flatten(0, 1).float()))
            return nn.functional.normalize(self.match_coarse(x), dim=1).unflatten(0, latents.shape[:2])

    def forward(
        self,
        first: Weighing,
        painted: Float[Tensor, "batch targets c h w"],
        tokens: Float[Tensor, "batch targets tokens width"],
        sources: Sources,
        targets: ViewPositions,
        grid: tuple[int, int],
        lattice: Lattice | None = None,
    ) -> tuple[Float[Tensor, "batch targets c h w"], Surfaces]:
        """Targets with what can be copied, and the surfaces that were found.

        Args:
            first: The pass over cells, before its correction.
            painted: As the network painted them.
            tokens: That they were painted from.
            sources: References of the same scenes, with features.
            targets: Positions of the targets.
            grid: Of the tokens.
            lattice: Pixels that are composed; None: all.
        """
        context = first.cells(tokens, grid)
        chooses = 0 < self.references < sources.latents.shape[1]
        if chooses or (lattice is None and not torch.is_grad_enabled()):
            return self._view_by_view(first, painted, context, sources, targets, lattice or Lattice())
        lattice = lattice or Lattice()
        logits = self._cells(first, context, sources, targets)
        places = lattice.places(painted.shape[-2:], painted.device)
        new, along, nothing = self._pixels(first, lattice.of(painted), context, logits, sources, targets, places)
        out = painted.clone()
        lattice.of(out).copy_(new)
        return out, Surfaces(*shares_of(logits), along, nothing, sources.surfaces)

    def _view_by_view(
        self,
        first: Weighing,
        painted: Tensor,
        context: Tensor,
        sources: Sources,
        targets: ViewPositions,
        lattice: Lattice,
    ) -> tuple[Tensor, Surfaces]:
        """The same, a target and some rows at a time, so that memory does not grow with what is asked for."""
        places, old = lattice.places(painted.shape[-2:], painted.device), lattice.of(painted)
        height = max(1, BAND // (old.shape[-1] * self.points))
        parts = []
        for scene in range(len(painted)):
            some = sources.scene(scene)
            for view in range(painted.shape[1]):
                at = (slice(scene, scene + 1), slice(view, view + 1))
                alone = targets.scene(scene).select(at[1])
                near = some.nearest(alone, self.references)
                logits = self._cells(first, context[at], near, alone)
                bands = [
                    self._pixels(
                        first, old[(*at, slice(None), slice(row, row + height))], context[at], logits, near, alone,
                        places[row : row + height],
                    )
                    for row in range(0, len(places), height)
                ]  # fmt: skip
                parts.append([torch.cat(part, -2) for part in zip(*bands, strict=True)] + list(shares_of(logits)))
        shape = painted.shape[:2]
        new, along, nothing, shares, left = (
            torch.cat(part, 1).reshape(*shape, *part[0].shape[2:]) for part in zip(*parts, strict=True)
        )
        out = painted.clone()
        lattice.of(out).copy_(new)
        return out, Surfaces(shares, left, along, nothing, sources.surfaces)

    def _cells(
        self, first: Weighing, context: Tensor, sources: Sources, targets: ViewPositions
    ) -> Float[Tensor, "batch targets depths rows cols"]:
        """How likely there is a surface in the bins of cells, as logits of each bin that is reached."""
        size = context.shape[-2:]
        places = Lattice().places(size, context.device).flatten(0, 1)
        with torch.autocast(context.device.type, enabled=False):
            points = RayPoints.of(targets, places, RayPoints.even_steps(first.depths, places.device))
            look = first.look(sources, points)
            assert look.matches is not None, "sources without features"
            logits = first.occupancies(look.evidence, context.flatten(3))
            said = context[:, :, first.depths :].flatten(3).transpose(1, 2)[:, :, :, None]
            said = said.expand(-1, -1, -1, first.depths, -1)
            found = torch.cat([look.evidence[:, -EVIDENCE:], look.matches, logits[:, None] / _GAIN, said], 1)
            volume = self.evidence.weight @ found.flatten(2) + self.evidence.bias[:, None]
            volume = nn.functional.silu(volume).unflatten(2, (len(logits[0]), -1)).transpose(1, 2)
            volume = volume.flatten(0, 1).unflatten(2, (first.depths, *size))
            for layer in self.volume:
                volume = volume + nn.functional.silu(layer(volume))
            change = torch.einsum("c,nc...->n...", self.correction.weight[0], volume) + self.correction.bias
            logits = logits.unflatten(-1, size) + _GAIN * change.unflatten(0, logits.shape[:2])
            return logits.masked_fill(~points.usable.unflatten(-1, size), -30.0)

    def _pixels(
        self,
        first: Weighing,
        painted: Float[Tensor, "batch targets c rows cols"],
        context: Tensor,
        logits: Tensor,
        sources: Sources,
        targets: ViewPositions,
        places: Float[Tensor, "rows cols 2"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The second pass at some places: pixels, where they see a surface, and whether none."""
        size, places = places.shape[:2], places.flatten(0, 1)
        with torch.autocast(painted.device.type, enabled=False):
            shares, left = shares_of(between_cells(logits, places))
            token = between_cells(context[:, :, first.depths :], places)
            steps, density = place_points(shares, self.points)
            look = first.look(sources, RayPoints.of(targets, places, steps), matches=False)
            hidden = (self.weigh.weight @ look.evidence.flatten(2)).unflatten(2, look.seen.shape[1:])
            hidden = nn.functional.silu(hidden + (token + self.weigh.bias[:, None]).transpose(1, 2)[..., None, :])
            said = (self.judge.weight @ hidden.flatten(2) + self.judge.bias[:, None]).unflatten(2, look.seen.shape[1:])
            more, shown = _GAIN * said[:, 0] + density, look.seen * torch.sigmoid(_GAIN * said[:, 1] + 3.0)
            met = torch.log1p(-left.exp().clamp_max(1 - 1e-6))[:, :, None]
            logs = torch.cat([more + met - torch.tensor(float(self.points)).log(), left[:, :, None]], 2).log_softmax(2)
            share, nothing = logs[:, :, :-1].exp(), logs[:, :, -1]
            copied = share * shown
            new = torch.einsum("btkp,bctkp->btcp", copied, look.colours)
            new = new + (1 - copied.sum(2))[:, :, None] * painted.flatten(3)
            along = (share * steps).sum(2) / share.sum(2).clamp_min(1e-6)
        return new.unflatten(-1, size).to(painted.dtype), along.unflatten(-1, size), nothing.unflatten(-1, size)


def shares_of(logits: Float[Tensor, "batch targets depths *places"]) -> tuple[Tensor, Tensor]:
    """How likely a ray meets its first surface in each bin, and none in any; as logarithms."""
    keep = nn.functional.logsigmoid(-logits)
    through = keep.cumsum(2)
    return through - keep + nn.functional.logsigmoid(logits), through[:, :, -1]


def place_points(
    shares: Float[Tensor, "batch targets depths pixels"], count: int
) -> tuple[Float[Tensor, "batch targets count pixels"], Float[Tensor, "batch targets count pixels"]]:
    """Points at the quantiles (i + 1/2) / count of a ray's surface, and what teaches it there, which is 0."""
    with torch.no_grad():
        mass = torch.softmax(shares, 2)
        depths = mass.shape[2]
        mass = ((1 - _FLOOR) * mass + _FLOOR / depths).transpose(2, 3).contiguous()
        ends = mass.cumsum(-1)
        asked = (torch.arange(count, device=mass.device) + 0.5) / count
        number = torch.searchsorted(ends, asked.expand(*ends.shape[:-1], count).contiguous()).clamp_max(depths - 1)
        here = mass.gather(-1, number)
        inside = 1 - (ends.gather(-1, number) - asked) / here
        steps = (EXTENT * (2 * (number + inside.clamp(0, 1)) / depths - 1)).transpose(2, 3).contiguous()
        number = number.transpose(2, 3)
    density = shares.gather(2, number)
    return steps, density - density.detach()


def cell_flops(depths: int) -> int:
    """Multiply-adds times two that a cell's part of the volume takes, matrix products only."""
    return 2 * depths * VOLUME * (2 * MATCH + EVIDENCE + 1 + HIDDEN + 2 * 27 * VOLUME + 1)
