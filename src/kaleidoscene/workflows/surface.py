"""A capture with depth maps becomes a mesh, a cloud of points and splats, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.rays import unproject
from kaleidoscene.geometry.trajectories import orbit
from kaleidoscene.reconstruction.drawing import draw_cloud
from kaleidoscene.reconstruction.fusion import PointViews
from kaleidoscene.reconstruction.meshing import painted, write_meshes
from kaleidoscene.reconstruction.splats import write_splats
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.tsdf import MeshConfig, mesh_of
from kaleidoscene.workflows.reconstruction_files import (
    check_libraries,
    enlarged,
    progress,
    write_cloud,
    write_turntable,
)

SURFACE_FILES = ("mesh.ply", "mesh.glb", "cloud.ply", "cloud.glb", "splats.ply", "turntable.mp4")
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Surface:
    """What came of a capture.

    Attributes:
        vertices: Of the mesh.
        faces: Of the mesh.
        views: With a depth map.
    """

    vertices: int
    faces: int
    views: int

    def describe(self, seconds: float) -> list[str]:
        """For users; ``seconds`` it took."""
        return [f"{self.faces} faces from {self.views} views with depth in {seconds:.1f} s."]


@dataclass(frozen=True, kw_only=True)
class SurfaceJob:
    """What a surface is made of.

    Attributes:
        out: Folder to write; it appears when everything is written.
        capture: Its views with depth maps are used.
        masked: Its masks say what is background; otherwise the images' own alpha does.
        mesh: Size of the grid.
        turntable: Frames of the video.
        fps: Of the video.
        overwrite: Replace the folder.
        sources: What is read, which the folder must not replace.
    """

    out: Path
    capture: Capture
    masked: bool = False
    mesh: MeshConfig = MeshConfig()
    turntable: int = 72
    fps: float = 24.0
    overwrite: bool = False
    sources: tuple[Path | None, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        """What it writes."""
        return SURFACE_FILES

    def run(self) -> Surface:
        """Fuse and write.

        Raises:
            KaleidosceneError: There are no depth maps, or they agree on no surface.
        """
        if self.turntable < 1:
            raise KaleidosceneError(f"A turntable has 1 or more frames, got {self.turntable}.")
        check_libraries()
        views, empty = views_of_capture(self.capture, masked=self.masked)
        up = self.capture.up().float()
        with whole_folder(self.out, overwrite=self.overwrite, sources=self.sources) as folder, progress() as advance:
            made = mesh_of(views.depths, views.cameras, empty=empty, config=self.mesh, on_slab=partial(advance, "mesh"))
            made = painted(made, [views], _TOLERANCE)
            write_meshes(folder, made, up)
            cloud = SurfacePoints(made.vertices, made.normals, made.colours, torch.ones(len(made.vertices)))
            write_cloud(folder, cloud, up)
            cell = float((made.vertices.amax(0) - made.vertices.amin(0)).amax()) / self.mesh.resolution
            write_splats(folder / "splats.ply", cloud, radius=0.6 * cell)
            path = enlarged(orbit(self.capture, self.turntable, elevation=20.0))
            draw = partial(draw_cloud, cloud, size=1.5 * cell)
            write_turntable(folder, path, draw, fps=self.fps, on_frame=partial(advance, "turntable"))
        return Surface(len(made.vertices), len(made), len(views))


def views_of_capture(capture: Capture, *, masked: bool = False) -> tuple[PointViews, torch.Tensor]:
    """Images on white with their depth maps, and which pixels are known to meet nothing.

    Args:
        capture: Posed; frames without a depth map are left out.
        masked: Take masks in place of alpha.

    Raises:
        KaleidosceneError: It has no cameras or no depth maps, or a file is not as it should be.
    """
    numbers = [number for number, frame in enumerate(capture.frames) if frame.depth is not None and frame.is_posed]
    if not numbers:
        raise KaleidosceneError(
            f"{capture.name}: no views with a camera and a depth map; a model makes them (--model rng)."
        )
    chosen = capture.select(numbers)
    images, depths = chosen.images(masked=masked), chosen.depths()
    alphas = chosen.masks()[:, 0] if masked else chosen.alphas()
    cover = torch.ones_like(depths) if alphas is None else alphas
    depths = torch.where(cover > 0.5, depths, 0.0)
    cameras = chosen.cameras.to(torch.float32)
    points = unproject(cameras, depths)
    return PointViews(images, depths, points, torch.ones_like(depths), cameras), (cover < 0.5) & (depths == 0)
