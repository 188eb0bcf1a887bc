"""Geometric transform attention (GTA): one positional encoding for image place, camera pose and time.

Every token has a group element with a block-diagonal matrix P. Queries are multiplied by P^T, keys and values by
P^{-1} and the output by P, so that attention sees relative elements P_i P_j^{-1} only (Kaleido section 3.2.1 (ii),
eq. 3 and 4). Image places are rotations that depend on the location, camera poses and frame times are 4x4 blocks
that depend on the view. Everything here is built in the precision of poses and times and applied in that of the tokens,
both at least fp32, whatever the autocast type.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.choices import check_choices
from kaleidoscene.errors import unknown_name
from kaleidoscene.geometry.poses import invert
from kaleidoscene.nn.positions import NOMINAL_FOCAL, ViewPositions
from kaleidoscene.nn.precision import exact

FrequencyKind = Literal["octave", "harmonic", "geometric", "rope"]
Representation = Literal["standard", "dual"]


@dataclass(frozen=True, kw_only=True)
class Frequencies:
    """How the bands of a rotation encoding are spaced (open choice E1).

    ``octave``: max_frequency * 2^-k (the official GTA code). ``harmonic``: k + 1. ``geometric``: from 1 to
    max_frequency in equal ratios. ``rope``: 10000^(-k / bands) on integer positions instead of angles.
    """

    kind: FrequencyKind = "octave"
    max_frequency: float = 1.0

    def __post_init__(self) -> None:
        check_choices(self)
        if self.max_frequency <= 0:
            raise ValueError(f"max_frequency must be positive, got {self.max_frequency}.")

    def angles(
        self, positions: Float[Tensor, "*batch"], count: int | float, bands: int
    ) -> Float[Tensor, "*batch bands"]:
        """Angle of every band at ``positions`` (in steps, 0 <= position < count)."""
        positions = exact(positions)
        k = torch.arange(bands, dtype=positions.dtype, device=positions.device)
        if self.kind == "rope":
            return positions[..., None] * 10000 ** (-k / bands)
        if self.kind == "octave":
            frequency = self.max_frequency * 2**-k
        elif self.kind == "harmonic":
            frequency = k + 1
        else:
            frequency = self.max_frequency ** (k / max(bands - 1, 1))
        return (2 * math.pi / count) * positions[..., None] * frequency


@dataclass(frozen=True, eq=False)
class Rotations:
    """Rotations of channel pairs: channel i of the first half turns with channel i of the second half."""

    cos: Float[Tensor, "tokens pairs"]
    sin: Float[Tensor, "tokens pairs"]

    def apply(self, x: Float[Tensor, "*batch tokens heads dim"], *, inverse: bool = False) -> Tensor:
        """Rotate the channels of ``x`` (fp32 or fp64, dim = 2 pairs) by the angle of each token."""
        return torch.cat(self.halves(x, inverse=inverse), dim=-1)

    def halves(self, x: Float[Tensor, "*batch tokens heads dim"], *, inverse: bool = False) -> tuple[Tensor, Tensor]:
        """The same before its two halves are joined, for those who have more to put beside them."""
        cos, sin = self.cos.to(x.dtype)[:, None], (-self.sin if inverse else self.sin).to(x.dtype)[:, None]
        a, b = x.chunk(2, dim=-1)
        return torch.addcmul(a * cos, b, sin, value=-1), torch.addcmul(a * sin, b, cos)


def image_rotations(
    grid: tuple[int, int],
    pairs: int,
    frequencies: Frequencies,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Rotations:
    """Rotations for the places of a token grid: half of the pairs turn with the row, half with the column.

    The angles are 2 pi i / H and 2 pi j / W, hence independent of the resolution.
    """
    rows, cols = grid
    i = torch.arange(rows, dtype=dtype, device=device)
    j = torch.arange(cols, dtype=dtype, device=device)
    by_row = frequencies.angles(i, rows, pairs // 2)[:, None].expand(rows, cols, -1)
    by_col = frequencies.angles(j, cols, pairs - pairs // 2)[None].expand(rows, cols, -1)
    angle = torch.cat([by_row, by_col], dim=-1).reshape(rows * cols, pairs)
    return Rotations(angle.cos(), angle.sin())


@dataclass(frozen=True, eq=False)
class ViewTransforms:
    """Per view the block-diagonal matrices, to be multiplied from the right onto row vectors.

    With P the block of a token: query P, key and value (P^{-1})^T, output P^T (representation ``standard``).
    """

    query: Float[Tensor, "batch views dim dim"]
    key: Float[Tensor, "batch views dim dim"]
    output: Float[Tensor, "batch views dim dim"]

    @staticmethod
    def apply(x: Float[Tensor, "batch views tokens heads dim"], matrix: Float[Tensor, "batch views dim dim"]) -> Tensor:
        """Multiply the channels of ``x`` (fp32 or fp64) by the matrix of its view."""
        b, v, tokens, heads, dim = x.shape
        flat = x.reshape(b * v, tokens * heads, dim)
        return torch.bmm(flat, matrix.to(x.dtype).reshape(b * v, dim, dim)).view(b, v, tokens, heads, dim)


def view_transforms(
    positions: ViewPositions,
    dim: int,
    *,
    representation: Representation = "standard",
    time_frequencies: Frequencies,
    use_poses: bool = True,
    use_lens: bool = False,
) -> ViewTransforms:
    """Matrices of the view part of the head (Kaleido eq. 3 and 4).

    A 3D scene repeats the 4x4 world-to-camera matrix ``dim / 4`` times; a video fills the same blocks with pairs of
    2x2 rotations by its time, so that one code path serves both.

    With lenses the matrix of a view is K [R|t], a projective transform of the world (PRoPE: Li et al., *Cameras as
    Relative Positional Encoding*, 2025), with K taken relative to the nominal lens: views with that lens have the
    matrices that they have without.

    Args:
        positions: Poses or times of the views.
        dim: Channels of the view part, a multiple of 4.
        representation: ``standard`` is GTA, ``dual`` is GTA with P^{-T} in place of P (CaPE's).
        time_frequencies: Bands of the time rotations.
        use_poses: False leaves 3D scenes without a view block (for encodings that tell poses another way).
        use_lens: Whether matrices know the lens: focal lengths and principal point.
    """
    if representation not in get_args(Representation):
        raise unknown_name("representation", representation, get_args(Representation))
    blocks = dim // 4
    with torch.autocast(positions.times.device.type, enabled=False):
        pose = positions.cam_from_world
        if not use_poses:
            pose = torch.eye(4, dtype=pose.dtype, device=pose.device).expand_as(pose)
        back = invert(pose)
        if use_lens:
            lens, unlens = lens_matrices(positions.lens)
            pose, back = lens @ pose, back @ unlens
        pose, back = (x[:, :, None].expand(-1, -1, blocks, 4, 4) for x in (pose, back))
        angle = time_frequencies.angles(positions.times, 1.0, 2 * blocks)
        time = _rotation_blocks(angle.unflatten(-1, (blocks, 2)))
        is_video = positions.is_video[:, None, None, None, None]
        p = _block_diagonal(torch.where(is_video, time, pose))
        inverse = _block_diagonal(torch.where(is_video, time.mT, back))
        if representation == "dual":
            return ViewTransforms(inverse.mT, p, inverse)
        return ViewTransforms(p, inverse.mT, p.mT)


def lens_matrices(
    lens: Float[Tensor, "batch views 4"],
) -> tuple[Float[Tensor, "batch views 4 4"], Float[Tensor, "batch views 4 4"]]:
    """K of each view and its inverse, relative to the nominal lens, whose K is the identity.

    With ``(X, Y, Z)`` in a camera's axes, ``K (X, Y, Z)`` over its last is where a camera of the nominal lens would
    have to look to meet the same place of its image.
    """
    focal, centre = lens[..., :2] / NOMINAL_FOCAL, (lens[..., 2:] - 0.5) / NOMINAL_FOCAL
    matrix = torch.eye(4, dtype=lens.dtype, device=lens.device).repeat(*lens.shape[:-1], 1, 1)
    inverse = matrix.clone()
    for axis in range(2):
        matrix[..., axis, axis], matrix[..., axis, 2] = focal[..., axis], centre[..., axis]
        inverse[..., axis, axis] = 1 / focal[..., axis]
        inverse[..., axis, 2] = -centre[..., axis] / focal[..., axis]
    return matrix, inverse


def _rotation_blocks(angle: Float[Tensor, "batch views blocks 2"]) -> Float[Tensor, "batch views blocks 4 4"]:
    """P = blockdiag(R(a)^T, R(b)^T) for each pair of angles."""
    cos, sin = angle.cos(), angle.sin()
    block = angle.new_zeros(*angle.shape[:-1], 4, 4)
    for n in range(2):
        a, b = 2 * n, 2 * n + 1
        block[..., a, a], block[..., b, b] = cos[..., n], cos[..., n]
        block[..., a, b], block[..., b, a] = sin[..., n], -sin[..., n]
    return block


def _block_diagonal(blocks: Float[Tensor, "batch views blocks 4 4"]) -> Float[Tensor, "batch views dim dim"]:
    b, v, n = blocks.shape[:3]
    matrix = blocks.new_zeros(b, v, n, 4, n, 4)
    index = torch.arange(n, device=blocks.device)
    # Advanced indices that are not adjacent put their axis first.
    matrix[:, :, index, :, index, :] = blocks.movedim(2, 0)
    return matrix.view(b, v, 4 * n, 4 * n)
