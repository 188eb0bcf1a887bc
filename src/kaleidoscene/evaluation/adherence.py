"""Whether rendered views were taken from where they were asked for: their cameras are estimated again and compared."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.formats import colmap
from kaleidoscene.captures.formats.photos import read_photos
from kaleidoscene.captures.posing import NoCamerasError, PoseConfig, estimate_poses
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.poses import relative_pose_scores, trajectory_errors
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.files import write_image

Estimator = Callable[[Path], dict[str, Tensor]]
"""Folder of images to ``world_from_cam`` by file name, in any world and scale; images it cannot place are left out."""
_FEWEST = 3


@dataclass(frozen=True, kw_only=True)
class Adherence:
    """How well views keep to their cameras.

    Attributes:
        frames: Views that were rendered.
        registered: Those whose camera could be estimated; the errors are of these alone.
        ate_t: See :class:`kaleidoscene.evaluation.metrics.poses.TrajectoryScore`; None of fewer than
            three, or of centres on one line.
        ate_r: Likewise, in degrees.
        ra5: See :class:`kaleidoscene.evaluation.metrics.poses.RelativePoseScore`, in percent.
        rt5: Likewise.
        auc30: Likewise.
    """

    frames: int
    registered: int
    ate_t: float | None = None
    ate_r: float | None = None
    ra5: float | None = None
    rt5: float | None = None
    auc30: float | None = None


def structure_from_motion(folder: Path) -> dict[str, Tensor]:
    """Estimate with pycolmap; nothing where it finds no cameras.

    Raises:
        KaleidosceneError: pycolmap is not installed.
    """
    colmap.load_pycolmap()
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "out"
        out.mkdir()
        try:
            estimate_poses(read_photos(folder), out, PoseConfig(), on_stage=lambda _: None)
        except NoCamerasError:  # views that cannot be placed are a result; a fault of the estimator is none
            return {}
        posed = colmap.read(out / "sparse" / "0")
        return {frame.image.name: frame.camera()[0] for frame in posed.frames}


ESTIMATORS: dict[str, Estimator] = {"pycolmap": structure_from_motion}
"""By the name that ``--adherence`` knows them by; add your own before calling."""


def measure_adherence(images: Float[Tensor, "views 3 h w"], cameras: Cameras, estimator: Estimator) -> Adherence:
    """Estimate the cameras of some views and compare them with those that were asked for.

    Args:
        images: RGB in [0, 1].
        cameras: ``(views,)``, as asked for.
        estimator: One of :data:`ESTIMATORS`, or any other.
    """
    if len(images) < _FEWEST:
        return Adherence(frames=len(images), registered=0)
    with tempfile.TemporaryDirectory() as scratch:
        names = [f"{number:04d}.png" for number in range(len(images))]
        for name, image in zip(names, images, strict=True):
            write_image(Path(scratch) / name, image)
        found = estimator(Path(scratch))
    places = [number for number, name in enumerate(names) if name in found]
    if len(places) < _FEWEST:
        return Adherence(frames=len(images), registered=len(places))
    estimated = torch.stack([found[names[number]] for number in places])
    asked = cameras.world_from_cam[places].to(estimated)
    pairs = relative_pose_scores(estimated, asked)
    try:
        path = trajectory_errors(estimated, asked)
    except KaleidosceneError:  # centres on one line leave the alignment open
        path = None
    return Adherence(
        frames=len(images), registered=len(places), ate_t=path and path.ate_t, ate_r=path and path.ate_r,
        ra5=pairs.ra5, rt5=pairs.rt5, auc30=pairs.auc30,
    )  # fmt: skip
