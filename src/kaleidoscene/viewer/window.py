"""The window as a whole: a server, what it shows, and its pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, Literal

from torch import Tensor

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.rendering.renderer import OnStep
from kaleidoscene.viewer.client import Page
from kaleidoscene.viewer.comparison import Other, Photographs, beside
from kaleidoscene.viewer.live import LiveFrame, LiveScene
from kaleidoscene.viewer.panel import PathPanel, Render
from kaleidoscene.viewer.path import PathEditor
from kaleidoscene.viewer.things import FRUSTUM, scale_of, show_cameras, show_file
from kaleidoscene.workflows.rendering import RenderingJob
from kaleidoscene.workflows.request import RequestOptions, parse_references, resolve_request

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Window:
    """A viser server that shows a capture, files, and new views where a page looks.

    Args:
        host: Loopback: the window has no password.
        port: Of the server; another one is taken where it is not free.

    Raises:
        KaleidosceneError: viser is missing, or the host is open to others.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8080) -> None:
        if host not in _LOOPBACK:
            raise KaleidosceneError(
                f"--host {host}: the window has no password and is served to this machine alone; reach it from another "
                f"one with 'ssh -L {port}:localhost:{port}'."
            )
        self.server = _viser().ViserServer(host=host, port=port, label="Kaleidoscene", verbose=False)
        self.server.gui.configure_theme(dark_mode=False, show_logo=False, show_share_button=False)
        # A page could ask for a public tunnel by itself; nobody beside this machine is to see the window.
        self.server.request_share_url = _not_shared
        self.server.gui.main_panel.dock_right()
        self.pages: dict[int, Page] = {}
        self.scene: LiveScene | None = None
        self.other: Other | None = None
        self._changing = Lock()  # callbacks of pages come from many threads
        self._cameras: list[Any] = []

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def show_files(self, paths: Sequence[Path]) -> list[str]:
        """Meshes and clouds; returns what they are."""
        return [f"{path.name}: {show_file(self.server.scene, path, n)}" for n, path in enumerate(paths)]

    def show_capture(
        self, capture: Capture, model: Model | None, references: list[int], out: Path, render: Render,
        against: Model | Literal["truth"] | None = None,
    ) -> None:  # fmt: skip
        """Cameras of a capture, and with a model new views of it and camera paths.

        Args:
            capture: Posed.
            model: What renders; None: cameras alone.
            references: Views to render from.
            out: Folder for what is saved and rendered from the page.
            render: Renders the file of a path.
            against: Another model that is given the same references, or the capture's own images, to be compared with.
        """
        self.against = against
        self.capture, scale = capture, scale_of(capture)
        self.server.scene.set_up_direction(capture.up().double().numpy())
        self.server.scene.add_frame("/world", axes_length=0.2 * scale, axes_radius=0.004 * scale)
        self._draw_cameras(references)
        if model is not None:
            self._prepare(LiveScene(model, capture, references), out, render)
        # Pages that wait for the server come at once, and need all of it.
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(lambda client: self.pages.pop(client.client_id).end())

    def _prepare(self, scene: LiveScene, out: Path, render: Render) -> None:
        """What is rendered live, and the panel."""
        self.scene = scene
        self.other = self._other(self.scene)
        with self.server.gui.add_folder("New views"):
            self._build_live()
        with self.server.gui.add_folder("Camera path"):
            editor = PathEditor(self.scene.intrinsics, self.scene.model.image_size)
            self.path = PathPanel(self.server, editor, self.capture, page_of=self._page_of, render=render, out=out)

    def _page_of(self, client: Any) -> Page:
        return self.pages[client.client_id]

    def _draw_cameras(self, references: list[int]) -> None:
        for handle in self._cameras:
            handle.remove()
        self._cameras = show_cameras(self.server.scene, self.capture, references, self._fly_to)
        self.references = references

    def _build_live(self) -> None:
        gui = self.server.gui
        self.live = gui.add_checkbox("Render where I look", True)
        self.shown = gui.add_text("References", ",".join(map(str, self.references)))
        self.seed = gui.add_number("Seed", 0, min=0, step=1)
        if self.other is not None:
            self.share = gui.add_slider(
                "Compare", min=0.0, max=1.0, step=0.01, initial_value=0.5, hint="Left the model, right the other one."
            )
            self.share.on_update(lambda _: [page.look() for page in list(self.pages.values())])
        self.took = gui.add_markdown("")
        self.live.on_update(lambda _: self._use())
        self.shown.on_update(lambda _: self._change_scene())
        self.seed.on_update(lambda _: self._change_scene())
        show = gui.add_checkbox("Show cameras", True)

        def on_show(_: Any) -> None:
            for handle in self._cameras:
                handle.visible = show.value

        show.on_update(on_show)

    def _other(self, scene: LiveScene) -> Other | None:
        """What is compared with, for the references and the seed of a scene."""
        if self.against is None:
            return None
        if isinstance(self.against, str):
            return Photographs(self.capture, scene)
        return LiveScene(self.against, self.capture, scene.indices, scene.seed)

    def _compared(self, frame: LiveFrame, pose: Tensor) -> LiveFrame:
        """A view with the other answer beside it, where there is one."""
        scene, other = self.scene, self.other
        if scene is None or other is None or self.share.value >= 1:
            return frame
        found = other.view(pose)
        zoom = float(scene.intrinsics[1, 1] / other.intrinsics[1, 1])
        return frame if found is None else beside(frame, found, float(self.share.value), zoom)

    def _change_scene(self) -> None:
        """References or seed are others now."""
        with self._changing:
            before = self.scene
            assert before is not None
            try:
                references, seed = parse_references(self.shown.value), int(self.seed.value)
                same = tuple(references) == before.indices
                after = before.with_seed(seed) if same else LiveScene(before.model, self.capture, references, seed)
                before_it = self.other
                other = before_it.with_seed(seed) if same and isinstance(before_it, LiveScene) else self._other(after)
                if not same:
                    self._draw_cameras(references)
            except KaleidosceneError as error:
                self._say(str(error))
                return
            self.scene, self.other = after, other
            self._use()

    def _use(self) -> None:
        for page in list(self.pages.values()):
            page.use(self.scene if self.live.value else None)

    def _connect(self, client: Any) -> None:
        page = self.pages[client.client_id] = Page(client, self.scene, self._say, self._compared)
        client.camera.near = 3 * FRUSTUM * scale_of(self.capture)  # who looks from a camera does not see its picture
        page.fly(self.capture.cameras.world_from_cam[self.references[0]], self.capture.origin())
        page.use(self.scene if self.scene is not None and self.live.value else None)

    def _fly_to(self, client: Any, number: int) -> None:
        self._page_of(client).fly(self.capture.cameras.world_from_cam[number], self.capture.origin())

    def _say(self, sentence: str) -> None:
        if self.scene is not None:
            self.took.content = sentence

    def wait(self) -> None:
        """Until Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            self.server.sleep_forever()

    def close(self) -> None:
        """End the server and what its pages do."""
        for page in list(self.pages.values()):
            page.end()
        self.server.stop()


@contextlib.contextmanager
def opened(host: str = "127.0.0.1", port: int = 8080) -> Iterator[Window]:
    """A window that is closed at the end."""
    window = Window(host, port)
    try:
        yield window
    finally:
        window.close()


def path_renderer(window: Window, name: str, capture: Path, out: Path) -> Render:
    """Renders a path as 'kaleidoscene render --camera-path' does, into the next folder below ``out``.

    Args:
        window: Its references, model and seed are taken.
        name: Of the model, as it was asked for.
        capture: Where the capture lies.
        out: Folder of the renderings.
    """

    def render(path: Path, on_view: OnStep) -> Path:
        scene = window.scene
        assert scene is not None
        chosen = ",".join(map(str, scene.indices))
        request = resolve_request(RequestOptions(capture=capture, references=chosen, camera_path=path), scene.model)
        jobs = (
            RenderingJob(
                out=out / f"path-{n:03d}", name=name, model=scene.model, request=request,
                plan=scene.model.system.default_plan.changed(chunk=1), precision="fp32", seed=scene.seed,
                fps=window.path.editor.fps, overwrite=False, capture=capture, sources=(capture, path),
            ) for n in count(1)
        )  # fmt: skip
        job = next(job for job in jobs if job.is_free)
        job.run(on_view)
        return job.out

    return render


def _not_shared(*_: Any, **__: Any) -> None:
    """No address for others."""


def _viser() -> Any:
    try:
        import viser  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("The window needs viser: pip install 'kaleidoscene[viewer]'.") from error
    return viser
