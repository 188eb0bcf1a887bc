"""What 'Render path' does: the file of a path becomes the next folder below that of the window."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from kaleidoscene.captures.camera_paths import read_any_camera_path
from kaleidoscene.captures.capture import Capture
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.rendering.rendered import RenderedViews
from kaleidoscene.rendering.renderer import OnStep
from kaleidoscene.viewer.live import LiveScene
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, resolve_request


def render_path(
    path: Path, scene: LiveScene, *, name: str, capture: Capture, out: Path, fps: float, on_view: OnStep
) -> Path:
    """Render as 'kaleidoscene render --camera-path' does; a path that was stopped goes on in its folder.

    Args:
        path: The file of the path.
        scene: Its model, references and seed are taken.
        name: Of the model.
        capture: As it is shown.
        out: Folder of the renderings.
        fps: Of the film.
        on_view: Progress; what it raises stops the rendering.

    Returns:
        The folder that was written.
    """
    chosen = ",".join(map(str, scene.indices))
    options = RequestOptions(capture=capture.root, references=chosen, camera_path=path)
    request = resolve_request(options, scene.model, capture)
    jobs = (
        RenderingJob(
            out=folder, name=name, model=scene.model, request=request,
            plan=scene.model.system.default_plan.changed(chunk=1), precision="fp32", seed=scene.seed,
            fps=fps, overwrite=False, capture=capture.root, sources=(capture.root, path),
        ) for folder in _folders(out)
    )  # fmt: skip
    job = next(job for job in jobs if job.is_free)
    job.run(on_view)
    return job.out


def render_made(path: Path, made: Reconstruction, *, capture: Capture, out: Path, fps: float, on_view: OnStep) -> Path:
    """Render from a scene that was made before, with depth; a path that was stopped goes on.

    Args:
        path: The file of the path.
        made: The scene.
        capture: Its photographs.
        out: Folder of the renderings.
        fps: Of the film.
        on_view: Progress; what it raises stops the rendering.

    Returns:
        The folder that was written.
    """
    seen = made.images.numpy().tobytes() + made.cameras.world_from_cam.numpy().tobytes()
    waiting = out / f".{hashlib.sha256(seen + path.read_bytes()).hexdigest()[:16]}.views"
    views = made.render(read_any_camera_path(path), on_view=on_view, keep=waiting)
    shutil.rmtree(waiting, ignore_errors=True)
    folder = next(folder for folder in _folders(out) if not folder.exists())
    RenderedViews(views.images, views.cameras, made.images, capture, views.depths).save(folder, fps=fps)
    return folder


def _folders(out: Path) -> Iterator[Path]:
    return (out / f"path-{n:03d}" for n in count(1))
