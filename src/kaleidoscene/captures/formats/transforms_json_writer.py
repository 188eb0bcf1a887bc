"""Writes ``transforms.json`` files that nerfstudio and its relatives read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.transforms_json import CENTRE, OPENGL_FROM_OPENCV, UP
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.serialisation import write_json

_LENS_KEYS = {
    "none": (),
    "opencv": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
    "fisheye": ("k1", "k2", "k3", "k4"),
}


def write_cameras(
    path: Path,
    image_names: list[str],
    cameras: Cameras,
    *,
    centred: str = "scene",
    depths: list[str] | None = None,
    depth_unit: float = 1.0,
    interpolated: list[bool] | None = None,
) -> None:
    """Write a ``transforms.json`` of pinhole cameras that nerfstudio reads, with intrinsics for every frame.

    Args:
        path: The file.
        image_names: Relative to its folder.
        cameras: One for each.
        centred: See :class:`kaleidoscene.captures.capture.Capture`.
        depths: Names of depth maps, likewise.
        depth_unit: World units of one of their levels.
        interpolated: Which images were put between others, and are not to be scored.
    """
    h, w = cameras.image_size
    poses = cameras.world_from_cam.double() @ OPENGL_FROM_OPENCV
    frames = []
    for name, pose, k in zip(image_names, poses.tolist(), cameras.intrinsics.tolist(), strict=True):
        frames.append({"file_path": name, "transform_matrix": pose, **_lens(k, (h, w))})
    for frame, name in zip(frames, depths or (), strict=depths is not None):
        frame |= {"depth_file_path": name, "depth_unit_scale_factor": depth_unit}
    for frame, is_between in zip(frames, interpolated or (), strict=interpolated is not None):
        if is_between:
            frame["interpolated"] = True
    document = {"camera_model": "PINHOLE", "scene_centred": centred, **_shared(frames), "frames": frames}
    write_json(path, document)


def write_frames(path: Path, capture: Capture, *, points: str | None = None) -> None:
    """Write the frames of a capture exactly: double precision, distortion, masks, depth, what is known of the scene.

    Args:
        path: The file.
        capture: With cameras; its files lie below the folder of ``path``.
        points: Name of a PLY file beside it.

    Raises:
        KaleidosceneError: A frame has no camera, or the lens models of the frames differ.
    """
    frames = []
    for frame in capture.frames:
        world_from_cam, intrinsics, size = frame.camera()
        entry: dict[str, Any] = {"file_path": _below(path, frame.image)}
        entry["transform_matrix"] = (world_from_cam @ OPENGL_FROM_OPENCV).tolist()
        entry |= _lens(intrinsics.tolist(), size)
        lens = dict(zip(_LENS_KEYS[frame.distortion.kind], frame.distortion.padded(), strict=True))
        if any([lens.pop(key) for key in ("k4", "k5", "k6")] if frame.distortion.kind == "opencv" else []):
            raise KaleidosceneError(
                f"{capture.name}: {frame.name} has k4, k5 or k6, which nerfstudio's OPENCV does not know."
            )
        entry |= lens
        if frame.time is not None:
            entry["time"] = frame.time
        if frame.interpolated:
            entry["interpolated"] = True
        if frame.bounds is not None:
            entry["depth_bounds"] = list(frame.bounds)
        if frame.mask is not None:
            entry["mask_path"] = _below(path, frame.mask)
        if frame.depth is not None:
            entry |= {"depth_file_path": _below(path, frame.depth), "depth_unit_scale_factor": frame.depth_scale}
        frames.append(entry)
    kinds = {frame.distortion.kind for frame in capture.frames}
    if len(kinds - {"none"}) > 1 or kinds == {"none", "fisheye"}:
        raise KaleidosceneError(
            f"{capture.name}: frames with different lens models cannot stand in one transforms.json."
        )
    extra: dict[str, Any] = {} if points is None else {"ply_file_path": points}
    for key, known in ((CENTRE, capture.centre), (UP, capture.upward)):
        extra |= {} if known is None else {key: known.tolist()}
    model = "OPENCV_FISHEYE" if "fisheye" in kinds else "OPENCV" if "opencv" in kinds else "PINHOLE"
    document = {"camera_model": model, "scene_centred": capture.centred, **extra, **_shared(frames), "frames": frames}
    write_json(path, document)


def _below(path: Path, file: Path) -> str:
    return file.relative_to(path.parent).as_posix()


def _lens(k: list[list[float]], size: tuple[int, int]) -> dict[str, Any]:
    h, w = size
    return {"fl_x": k[0][0], "fl_y": k[1][1], "cx": k[0][2], "cy": k[1][2], "w": w, "h": h}


def _shared(frames: list[dict[str, Any]]) -> dict[str, Any]:
    """Intrinsics of the first frame at the top as well, for readers that look there only."""
    return {key: frames[0][key] for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
