"""Photographs become a folder: cameras, depth maps, a cloud of points, and pictures of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from torch import Tensor

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.points import write_ply
from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.poses import RelativePoseScore, relative_pose_scores
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.trajectories import orbit
from kaleidoscene.geometry.upright import rotation_between
from kaleidoscene.images.files import write_image
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.reconstruction.drawing import draw_cloud
from kaleidoscene.reconstruction.fusion import FusionConfig, PointViews, pixel_width
from kaleidoscene.reconstruction.meshing import mesh_of_views, write_meshes
from kaleidoscene.reconstruction.splats import write_splats
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.tsdf import MeshConfig
from kaleidoscene.rendering.outputs import SheetRow, depth_pictures, write_contact_sheet, write_video
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.rendering.renderer import estimated_cameras
from kaleidoscene.workflows.request import describe_sizes, parse_references

WRITTEN = (
    "cloud.ply", "cloud.glb", "splats.ply", "transforms.json", "images/", "depth/",
    "scene.safetensors", "turntable.mp4", "contact_sheet.png",
)  # fmt: skip
_SHOWN = 8
_DRAWN = 256


@dataclass(frozen=True)
class Reconstructed:
    """What came of photographs.

    Attributes:
        points: Of the cloud.
        faces: Of the mesh; none where none was asked for.
        views: Images that were given.
        poses: How well the model told cameras that are known, if any are.
    """

    points: int
    faces: int
    views: int
    poses: RelativePoseScore | None

    def describe(self, seconds: float) -> list[str]:
        """For users; ``seconds`` it took."""
        mesh = f" and {self.faces} faces" if self.faces else ""
        lines = [f"{self.points} points{mesh} from {self.views} images in {seconds:.1f} s."]
        if self.poses is not None:
            lines.append(
                f"Cameras told by the model, against those of the capture: RA@5 {self.poses.ra5:.1f} %, "
                f"RT@5 {self.poses.rt5:.1f} %, AUC@30 {self.poses.auc30:.1f} %."
            )
        return lines


@dataclass(frozen=True, kw_only=True)
class ReconstructionJob:
    """What a reconstruction is made of.

    Attributes:
        out: Folder to write; it appears when everything is written.
        model: It renders points.
        capture: All of its views are used.
        masked: Lay its masks on white.
        frames: Views around the object beside those of the sources.
        fusion: Which pixels become points.
        surface: Fuse depth maps into a mesh as well.
        mesh: How.
        turntable: Frames of the video.
        fps: Of the video.
        overwrite: Replace the folder.
        sources: What is read, which the folder must not replace.
    """

    out: Path
    model: Model
    capture: Capture
    masked: bool = False
    frames: int = 24
    fusion: FusionConfig = FusionConfig()
    surface: bool = False
    mesh: MeshConfig = MeshConfig(resolution=96)
    turntable: int = 72
    fps: float = 24.0
    overwrite: bool = False
    sources: tuple[Path | None, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """What it writes."""
        return ("mesh.ply", "mesh.glb", *WRITTEN) if self.surface else WRITTEN

    def run(self) -> Reconstructed:
        """Reconstruct and write.

        Raises:
            KaleidosceneError: The model tells no points, no object is seen, or the folder cannot be written.
        """
        if self.frames < 0 or self.turntable < 1:
            raise KaleidosceneError(
                f"A cloud needs 0 or more views around it and 1 or more frames of its turntable, got {self.frames} and "
                f"{self.turntable}."
            )
        check_libraries()
        with whole_folder(self.out, overwrite=self.overwrite, sources=self.sources) as folder, progress() as advance:
            scene = self.model.reconstruct(self.capture, masked=self.masked)
            views = scene.sources()
            new = scene.render(scene.around(self.frames), on_view=partial(advance, "views")) if self.frames else None
            cloud = scene.points(0, self.fusion, sources=views, new=new)
            mesh = None
            if self.surface:
                mesh = mesh_of_views(views, new, self.fusion, self.mesh, on_slab=partial(advance, "mesh"))
                write_meshes(folder, mesh, scene.up)
            self._write_views(folder, views)
            scene.save(folder / "scene.safetensors")
            write_cloud(folder, cloud, scene.up)
            write_splats(folder / "splats.ply", cloud, radius=0.6 * pixel_width(scene.cameras))
            self._write_pictures(folder, scene, views, cloud, partial(advance, "turntable"))
        faces = 0 if mesh is None else len(mesh)
        return Reconstructed(len(cloud), faces, len(self.capture), self._pose_scores(scene))

    def _pose_scores(self, scene: Reconstruction) -> RelativePoseScore | None:
        """Of the cameras that the model told, where the capture has some to hold them against."""
        estimated = estimated_cameras(scene.scene)
        if not self.capture.is_posed or estimated is None or len(self.capture) < 2:
            return None
        return relative_pose_scores(estimated.world_from_cam[0], self.capture.cameras.world_from_cam)

    def _write_views(self, folder: Path, views: PointViews) -> None:
        """Sources as the model saw them, their cameras and depth maps."""
        pixels = np.stack([to_bytes(image) for image in views.images])
        rgba = np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=-1)
        centred = self.capture.centred if self.capture.is_posed else "object"
        write_rendered_capture(folder, rgba, views.cameras, depth=views.depths.numpy(), centred=centred)

    def _write_pictures(
        self, folder: Path, scene: Reconstruction, views: PointViews, cloud: SurfacePoints, on_frame: Callable
    ) -> None:
        """The turntable, coloured and lit side by side, and the contact sheet."""
        size = 1.5 * scene.view.distance / float(scene.cameras.intrinsics[0, 1, 1])
        path = enlarged(orbit(scene.view, self.turntable, elevation=20.0))
        draw = partial(draw_cloud, cloud, size=size)
        write_turntable(folder, path, draw, fps=self.fps, on_frame=on_frame)
        new = scene.render(orbit(scene.view, _SHOWN, elevation=20.0))
        drawn = enlarged(new.cameras)
        rows = [SheetRow("sources", list(views.images)), SheetRow("their depth", depth_pictures(views.depths))]
        rows += [SheetRow("new views", list(new.images)), SheetRow("their depth", depth_pictures(new.depths))]
        pairs = [draw(drawn[number]) for number in range(len(drawn))]
        rows += [SheetRow("cloud", [one for one, _ in pairs]), SheetRow("its shape", [one for _, one in pairs])]
        write_contact_sheet(folder / "contact_sheet.png", rows)


def write_turntable(
    folder: Path, path: Cameras, draw: Callable[[Cameras], tuple[Tensor, Tensor]], *, fps: float,
    on_frame: Callable[[int, int], None],
) -> None:  # fmt: skip
    """``turntable.mp4``: two pictures side by side from each camera of a path.

    Args:
        folder: Where to.
        path: Cameras ``(frames,)``.
        draw: Makes them of what one camera sees: coloured and lit.
        fps: Of the video.
        on_frame: Progress.
    """
    pictures = folder / "turntable"
    pictures.mkdir()
    names = []
    for number in range(len(path)):
        names.append(pictures / f"{number:04d}.png")
        write_image(names[-1], torch.cat(draw(path[number]), dim=-1))
        on_frame(number + 1, len(path))
    write_video(folder / "turntable.mp4", names, fps=fps)
    shutil.rmtree(pictures)


def check_libraries() -> None:
    """Raise if a cloud could not be written in the end.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    try:
        import skimage  # noqa: F401, PLC0415  extras
        import trimesh  # noqa: F401, PLC0415
    except ImportError as error:
        raise KaleidosceneError(
            f"GLB files and meshes need trimesh and scikit-image ({error}): pip install 'kaleidoscene[reconstruction]'."
        ) from error


def write_cloud(folder: Path, cloud: SurfacePoints, up: Float[Tensor, " 3"]) -> None:
    """A cloud as ``cloud.ply`` in its own world, and as ``cloud.glb`` whose y axis is up, as viewers expect.

    Raises:
        KaleidosceneError: trimesh is not there.
    """
    check_libraries()
    import trimesh  # noqa: PLC0415  an extra

    write_ply(
        folder / "cloud.ply",
        PointCloud(cloud.positions, cloud.bytes, cloud.normals, cloud.confidence),
    )
    turn = rotation_between(up.to(cloud.positions), cloud.positions.new_tensor([0.0, 1.0, 0.0]))
    points: Any = trimesh.PointCloud((cloud.positions @ turn.T).numpy(), cloud.bytes.numpy())
    points.export(folder / "cloud.glb")


def enlarged(cameras: Cameras) -> Cameras:
    """The same cameras with more pixels."""
    h, w = cameras.image_size
    return cameras.resize(_DRAWN, round(w * _DRAWN / h / 2) * 2)


def choose_sources(
    capture: Capture, named: str | None, most: int, *, estimates: bool = True
) -> tuple[Capture, list[str]]:
    """The images that are named, or evenly spaced ones, and what there is to be said of them.

    Args:
        capture: To choose from.
        named: Numbers, or None.
        most: How many are taken where none are named.
        estimates: Whether the model tells cameras by itself.

    Raises:
        KaleidosceneError: There is no such image, one is named twice, or none is wanted.
    """
    if most < 1:
        raise KaleidosceneError(f"A reconstruction needs at least one image, got {most}.")
    if named is not None:
        numbers = parse_references(named)
    else:
        numbers = sorted(
            {round(place) for place in torch.linspace(0, len(capture) - 1, min(most, len(capture))).tolist()}
        )
    chosen, notes = capture.select(numbers), [f"{capture.name}: {note}." for note in capture.notes]
    shown = ", ".join(map(str, numbers[:12])) + (" ..." if len(numbers) > 12 else "")
    notes.append(f"{capture.name}: {len(numbers)} of {len(capture)} images are used ({shown}).")
    if capture.is_posed:
        held = ", and are held against those that the model tells" if estimates and len(numbers) > 1 else ""
        notes.append(f"Its cameras fix the world{held}.")
    return chosen, notes + describe_sizes(chosen)


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each kind of work; yields what is called with a kind, what is done and the total."""
    columns = TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as bar:
        tasks: dict[str, TaskID] = {}

        def advance(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = bar.add_task(kind, total=total)
            bar.update(tasks[kind], completed=done)

        yield advance
