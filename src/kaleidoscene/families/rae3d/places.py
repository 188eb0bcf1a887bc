"""Tokens that stand for places: attention that prefers what is near in space. Ours, not the paper's.

The tokens of 3DRAE stand for nothing in particular, and a network learns for long before it asks them for what lies
along a ray. Here every latent has a place in a cube around what the cameras look at. The logit of a latent and a token
of a view gets minus the squared distance between the place and the token's ray, that of two latents minus the squared
distance between their places, times a sharpness that differs from head to head: the first head is without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.nn.patches import patchify

SHARPEST = 30.0
"""Sharpness of the last head, in 1 / (half a side of the cube)^2."""
_SHORTEST = 1e-12


def lattice(count: int) -> Float[Tensor, "count 3"]:
    """Places that fill the cube from -1 to 1 evenly, whatever their number (the additive recurrence of Roberts)."""
    root = 1.2207440846057596  # of x^4 = x + 1
    steps = torch.tensor([root**-n for n in (1, 2, 3)], dtype=torch.float64)
    numbers = torch.arange(1, count + 1, dtype=torch.float64)[:, None]
    return ((0.5 + numbers * steps) % 1 * 2 - 1).float()


def sharpness(heads: int) -> Float[Tensor, " heads"]:
    """0, and a geometric series from 1 to :data:`SHARPEST`."""
    return torch.cat([torch.zeros(1), torch.logspace(0, 1, heads - 1, base=SHARPEST)])


def rays_inside(
    rays: Float[Tensor, "batch views h w 6"], bounds: Float[Tensor, "batch 4"]
) -> Float[Tensor, "batch views h w 6"]:
    """Pluecker coordinates in the world of the cube: its middle is the origin, half of its side the unit.

    Args:
        rays: ``(d, o x d)``.
        bounds: Middle and half of the side of the cube, in the world of the rays.
    """
    middle, half = _spread(bounds)
    direction, moment = rays.split(3, -1)
    shifted = moment - torch.linalg.cross(middle.expand_as(direction), direction)
    return torch.cat([direction, shifted / half], dim=-1)


def points_outside(
    points: Float[Tensor, "batch views h w 3"], bounds: Float[Tensor, "batch 4"]
) -> Float[Tensor, "batch views h w 3"]:
    """Points of the world of the cube in the one that ``bounds`` are in."""
    middle, half = _spread(bounds)
    return middle + half * points


def _spread(bounds: Float[Tensor, "batch 4"]) -> tuple[Tensor, Tensor]:
    return bounds[:, None, None, None, :3], bounds[:, None, None, None, 3:]


@dataclass(frozen=True, eq=False)
class Nearness:
    """What attention is told of the places of latents and the rays of other tokens of a sequence.

    Attributes:
        places: Of latents, in the world of the cube.
        squares: Squared distances of the places from the rays of every sequence.
        heads: Of attention.
    """

    places: Float[Tensor, "latents 3"]
    squares: Float[Tensor, "sequences tokens latents"]
    heads: int

    @classmethod
    def of(cls, latents: int, rays: Float[Tensor, "batch views h w 6"], patch_size: int, heads: int) -> Nearness:
        """Every view a sequence; its tokens have the mean rays of their pixels.

        Args:
            latents: How many.
            rays: Pluecker coordinates in the world of the cube.
            patch_size: Pixels along a token.
            heads: Of attention.
        """
        places = lattice(latents).to(rays)
        mean = patchify(rays.movedim(-1, 2), patch_size).unflatten(-1, (6, -1)).mean(-1).flatten(0, 1)
        direction, moment = (x[:, :, None] for x in mean.split(3, -1))
        shape = (*mean.shape[:2], latents, 3)
        arms = moment - torch.linalg.cross(places.expand(shape), direction.expand(shape))
        lengths = direction.square().sum(-1).clamp_min(_SHORTEST)  # means of directions are shorter than 1
        return cls(places, arms.square().sum(-1) / lengths, heads)

    def together(self, batch: int) -> Nearness:
        """The views of a scene as one sequence, of ``batch`` scenes."""
        squares = self.squares.unflatten(0, (batch, -1)).flatten(1, 2)
        return Nearness(self.places, squares, self.heads)

    @property
    def of_latents(self) -> Float[Tensor, "1 heads latents latents"]:
        """Added to logits among latents."""
        return self._scaled((self.places[:, None] - self.places).square().sum(-1)[None])

    @property
    def of_tokens(self) -> Float[Tensor, "sequences heads tokens all"]:
        """Added to logits of tokens of views, that see latents and then each other; nothing among themselves."""
        among = self.squares.new_zeros(*self.squares.shape[:2], self.squares.shape[1])
        return self._scaled(torch.cat([self.squares, among], dim=-1))

    @property
    def of_all(self) -> Float[Tensor, "sequences heads all all"]:
        """Added to logits among latents and tokens of views, in this order."""
        among = self.of_latents.expand(len(self.squares), -1, -1, -1)
        return torch.cat([torch.cat([among, self._scaled(self.squares.mT)], dim=-1), self.of_tokens], dim=-2)

    def _scaled(self, squares: Float[Tensor, "n queries keys"]) -> Float[Tensor, "n heads queries keys"]:
        return -sharpness(self.heads).to(squares)[:, None, None] * squares[:, None]
