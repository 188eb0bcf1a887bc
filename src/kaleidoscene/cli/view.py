"""kaleidoscene view: a window in the browser."""

from __future__ import annotations

import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro

from kaleidoscene.api import Model, load
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.common import parse
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.registry import shipped_models
from kaleidoscene.rendering.system import Magnifying
from kaleidoscene.training.checkpoint_folders import newest_samples
from kaleidoscene.viewer.comparison import TRUTH
from kaleidoscene.viewer.export import export
from kaleidoscene.viewer.things import CLOUDS, MESHES, SCENE
from kaleidoscene.viewer.window import Subject, Window, opened
from kaleidoscene.workflows.request import RequestOptions, references_of


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """A window in the browser: cameras and their pictures, new views where one looks, camera paths, clouds, meshes."""

    paths: tyro.conf.Positional[tuple[Path, ...]]
    """A capture, a rendering, a scene file, or a training run (what was rendered of held-out captures last); more
    captures to stand in a row beside it, and files of meshes and clouds (.glb, .obj, .ply)."""
    model: str | None = None
    """What renders new views of the first capture: 'default', a checkpoint or run folder, or a hub id; 'none': cameras
    alone, as of a training run. Of a scene file, the model that made it (by default 'rng'). The weights of the package
    can be chosen in the window too."""
    compare: str | None = None
    """Another model, whose views stand on the right of a slider, or 'truth': the images of the capture, where one looks
    through its cameras."""
    references: str | None = None
    """Views of the capture to render from, for example 0,8,16; by default as 'render' chooses them."""
    num_references: int | None = None
    """How many, where none are named."""
    image_size: int | None = None
    """Pixels on the longer side of new views, a multiple of the model's own (see 'kaleidoscene render'); models of the
    window that cannot do that keep their size."""
    out: Path = Path("view")
    """Folder for what is saved and rendered from the page; nothing else is written."""
    export: Path | None = None
    """Write one self-contained page with the scene, and the film of a rendering, and end; no server is left."""
    device: str = "cpu"
    host: str = "127.0.0.1"
    """Another address of this machine, or 0.0.0.0 for all, serves other machines too: those that have the token of the
    address that is printed."""
    port: int = 8080
    """On this machine another one is taken where it is not free."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(ViewOptions, argv, "view")
    files = [path for path in options.paths if path.suffix.lower() in (*MESHES, *CLOUDS)]
    others = [path for path in options.paths if path not in files]
    if not options.paths:
        raise KaleidosceneError("Give captures, renderings, a run or a scene file, or meshes and clouds.")
    if not 0 < options.port < 2**16 - 1:
        raise KaleidosceneError(f"--port must be from 1 to {2**16 - 2}, got {options.port}.")
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise KaleidosceneError(f"{missing}: no such file.")
    with tempfile.TemporaryDirectory() as scratch:
        subject = _subject(options, others, Path(scratch)) if others else None
        with opened(options.host, options.port) as window:
            print("\n".join(window.show_files(files)))
            if subject is not None:
                window.show(subject)
            if options.export is not None:
                _export(window, options, others)
                return
            print(f"open {window.address} in a browser; Ctrl-C ends it.", flush=True)
            window.wait()


def _subject(options: ViewOptions, paths: list[Path], scratch: Path) -> Subject:
    """What the window is about."""
    is_run = bool(newest_samples(paths[0]))
    path, *others = [capture for path in paths for capture in newest_samples(path) or [path]]
    is_scene = path.suffix.lower() == SCENE
    name = options.model or ("rng" if is_scene else "none" if is_run else "default")
    quiet = options.export is not None or name == "none"
    if options.compare is not None and options.export is not None:
        raise KaleidosceneError("--compare is for the window; a page of --export has no new views.")
    if options.compare is not None and quiet:
        raise KaleidosceneError("--compare holds something against the views of a model: give a capture and --model.")
    if options.image_size is not None and (quiet or is_scene):
        raise KaleidosceneError("--image-size is for new views of a capture: give one and --model.")
    loaded = functools.cache(functools.partial(_loaded, options, name))
    if is_scene:
        if options.references or options.num_references or options.compare:
            raise KaleidosceneError(f"{path}: a scene file is of all its photographs; it takes no other references.")
        made = loaded("rng" if name == "none" else name).open_scene(path)
        capture, references = made.photographs(scratch), tuple(range(len(made.images)))
    else:
        made, capture = None, read_capture(path)
        request = RequestOptions(capture=path, references=options.references, num_references=options.num_references)
        references = tuple(references_of(request, capture))
        capture.select(references)  # refuses what is no view
    against = loaded(options.compare) if options.compare not in (None, TRUTH) else options.compare
    return Subject(
        capture=capture, references=references, out=options.out, name=name, load=None if quiet else loaded,
        names=tuple(dict.fromkeys((name, *shipped_models()))), against=against, made=made,
        beside=tuple(read_capture(other) for other in others),
    )  # fmt: skip


def _loaded(options: ViewOptions, first: str, name: str) -> Model:
    """A model at the size that is asked for; only the ``first`` one must have it."""
    model = load(name, device=options.device)
    sized = name == first or isinstance(model.system, Magnifying)
    return model.at_size(options.image_size) if sized else model


def _export(window: Window, options: ViewOptions, others: list[Path]) -> None:
    """Write the page of ``--export``."""
    assert options.export is not None
    protect_inputs(options.export, options.paths)
    film = others[0] / "video.mp4" if others else None
    film = film if film is not None and film.is_file() else None
    export(window, options.export, title=options.paths[0].resolve().name, video=film)
    print(f"wrote {options.export}")


def protect_inputs(page: Path, paths: tuple[Path, ...]) -> None:
    """Raise if a page would take the place of what is shown.

    Raises:
        KaleidosceneError: It is one of the paths, or there in one of them.
    """
    whole = page.resolve()
    for path in paths:
        if whole == path.resolve() or (path.resolve() in whole.parents and whole.exists()):
            raise KaleidosceneError(f"--export {page}: it would replace what is shown; give another file.")
