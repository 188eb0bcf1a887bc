"""kaleidoscene view: a window in the browser."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from kaleidoscene.api import load
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.common import parse
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.viewer.comparison import TRUTH
from kaleidoscene.viewer.export import export
from kaleidoscene.viewer.things import CLOUDS, MESHES
from kaleidoscene.viewer.window import Window, opened, path_renderer
from kaleidoscene.workflows.request import RequestOptions, references_of


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """A window in the browser: cameras and their pictures, new views where one looks, camera paths, clouds, meshes."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """A capture or rendering, and files of meshes and clouds (.glb, .obj, .ply) to lay beside it."""
    model: str = "default"
    """What renders new views: 'default', a checkpoint or run folder, or a hub id; 'none': cameras alone."""
    compare: str | None = None
    """Another model, whose views stand on the right of a slider, or 'truth': the images of the capture, where one looks
    through its cameras."""
    references: str | None = None
    """Views of the capture to render from, for example 0,8,16; by default as 'render' chooses them."""
    num_references: int | None = None
    """How many, where none are named."""
    out: Path = Path("view")
    """Folder for what is saved and rendered from the page; nothing else is written."""
    export: Path | None = None
    """Write one self-contained page with the scene, and the film of a rendering, and end; no server is left."""
    device: str = "cpu"
    host: str = "127.0.0.1"
    """Loopback alone: the window has no password."""
    port: int = 8080
    """Another one is taken where it is not free."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(ViewOptions, argv, "view")
    files = [path for path in options.paths if path.suffix.lower() in (*MESHES, *CLOUDS)]
    captures = [path for path in options.paths if path not in files]
    if len(captures) > 1 or not options.paths:
        raise KaleidosceneError("Give one capture or rendering, and any number of meshes and clouds.")
    if not 0 < options.port < 2**16:
        raise KaleidosceneError(f"--port must be from 1 to {2**16 - 1}, got {options.port}.")
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise KaleidosceneError(f"{missing}: no such file.")
    capture = read_capture(captures[0]) if captures else None
    quiet = capture is None or options.model == "none" or options.export is not None
    model = None if quiet else load(options.model, device=options.device)
    if options.compare is not None and options.export is not None:
        raise KaleidosceneError("--compare is for the window; a page of --export has no new views.")
    if options.compare is not None and model is None:
        raise KaleidosceneError("--compare holds something against the views of a model: give a capture and --model.")
    other = options.compare
    against = load(other, device=options.device) if other not in (None, TRUTH) else other
    with opened(options.host, options.port) as window:
        print("\n".join(window.show_files(files)))
        if capture is not None:
            _show(window, options, captures[0], capture, (model, against))
        if options.export is not None:
            protect_inputs(options.export, options.paths)
            film = captures[0] / "video.mp4" if captures else None
            film = film if film is not None and film.is_file() else None
            export(window, options.export, title=options.paths[0].resolve().name, video=film)
            print(f"wrote {options.export}")
            return
        print(f"open {window.address} in a browser; Ctrl-C ends it.", flush=True)
        window.wait()


def protect_inputs(page: Path, paths: tuple[Path, ...]) -> None:
    """Raise if a page would take the place of what is shown.

    Raises:
        KaleidosceneError: It is one of the paths, or there in one of them.
    """
    whole = page.resolve()
    for path in paths:
        if whole == path.resolve() or (path.resolve() in whole.parents and whole.exists()):
            raise KaleidosceneError(f"--export {page}: it would replace what is shown; give another file.")


def _show(window: Window, options: ViewOptions, path: Path, capture: Capture, models: tuple[Any, Any]) -> None:
    request = RequestOptions(capture=path, references=options.references, num_references=options.num_references)
    references = references_of(request, capture)
    capture.select(references)  # refuses what is no view
    render = path_renderer(window, options.model, path, options.out)
    window.show_capture(capture, models[0], references, options.out, render, models[1])
