"""Photographs become a folder: cameras, depth maps, a cloud of points, and pictures of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.poses import (
    RelativePoseScore,
    TrajectoryScore,
    relative_pose_scores,
    trajectory_errors,
)
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.selection import evenly_spaced
from kaleidoscene.geometry.trajectories import orbit
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.reconstruction.drawing import draw_cloud
from kaleidoscene.reconstruction.fusion import FusionConfig, PointViews
from kaleidoscene.reconstruction.meshing import mesh_of_views, write_meshes
from kaleidoscene.reconstruction.splats import write_splats
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.tsdf import MeshConfig
from kaleidoscene.rendering.fitting import prepare_images
from kaleidoscene.rendering.outputs import SheetRow, depth_pictures, write_contact_sheet
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.rendering.renderer import OnStep, estimated_cameras
from kaleidoscene.rendering.resume import PartialRendering
from kaleidoscene.rendering.system import SceneKeeper
from kaleidoscene.workflows.reconstruction_files import (
    check_libraries,
    enlarged,
    progress,
    write_cloud,
    write_turntable,
)
from kaleidoscene.workflows.request import describe_sizes, parse_references

WRITTEN = (
    "cloud.ply", "cloud.glb", "splats.ply", "transforms.json", "images/", "depth/",
    "scene.safetensors", "turntable.mp4", "contact_sheet.png",
)  # fmt: skip
_SCENE = "scene.safetensors"
_SHOWN = 8


@dataclass(frozen=True)
class Reconstructed:
    """What came of photographs.

    Attributes:
        points: Of the cloud.
        faces: Of the mesh; none where none was asked for.
        views: Images that were given.
        poses: How well the model told cameras that are known, if any are.
        path: How far they are off after the similarity that lays them on the known ones best, where three tell it.
    """

    points: int
    faces: int
    views: int
    poses: RelativePoseScore | None
    path: TrajectoryScore | None = None

    def describe(self, seconds: float) -> list[str]:
        """For users; ``seconds`` it took."""
        mesh = f" and {self.faces} faces" if self.faces else ""
        lines = [f"{self.points} points{mesh} from {self.views} images in {seconds:.1f} s."]
        if self.poses is not None:
            lines.append(
                f"Cameras told by the model, against those of the capture: RA@5 {self.poses.ra5:.1f} %, "
                f"RT@5 {self.poses.rt5:.1f} %, AUC@30 {self.poses.auc30:.1f} %."
            )
        if self.path is not None:
            lines.append(
                f"Laid on those by Sim(3), they are off by {self.path.ate_r:.1f} degrees (ATE_r) and by "
                f"{100 * self.path.ate_t:.1f} % of the distance of the farthest from the first (ATE_t)."
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
        precision: Of matrix products.
        seed: Of models that draw.
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
    precision: str = "fp32"
    seed: int = 0

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
            waiting = PartialRendering(self.out, self._identity(), overwrite=self.overwrite)
            try:
                done = self._write(folder, waiting.folder, advance)
            except KaleidosceneError:  # doing it again would end as it did
                waiting.discard()
                raise
            except BaseException:
                if (waiting.folder / _SCENE).is_file():
                    print("the scene and its finished views are kept; the same command goes on with the rest.")
                else:
                    waiting.discard()
                raise
        waiting.discard()
        return done

    def _write(self, folder: Path, waiting: Path, advance: Callable[[str, int, int], None]) -> Reconstructed:
        scene, views, new = self._rendered(waiting, partial(advance, "views"))
        cloud = scene.points(0, self.fusion, sources=views, new=new)
        mesh = None
        if self.surface:
            mesh = mesh_of_views(views, new, self.fusion, self.mesh, on_slab=partial(advance, "mesh"))
            write_meshes(folder, mesh, scene.up)
        self._write_views(folder, views)
        scene.save(folder / _SCENE)
        write_cloud(folder, cloud, scene.up)
        write_splats(folder / "splats.ply", cloud, radius=0.6 * _pixel(scene))
        self._write_pictures(folder, scene, views, cloud, partial(advance, "turntable"))
        faces = 0 if mesh is None else len(mesh)
        return Reconstructed(len(cloud), faces, len(self.capture), *self._pose_scores(scene))

    def _identity(self) -> dict[str, Any]:
        """All that the scene and its views depend on."""
        system = self.model.system
        assert isinstance(system, SceneKeeper)  # what renders points keeps its scenes
        seen = hashlib.sha256(prepare_images(system, self.capture, masked=self.masked).numpy().tobytes())
        poses = self.capture.cameras.world_from_cam.tolist() if self.capture.is_posed else None
        lenses = [None if frame.intrinsics is None else frame.intrinsics.tolist() for frame in self.capture.frames]
        return {
            "model": system.fingerprint, "seen": seen.hexdigest(), "cameras": poses, "lenses": lenses,
            "frames": self.frames, "origin": self.capture.origin().tolist() if poses else None,
            "up": self.capture.up().tolist() if poses else None, "precision": self.precision, "seed": self.seed,
        }  # fmt: skip

    def _rendered(self, waiting: Path, on_view: OnStep) -> tuple[Reconstruction, PointViews, PointViews | None]:
        """The scene, its sources and the views around it; what is done waits in a folder until all is."""
        file = waiting / _SCENE
        if file.is_file():
            scene = self.model.open_scene(file)
            kept = sum(1 for _ in waiting.glob("*/*.safetensors"))
            print(f"going on with the scene that was made, and {kept} parts of its views")
        else:
            scene = self.model.reconstruct(self.capture, masked=self.masked, seed=self.seed)
            scene.save(file)
        views = scene.sources(keep=waiting / "sources")
        around = scene.around(self.frames) if self.frames else None
        new = None if around is None else scene.render(around, on_view=on_view, keep=waiting / "new")
        return scene, views, new

    def _pose_scores(self, scene: Reconstruction) -> tuple[RelativePoseScore | None, TrajectoryScore | None]:
        """Of the cameras that the model told, where the capture has some to hold them against."""
        estimated = estimated_cameras(scene.scene)
        if not self.capture.is_posed or estimated is None or len(self.capture) < 2:
            return None, None
        ours, true = estimated.world_from_cam[0], self.capture.cameras.world_from_cam
        try:
            path = trajectory_errors(ours, true)
        except KaleidosceneError:  # two cameras, or all on one line: no similarity is told
            path = None
        return relative_pose_scores(ours, true), path

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
        size = 1.5 * _pixel(scene)
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


def _pixel(scene: Reconstruction) -> float:
    """Width of one at the object, world units."""
    return scene.view.distance / float(scene.cameras.intrinsics[0, 1, 1])


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
    numbers = evenly_spaced(len(capture), most) if named is None else parse_references(named)
    chosen, notes = capture.select(numbers), [f"{capture.name}: {note}." for note in capture.notes]
    shown = ", ".join(map(str, numbers[:12])) + (" ..." if len(numbers) > 12 else "")
    notes.append(f"{capture.name}: {len(numbers)} of {len(capture)} images are used ({shown}).")
    if capture.is_posed:
        held = ", and are held against those that the model tells" if estimates and len(numbers) > 1 else ""
        notes.append(f"Its cameras fix the world{held}.")
    return chosen, notes + describe_sizes(chosen)
