"""uCO3D: a sequence folder below ``metadata.sqlite``; frames lie in its ``rgb_video.mp4``.

Cameras are PyTorch3D's, as in CO3D, with OpenCV distortion; tuples are packed as little-endian float32 or int32.
"""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path
from typing import Any

import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.co3d import opencv_pose, pixel_intrinsics
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.files import inside
from kaleidoscene.geometry.distortion import Distortion
from kaleidoscene.images.videos import nearest_frame, video_timing

EXPECTS = "a sequence folder below metadata.sqlite (uCO3D)"
_DATABASE = "metadata.sqlite"
_COLUMNS = (
    "frame_number", "frame_timestamp", "_image_size", "_viewpoint_R", "_viewpoint_T", "_viewpoint_focal_length",
    "_viewpoint_principal_point", "_viewpoint_colmap_distortion_coeffs", "_viewpoint_intrinsics_format",
)  # fmt: skip


def find(path: Path) -> Path | None:
    """The sequence folder ``ROOT/super_category/category/sequence``."""
    below = len(path.parents) >= 3 and (path.parents[2] / _DATABASE).is_file()
    return path if path.is_dir() and (path / "rgb_video.mp4").is_file() and below else None


def read(path: Path) -> Capture:
    """Read the annotated frames of a sequence, in the order of their numbers.

    Raises:
        KaleidosceneError: The database is damaged or does not know the sequence, or a frame is not in the video.
    """
    root = path.parents[2]
    video_name, rows = _query(root / _DATABASE, path.name)
    video = inside(root, video_name or str(path.relative_to(root) / "rgb_video.mp4"), what="the video")
    timing = video_timing(video)
    frames = tuple(_frame(root / _DATABASE, video, timing, dict(zip(_COLUMNS, row, strict=True))) for row in rows)
    return Capture(path.name, "uco3d", path, frames)


def _query(database: Path, sequence: str) -> tuple[str | None, list[tuple[Any, ...]]]:
    try:
        connection = sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)
        try:
            rows = connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM frame_annots WHERE sequence_name = ? ORDER BY frame_number",
                (sequence,),
            ).fetchall()
            found = connection.execute("SELECT _video_path FROM sequence_annots WHERE sequence_name = ?", (sequence,))
            video = found.fetchone()
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeError) as error:
        raise KaleidosceneError(f"{database}: not a readable uCO3D database ({error}).") from error
    if not rows:
        raise KaleidosceneError(f"{database}: the sequence {sequence!r} has no frames here.")
    return (video[0] if video and isinstance(video[0], str) else None), rows


def _frame(database: Path, video: Path, timing: Any, row: dict[str, Any]) -> Frame:
    where = f"{database}: frame {row['frame_number']}"
    h, w = _unpack(where, row, "_image_size", "2i")
    if (h, w) != timing.image_size:
        raise KaleidosceneError(f"{where} is of {h}x{w}, the video {timing.image_size[0]}x{timing.image_size[1]}.")
    rotation = torch.tensor(_unpack(where, row, "_viewpoint_R", "9f"), dtype=torch.float64).view(3, 3)
    translation = torch.tensor(_unpack(where, row, "_viewpoint_T", "3f"), dtype=torch.float64)
    focal, principal = (
        torch.tensor(_unpack(where, row, f"_viewpoint_{name}", "2f"), dtype=torch.float64)
        for name in ("focal_length", "principal_point")
    )
    kind = row["_viewpoint_intrinsics_format"] or "ndc_norm_image_bounds"
    if kind not in ("ndc_norm_image_bounds", "ndc_isotropic"):
        raise KaleidosceneError(f"{where} has intrinsics of format {kind!r}, which is not known.")
    distortion = Distortion()
    if row["_viewpoint_colmap_distortion_coeffs"] is not None:
        *coefficients, s1, s2, s3, s4 = _unpack(where, row, "_viewpoint_colmap_distortion_coeffs", "12f")
        if any((s1, s2, s3, s4)):
            raise KaleidosceneError(f"{where} has thin-prism distortion, which is not supported.")
        distortion = Distortion.opencv(*coefficients)
    time = row["frame_timestamp"]
    if not isinstance(time, int | float):
        raise KaleidosceneError(f"{where} has no timestamp.")
    matrix = pixel_intrinsics(focal, principal, (h, w), isotropic=kind == "ndc_isotropic")
    pose = opencv_pose(rotation, translation)
    position = nearest_frame(video, timing, float(time))
    return Frame(video, (h, w), pose, matrix, distortion, time=float(time), position=position)


def _unpack(where: str, row: dict[str, Any], column: str, form: str) -> tuple[Any, ...]:
    value = row[column]
    if not isinstance(value, bytes) or len(value) != struct.calcsize("<" + form):
        raise KaleidosceneError(f"{where}: {column} is missing or not {form!r} packed.")
    return struct.unpack("<" + form, value)
