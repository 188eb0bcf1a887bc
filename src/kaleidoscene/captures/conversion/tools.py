"""Captures for nerfstudio, COLMAP, Blender-style loaders and LLFF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.images import pinhole_capture, write_images
from kaleidoscene.captures.conversion.points import point_cloud
from kaleidoscene.captures.formats import colmap, llff, transforms_json
from kaleidoscene.captures.formats.transforms_json_writer import write_frames
from kaleidoscene.captures.ply import write_ply
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.origin import depths_in_views
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.serialisation import write_json


def dropped(capture: Capture, tool: str) -> str:
    """What a tool's format has no place for or has to guess, as a sentence; empty if it is nothing."""
    said = []
    if tool != "nerfstudio":
        for key in ("mask", "depth"):
            count = sum(getattr(frame, key) is not None for frame in capture.frames)
            if count:
                said.append(f"{count} {key} maps have no place in this format and are not part of it")
    if tool != "nerfstudio" and (capture.centre is not None or capture.upward is not None):
        said.append("the middle of the scene and its up direction are guessed from the cameras again")
    if tool == "llff" and point_cloud(capture) is None and any(frame.bounds is None for frame in capture.frames):
        said.append("depth bounds are guessed as half to one and a half times the distance of the middle")
    return "; ".join(said) + "." if said else ""


def to_nerfstudio(capture: Capture, folder: Path) -> list[str]:
    """``transforms.json`` with images/, masks/ and depths/; points as ``points.ply``."""
    copied = write_images(capture, folder)
    cloud = point_cloud(capture)
    if cloud is not None:
        write_ply(folder / "points.ply", cloud)
    write_frames(folder / "transforms.json", copied, points="points.ply" if cloud else None)
    return ["transforms.json", "images/"] + (["points.ply"] if cloud else [])


def to_colmap(capture: Capture, folder: Path) -> list[str]:
    """``sparse/0`` (binary) with images/."""
    copied = write_images(capture, folder)
    colmap.write(folder / "sparse" / "0", copied)
    return ["sparse/0/", "images/"]


def to_blender(capture: Capture, folder: Path) -> list[str]:
    """``transforms_train.json`` with train/*.png, as NeRF-synthetic has it.

    Raises:
        KaleidosceneError: The frames have not one lens with a centred principal point, which is all that the form can
            say.
    """
    shot = pinhole_capture(capture, folder / "train")
    cameras = capture.exact_cameras
    h, w = cameras.image_size
    k = cameras.intrinsics
    centred = (k[:, :2, 2] - k.new_tensor([w / 2, h / 2])).abs().amax() < 0.51
    same = (k[:, 0, 0] / k[0, 0, 0] - 1).abs().amax() < 1e-6 and (k[:, 0, 0] / k[:, 1, 1] - 1).abs().amax() < 2e-3
    if not (centred and same):
        raise KaleidosceneError(
            f"{capture.name}: Blender's transforms know one focal length and centred square pixels; "
            "convert to nerfstudio or colmap."
        )
    poses = cameras.world_from_cam @ transforms_json.OPENGL_FROM_OPENCV
    frames = [
        {"file_path": f"./train/{frame.image.stem}", "transform_matrix": pose}
        for frame, pose in zip(shot.frames, poses.tolist(), strict=True)
    ]
    angle = field_of_view(float(k[0, 0, 0]), w)
    write_json(
        folder / "transforms_train.json", {"camera_angle_x": angle, "scene_centred": capture.centred, "frames": frames}
    )
    return ["transforms_train.json", "train/"]


def to_llff(capture: Capture, folder: Path) -> list[str]:
    """``poses_bounds.npy`` with images/ in the order of their names; bounds the capture's own, else from its points."""
    ordered = replace(capture, frames=tuple(sorted(capture.frames, key=lambda frame: frame.image.name)))
    known = [frame.bounds for frame in ordered.frames if frame.bounds is not None]
    bounds = known if len(known) == len(ordered) else _bounds(ordered)
    llff.write(folder / "poses_bounds.npy", write_images(ordered, folder), bounds)
    return ["poses_bounds.npy", "images/"]


def _bounds(capture: Capture) -> list[tuple[float, float]]:
    """Nearest and farthest depth of the points that each frame sees."""
    cloud = point_cloud(capture)
    if cloud is None:
        distances = (capture.exact_cameras.centres - capture.origin().double()).norm(dim=-1).tolist()
        return [(0.5 * distance, 1.5 * distance) for distance in distances]
    bounds = []
    for number, mine in enumerate(depths_in_views(capture.exact_cameras, cloud.positions)):
        if not len(mine):
            raise KaleidosceneError(
                f"{capture.name}: frame {number} sees none of the points, so it has no depth bounds."
            )
        # The percentiles that LLFF's own imgs2poses takes.
        near, far = torch.quantile(mine, mine.new_tensor([0.001, 0.999])).tolist()
        bounds.append((near, far))
    return bounds


WRITERS: dict[str, Callable[[Capture, Path], list[str]]] = {
    "nerfstudio": to_nerfstudio,
    "colmap": to_colmap,
    "blender": to_blender,
    "llff": to_llff,
}
"""By the name the command line knows them by; each returns what it wrote."""
