"""Cameras of photographs that have none: structure from motion with pycolmap, on the CPU."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.images import write_images
from kaleidoscene.captures.formats import colmap
from kaleidoscene.captures.formats.transforms_json_writer import write_frames
from kaleidoscene.captures.ply import write_ply
from kaleidoscene.choices import check_choices, check_range
from kaleidoscene.errors import KaleidosceneError

OnStage = Callable[[str], None]
_ENOUGH = 0.7  # of the images; with fewer a second attempt is made
# Images from which a principal point is told; what it has to gain; how far from the middle it may be, in longer sides.
_MANY, _BETTER, _FARTHEST = 10, 0.999, 0.1


class NoCamerasError(KaleidosceneError):
    """The images do not tell where they were taken."""


@dataclass(frozen=True, kw_only=True)
class PoseConfig:
    """How cameras are estimated."""

    max_image_size: int = 1600
    """Longer side at which features are looked for, pixels."""
    max_features: int = 8192
    """Features of an image."""
    shared_camera: bool | None = None
    """Whether all images have one lens and zoom; None: if they are of one size."""
    matching: Literal["auto", "exhaustive", "sequential"] = "auto"
    """Which pairs are compared: all, or neighbours in time (auto: neighbours for videos of more than 60 frames)."""
    overlap: int = 12
    """Neighbours on either side that a frame is compared with (sequential)."""
    principal_point: bool | None = None
    """Estimate where the optical axis meets the image, too; None: where one lens took ten images or more, and points
    then miss their pixels by less."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check_range(self, 1, 2**31 - 1, "max_image_size", "max_features", "overlap")
        check_range(self, 0, 2**31 - 1, "seed")


@dataclass(frozen=True)
class PoseResult:
    """What came out.

    Attributes:
        registered: Images that got a camera.
        images: Images that there were.
        points: Points of the scene.
        reprojection_error: Mean distance of points from their observations, pixels.
        others: Images in further reconstructions that could not be joined to this one.
        principal_point: Where the optical axis meets the images, pixels from their middle; None: it was not estimated.
    """

    registered: int
    images: int
    points: int
    reprojection_error: float
    others: int
    principal_point: tuple[float, float] | None = None


def estimate_poses(capture: Capture, folder: Path, config: PoseConfig, *, on_stage: OnStage) -> PoseResult:
    """Estimate cameras and write a COLMAP reconstruction with ``transforms.json`` beside it.

    Args:
        capture: Images without cameras.
        folder: Where to; gets images/, sparse/0/, transforms.json and points.ply.
        config: How.
        on_stage: Called with the name of every stage.

    Raises:
        KaleidosceneError: Fewer than two images, or none could be placed.
    """
    if len(capture) < 2:
        raise KaleidosceneError(f"{capture.name}: {len(capture)} image; cameras can be estimated from two or more.")
    pycolmap = colmap.load_pycolmap()
    pycolmap.set_random_seed(config.seed)
    copied = write_images(capture, folder, as_png=[".webp"])  # which pycolmap passes over
    with tempfile.TemporaryDirectory() as scratch:
        best, others = _map(pycolmap, copied, folder / "images", Path(scratch), config, on_stage)
    if best is None or best.num_reg_images() < 2:
        raise NoCamerasError(
            f"{capture.name}: no cameras could be estimated from these {len(capture)} images; they need textured, "
            "sharp, still scenes and at least half of each picture in the next one."
        )
    middle = None
    if config.principal_point is not False:
        on_stage("refining the lens")
        best, middle = _with_principal_point(pycolmap, best, asked=bool(config.principal_point))
    sparse = folder / "sparse" / "0"
    sparse.mkdir(parents=True)
    best.write_binary(str(sparse))
    times = {frame.image.name: frame.time for frame in copied.frames}
    posed = colmap.read(sparse)
    timed = tuple(replace(frame, time=times[frame.image.name]) for frame in posed.frames)
    posed = replace(posed, name=capture.name, frames=timed)
    if posed.points is not None:
        write_ply(folder / "points.ply", posed.points)
    write_frames(folder / "transforms.json", posed, points="points.ply" if posed.points else None)
    return PoseResult(
        len(posed), len(capture), best.num_points3D(), float(best.compute_mean_reprojection_error()), others, middle
    )


def _with_principal_point(pycolmap: Any, found: Any, *, asked: bool) -> tuple[Any, tuple[float, float] | None]:
    """A reconstruction whose principal point is estimated as well, and where that is; unchanged if it does not pay.

    Args:
        pycolmap: The library.
        found: The reconstruction.
        asked: Take what is found however few the images are, and however little it gains.
    """
    if found.num_cameras() != 1 or (not asked and found.num_reg_images() < _MANY):
        return found, None
    refined = copy.deepcopy(found)
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_principal_point, options.print_summary = True, False
    pycolmap.bundle_adjustment(refined, options)
    for reconstruction in (found, refined):
        reconstruction.update_point_3d_errors()
    (camera,) = refined.cameras.values()
    off = (camera.principal_point_x - camera.width / 2, camera.principal_point_y - camera.height / 2)
    before, after = (float(x.compute_mean_reprojection_error()) for x in (found, refined))
    pays = after < _BETTER * before and max(map(abs, off)) < _FARTHEST * max(camera.width, camera.height)
    return (refined, off) if asked or pays else (found, None)


def _most(found: dict[int, Any]) -> int:
    return max((reconstruction.num_reg_images() for reconstruction in found.values()), default=0)


def _place(pycolmap: Any, database: Path, images: Path, out: Path, count: int, *, narrow: bool) -> dict[int, Any]:
    """Incremental mapping; ``narrow`` takes the small angles between rays of somebody who walks straight ahead."""
    options = pycolmap.IncrementalPipelineOptions()
    options.min_model_size = min(options.min_model_size, count)
    if narrow:
        options.mapper.init_max_forward_motion = 1.0
        options.mapper.init_min_tri_angle = 4.0
        options.mapper.filter_min_tri_angle = 0.5
        options.mapper.init_min_num_inliers = 50
        options.mapper.abs_pose_min_num_inliers = 20
        options.triangulation.min_angle = 0.5
    out.mkdir()
    return pycolmap.incremental_mapping(database, images, out, options=options)


def _map(
    pycolmap: Any, capture: Capture, images: Path, scratch: Path, config: PoseConfig, on_stage: OnStage
) -> tuple[Any, int]:
    """The largest reconstruction, and how many images are in others alone."""
    database = scratch / "database.db"
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.max_image_size, extraction.sift.max_num_features = config.max_image_size, config.max_features
    one_size = len({frame.image_size for frame in capture.frames}) == 1
    shared = one_size if config.shared_camera is None else config.shared_camera
    mode = pycolmap.CameraMode.SINGLE if shared else pycolmap.CameraMode.AUTO
    names = [frame.image.name for frame in capture.frames]
    try:
        on_stage(f"looking for features in {len(names)} images")
        pycolmap.extract_features(
            database, images, image_names=names, camera_mode=mode, extraction_options=extraction,
            device=pycolmap.Device.cpu,
        )  # fmt: skip
        on_stage("matching")
        is_video = all(frame.time is not None for frame in capture.frames)
        if config.matching == "sequential" or (config.matching == "auto" and is_video and len(names) > 60):
            pairing = pycolmap.SequentialPairingOptions()
            pairing.overlap = config.overlap
            pycolmap.match_sequential(database, pairing_options=pairing, device=pycolmap.Device.cpu)
        else:
            pycolmap.match_exhaustive(database, device=pycolmap.Device.cpu)
        on_stage("placing cameras")
        found = _place(pycolmap, database, images, scratch / "first", len(names), narrow=False)
        if _most(found) < _ENOUGH * len(names):
            on_stage(f"placing cameras again, from smaller angles ({_most(found)} of {len(names)} were placed)")
            again = _place(pycolmap, database, images, scratch / "second", len(names), narrow=True)
            found = again if _most(again) > _most(found) else found
    except (RuntimeError, ValueError) as error:
        raise KaleidosceneError(
            f"{capture.name}: structure from motion failed ({str(error).splitlines()[-1]})."
        ) from error
    if not found:
        return None, 0
    best = max(found.values(), key=lambda reconstruction: reconstruction.num_reg_images())
    mine = {image.name for image in best.images.values() if image.has_pose}
    elsewhere = {i.name for other in found.values() for i in other.images.values() if i.has_pose} - mine
    return best, len(elsewhere)
