"""What lies on disk, drawn into the scene of a viser server: cameras with their pictures, clouds, meshes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.run import check_capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import field_of_view, quaternion_of, rigid, rotation_of
from kaleidoscene.images.pixels import resize_image, to_bytes

MESHES, CLOUDS, SCENE = (".glb", ".gltf", ".obj"), (".ply",), ".safetensors"
FRUSTUM = 0.05
"""Of a frustum, in distances of cameras from what they show."""
_THUMBNAIL = 64
_MOST_POINTS = 500_000
_FOUND = {"error": (200, 40, 40), "warning": (220, 150, 30)}
_REFERENCE, _OTHER = (40, 110, 220), (60, 60, 60)


def pose_of(camera: Any) -> Float[Tensor, "4 4"]:
    """``world_from_cam`` of a viser camera, or of anything with ``wxyz`` and ``position`` (OpenCV axes)."""
    wxyz = torch.from_numpy(np.asarray(camera.wxyz, dtype=np.float64))
    return rigid(rotation_of(wxyz), torch.from_numpy(np.asarray(camera.position, dtype=np.float64)))


def place_of(world_from_cam: Float[Tensor, "4 4"]) -> dict[str, Any]:
    """``wxyz`` and ``position`` of a pose, as viser takes them."""
    pose = world_from_cam.double()
    return {"wxyz": quaternion_of(pose[:3, :3]).numpy(), "position": pose[:3, 3].numpy()}


def scale_of(capture: Capture) -> float:
    """How far its cameras are from what they show, in the middle; 1 where all of them stand at one place."""
    far = float((capture.cameras.centres - capture.origin().to(capture.cameras.centres)).norm(dim=-1).median())
    return far if far > 1e-6 else 1.0


def show_cameras(
    scene: Any,
    capture: Capture,
    references: list[int],
    on_click: Callable[[Any, int], None],
    *,
    name: str = "/cameras",
    poses: Float[Tensor, "views 4 4"] | None = None,
    size: float | None = None,
) -> list[Any]:
    """A frustum with its picture for every view; what ``check`` finds is said beside the camera that it is about.

    Args:
        scene: Of a viser server.
        capture: Posed views.
        references: Drawn in another colour.
        on_click: Called with the client and the number of the view.
        name: Below which they lie.
        poses: Where they are drawn; by default where they are.
        size: Of a frustum, world units; by default a share of the capture's.
    """
    poses = capture.cameras.world_from_cam if poses is None else poses
    found = {finding.frame: finding for finding in reversed(check_capture(capture)) if finding.frame is not None}
    size, handles = size or FRUSTUM * scale_of(capture), []
    for number in range(len(capture)):
        camera, place = capture.cameras[number], f"{name}/{number:04d}"
        (h, w), focal = camera.image_size, float(camera.intrinsics[1, 1])
        finding = found.get(number)
        colour = _REFERENCE if number in references else _OTHER
        frustum = scene.add_camera_frustum(
            place, field_of_view(focal, h), w / h, scale=size, image=_thumbnail(capture.images(only=[number])[0]),
            color=colour if finding is None else _FOUND.get(finding.severity, colour),
            thickness=2.0, thickness_units="screen", **place_of(poses[number]),
        )  # fmt: skip
        frustum.on_click(lambda event, number=number: on_click(event.client, number))
        handles.append(frustum)
        if finding is not None and finding.severity in _FOUND:
            handles.append(scene.add_label(f"{place}/finding", f"{finding.severity}: {finding.value}"))
    return handles


def _thumbnail(image: Float[Tensor, "3 h w"]) -> np.ndarray:
    h, w = image.shape[-2:]
    scale = min(1.0, _THUMBNAIL / max(h, w))
    return to_bytes(resize_image(image, (max(1, round(h * scale)), max(1, round(w * scale)))))


def show_file(scene: Any, path: Path, number: int = 0) -> str:
    """A mesh or cloud of a file; returns what it is.

    Args:
        scene: Of a viser server.
        path: The file.
        number: Of the file, so that files of one name do not replace each other.

    Raises:
        KaleidosceneError: It is neither, does not read, or has nothing to show.
    """
    trimesh, name = _trimesh(), f"/files/{number}-{path.name}"
    try:
        loaded = trimesh.load(path)
    except Exception as error:  # trimesh raises whatever its readers do
        raise KaleidosceneError(f"{path}: not readable as a mesh or cloud ({error}).") from error
    if isinstance(loaded, trimesh.PointCloud):
        points, step = np.asarray(loaded.vertices, dtype=np.float32), -(-len(loaded.vertices) // _MOST_POINTS)
        if not len(points):
            raise KaleidosceneError(f"{path}: the cloud has no points.")
        colours = np.asarray(loaded.colors, dtype=np.uint8)
        colours = colours[:, :3] if colours.shape == (len(points), 4) else np.full((len(points), 3), 128, np.uint8)
        extent = float(np.ptp(points, axis=0).max())
        scene.add_point_cloud(name, points[::step], colours[::step], point_size=0.004 * extent)
        return f"a cloud of {len(points)} points"
    if loaded.is_empty:
        raise KaleidosceneError(f"{path}: there is no surface in the file.")
    if path.suffix.lower() == ".glb":  # as it is: browsers know its materials
        scene.add_glb(name, path.read_bytes())
    else:
        scene.add_mesh_trimesh(name, loaded if isinstance(loaded, trimesh.Trimesh) else loaded.to_mesh())
    return "a mesh"


def _trimesh() -> Any:
    try:
        import trimesh  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("Meshes and clouds need trimesh: pip install 'kaleidoscene[viewer]'.") from error
    return trimesh
