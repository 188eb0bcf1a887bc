"""Cameras against cameras: relative-pose accuracy, and trajectory errors after alignment (method D)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.alignment import umeyama
from kaleidoscene.geometry.poses import invert, rotation_angle

_AUC_DEGREES = 30


@dataclass(frozen=True)
class RelativePoseScore:
    """Over all pairs of cameras, in percent.

    Attributes:
        ra5: Share whose relative rotation is less than 5 degrees off.
        ra15: Likewise, 15 degrees.
        ra30: Likewise, 30 degrees.
        rt5: Share whose direction of relative translation is less than 5 degrees off, its sign left open.
        rt15: Likewise, 15 degrees.
        rt30: Likewise, 30 degrees.
        auc30: Area under the share of pairs below a threshold of 1 to 30 degrees, of the larger of the two angles.
    """

    ra5: float
    ra15: float
    ra30: float
    rt5: float
    rt15: float
    rt30: float
    auc30: float


@dataclass(frozen=True)
class TrajectoryScore:
    """After the similarity that lays the camera centres on the true ones best.

    Attributes:
        ate_t: Root mean square distance of centres over the true distance of the farthest camera from the first.
        ate_r: Mean angle between the rotations, in degrees.
    """

    ate_t: float
    ate_r: float

    @property
    def ate_r_radians(self) -> float:
        """:attr:`ate_r` in radians."""
        return math.radians(self.ate_r)


def relative_pose_scores(
    world_from_cam: Float[Tensor, "views 4 4"], truth: Float[Tensor, "views 4 4"]
) -> RelativePoseScore:
    """RA and RT at 5, 15 and 30 degrees, and AUC@30, over all unordered pairs (VGGT's evaluation; method D).

    Raises:
        KaleidosceneError: Fewer than two cameras.
    """
    views = len(truth)
    if views < 2:
        raise KaleidosceneError(f"Relative poses need at least 2 cameras, got {views}.")
    first, second = torch.triu_indices(views, views, 1)
    ours, true = (invert(p.double()[first]) @ p.double()[second] for p in (world_from_cam, truth))
    rotation = torch.rad2deg(rotation_angle(ours[:, :3, :3], true[:, :3, :3]))
    lengths = [p[:, :3, 3].norm(dim=-1) for p in (ours, true)]
    still = [length <= 1e-9 * length.max().clamp_min(1e-30) for length in lengths]
    a, b = (torch.nn.functional.normalize(p[:, :3, 3], dim=-1) for p in (ours, true))
    cross = torch.linalg.cross(a, b).norm(dim=-1)
    translation = torch.rad2deg(torch.atan2(cross, (a * b).sum(-1).abs()))
    # Cameras that fell together have no direction, which is as wrong as can be; true ones in one place ask for none.
    translation = torch.where(still[1], 0.0, torch.where(still[0], 90.0, translation))
    worst = torch.maximum(rotation, translation)
    counts = torch.histc(worst.clamp_max(_AUC_DEGREES + 0.5), bins=_AUC_DEGREES + 1, min=0, max=_AUC_DEGREES + 1)
    auc = (counts[:_AUC_DEGREES].cumsum(0) / len(worst)).mean()
    shares = [
        float((angle < limit).double().mean() * 100) for angle in (rotation, translation) for limit in (5, 15, 30)
    ]
    return RelativePoseScore(*shares, auc30=float(auc * 100))


def trajectory_errors(world_from_cam: Float[Tensor, "views 4 4"], truth: Float[Tensor, "views 4 4"]) -> TrajectoryScore:
    """ATE after alignment of the camera centres by Umeyama's Sim(3) (method D and its open choice 36).

    Not to be compared with numbers printed elsewhere, whose alignment and unit are not given.

    Raises:
        KaleidosceneError: Fewer than three cameras, or centres on one line.
    """
    ours, true = world_from_cam.double(), truth.double()
    similarity = umeyama(ours[:, :3, 3], true[:, :3, 3])
    distance = (similarity.points(ours[:, :3, 3]) - true[:, :3, 3]).square().sum(-1).mean().sqrt()
    extent = (true[:, :3, 3] - true[0, :3, 3]).norm(dim=-1).max()
    angle = torch.rad2deg(rotation_angle(similarity.rotation @ ours[:, :3, :3], true[:, :3, :3])).mean()
    return TrajectoryScore(float(distance / extent), float(angle))
