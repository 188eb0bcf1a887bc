"""A model that renders images alone makes a mesh: views from all sides, a surface that is fitted to them, a texture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.api import Model
from kaleidoscene.captures.conversion.tools import to_colmap
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.frames import PointCloud
from kaleidoscene.choices import check_range
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.coverage import coverage
from kaleidoscene.geometry.trajectories import orbit, rings
from kaleidoscene.images.files import read_image
from kaleidoscene.reconstruction.drawing import draw_mesh
from kaleidoscene.reconstruction.meshing import simplified, write_mesh
from kaleidoscene.reconstruction.pictures import Pictures, silhouettes
from kaleidoscene.reconstruction.signed_distance import SurfaceFieldConfig, fit_surface
from kaleidoscene.reconstruction.splats import write_splats
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.reconstruction.texture import PaintViews, TexturedMesh, bake, coloured, write_textured_mesh
from kaleidoscene.reconstruction.triangle_mesh import TriangleMesh
from kaleidoscene.rendering.outputs import SheetRow, frame_name, write_contact_sheet
from kaleidoscene.workflows.reconstruction_files import (
    check_libraries,
    enlarged,
    progress,
    write_cloud,
    write_turntable,
)
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RenderRequest

MESH_FILES = (
    "mesh.glb", "mesh.ply", "cloud.ply", "cloud.glb", "splats.ply", "views/", "colmap/", "turntable.mp4",
    "contact_sheet.png",
)  # fmt: skip
_SHOWN = 8
Advance = Callable[[str, int, int], None]
OnDone = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class MeshOptions:
    """How views become a mesh."""

    surface: SurfaceFieldConfig = SurfaceFieldConfig()
    references: float = 3.0
    """How much a photograph counts beside a rendered view that photographs show whole."""
    least: float = 0.2
    """How much a rendered view counts of which photographs show nothing."""
    white: float = 0.2
    """A pixel of a rendered view is background that is nearer to white: blurred outlines count as background."""
    photograph_white: float = 0.05
    """Likewise of a photograph."""
    faces: int = 20_000
    """Of the mesh with a texture."""
    texture: int = 1024
    """Side of the texture, texels."""

    def __post_init__(self) -> None:
        check_range(self, 0, math.inf, "references", above=True)
        check_range(self, 0, 1, "least", "white", "photograph_white")
        check_range(self, 100, 10_000_000, "faces")
        check_range(self, 64, 8192, "texture")


@dataclass(frozen=True)
class Meshed:
    """What came of it.

    Attributes:
        faces: Of the mesh as it was cut.
        painted: Share of the texture that some image sees.
        views: That were rendered.
    """

    faces: int
    painted: float
    views: int

    def describe(self, seconds: float) -> list[str]:
        """For users; ``seconds`` it took."""
        return [
            f"{self.faces} faces fitted to {self.views} rendered views in {seconds:.1f} s; images show "
            f"{100 * self.painted:.0f} % of the texture."
        ]


@dataclass(frozen=True, kw_only=True)
class MeshJob:
    """What a mesh is made of.

    Attributes:
        rendering: Asks for the references; its cameras are replaced by 36 around them, its folder lies in ours.
        options: Sizes and weights.
        turntable: Frames of the video.
        fps: Of the video.
    """

    rendering: RenderingJob
    options: MeshOptions = MeshOptions()
    turntable: int = 72
    fps: float = 24.0

    @property
    def files(self) -> tuple[str, ...]:
        """What it writes."""
        return MESH_FILES

    @property
    def views(self) -> int:
        """That are rendered."""
        return len(around(self.rendering.request).cameras)

    def run(self) -> Meshed:
        """Render, fit and write; views that are rendered are kept when something stops it.

        Raises:
            KaleidosceneError: The folder cannot be written, or the views agree on no surface.
        """
        if self.turntable < 1:
            raise KaleidosceneError(f"A turntable has 1 or more frames, got {self.turntable}.")
        request = self.rendering.request
        if request.references.centred == "scene" and not request.masked:
            raise KaleidosceneError(
                f"{request.references.name}: the cameras look about in a place; a surface is fitted to one object that "
                "all of them look at. Where something is behind it, give masks ('capture --cut-out') and --masked."
            )
        check_libraries()
        job, out = self.rendering, self.rendering.out
        with whole_folder(out, overwrite=job.overwrite, sources=job.sources) as folder:
            whole = out.resolve()
            views = replace(job, out=whole.with_name(f".{whole.name}.views"), request=around(job.request))
            views.run()
            with progress() as advance:
                made = self._fit(views, folder, advance)
        return made

    def _fit(self, views: RenderingJob, folder: Path, advance: Advance) -> Meshed:
        job = self.rendering
        images = torch.stack([
            read_image(views.out / frame_name(number))[0] for number in range(len(views.request.cameras))
        ])  # fmt: skip
        cameras = job.model.lens(views.request.cameras).to(torch.float32)
        mesh = surface_of(job.model, job.request, images, cameras, self.options, partial(advance, "surface"))
        sets = paint_of(job.request, images, cameras, self.options)
        mesh = coloured(mesh, sets)
        textured = bake(simplified(mesh, self.options.faces), sets, self.options.texture)
        views.out.rename(folder / "views")
        try:
            self._write(folder, mesh, textured, partial(advance, "turntable"))
        except BaseException:
            (folder / "views").rename(views.out)
            raise
        return Meshed(len(mesh), textured.painted, len(images))

    def _write(self, folder: Path, mesh: TriangleMesh, textured: TexturedMesh, on_frame: OnDone) -> None:
        capture = self.rendering.request.references
        up = capture.up().float()
        write_mesh(folder / "mesh.ply", mesh)
        write_textured_mesh(folder / "mesh.glb", textured, up)
        cloud = SurfacePoints(mesh.vertices, mesh.normals, mesh.colours, torch.ones(len(mesh.vertices)))
        write_cloud(folder, cloud, up)
        extent = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).amax())
        write_splats(folder / "splats.ply", cloud, radius=0.6 * extent / self.options.surface.resolution)
        views = read_capture(folder / "views")
        (folder / "colmap").mkdir()
        points = PointCloud(cloud.positions, cloud.bytes)
        to_colmap(replace(views, points=points), folder / "colmap")
        path = enlarged(orbit(capture, self.turntable, elevation=20.0))
        write_turntable(folder, path, partial(draw_mesh, textured), fps=self.fps, on_frame=on_frame)
        self._write_sheet(folder, textured)

    def _write_sheet(self, folder: Path, textured: TexturedMesh) -> None:
        """References, the views that were rendered, and the mesh in their places."""
        job = self.rendering
        seen = job.model.prepare(job.request.references, masked=job.request.masked)[0]
        cameras = job.model.lens(around(job.request).cameras).to(torch.float32)
        shown = range(0, len(cameras), -(-len(cameras) // _SHOWN))
        pictures = [read_image(folder / "views" / frame_name(number))[0] for number in shown]
        rows = [SheetRow("references", list(seen)), SheetRow("rendered views", pictures)]
        drawn = [draw_mesh(textured, cameras[number]) for number in shown]
        rows += [SheetRow("mesh", [one for one, _ in drawn]), SheetRow("its shape", [one for _, one in drawn])]
        write_contact_sheet(folder / "contact_sheet.png", rows)


def around(request: RenderRequest) -> RenderRequest:
    """The same references, and 36 views around them (:func:`kaleidoscene.geometry.trajectories.rings`)."""
    return replace(request, cameras=rings(request.references), truth=None, scored=())


def surface_of(
    model: Model, request: RenderRequest, images: Float[Tensor, "views 3 h w"], cameras: Cameras, options: MeshOptions,
    on_step: OnDone | None = None,
) -> TriangleMesh:  # fmt: skip
    """The surface that references and rendered views show.

    Args:
        model: That rendered them.
        request: Its references.
        images: What it rendered.
        cameras: From where.
        options: Weights and sizes.
        on_step: Progress.

    Raises:
        KaleidosceneError: There is none.
    """
    references = request.references
    photographs, own = model.prepare(references, masked=request.masked)
    shown = coverage(references.cameras, cameras, references.origin()).float()
    pictures = Pictures(
        images=torch.cat([photographs, images]),
        masks=torch.cat([silhouettes(photographs, options.photograph_white), silhouettes(images, options.white)]),
        cameras=Cameras.concatenate([own.to(torch.float32), cameras]),
        weights=torch.cat([
            torch.full((len(photographs),), options.references), options.least + (1 - options.least) * shown
        ]),
    )  # fmt: skip
    field = fit_surface(pictures, options.surface, on_step=on_step)
    return field.mesh(options.surface.least_part)


def paint_of(
    request: RenderRequest, images: Float[Tensor, "views 3 h w"], cameras: Cameras, options: MeshOptions
) -> list[PaintViews]:
    """What a mesh takes its colours from: photographs at their own size, and beside them what was rendered.

    Args:
        request: Its references.
        images: What was rendered.
        cameras: From where.
        options: Weights.
    """
    references = request.references
    photographs = references.images(masked=request.masked)
    return [
        PaintViews(some, silhouettes(some, white) > 0, where, weight)
        for some, where, white, weight in (
            (photographs, references.cameras, options.photograph_white, 10 * options.references),
            (images, cameras, options.white, 1.0),
        )
    ]  # fmt: skip
