"""The window as a whole: a server, what it shows, and its pages."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any, Literal

from torch import Tensor

from kaleidoscene.api import Model
from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.rendering.reconstruction import Reconstruction
from kaleidoscene.rendering.renderer import OnStep
from kaleidoscene.viewer.beside import Laid, lay_beside
from kaleidoscene.viewer.choosing import Choice, ChoicePanel, Load
from kaleidoscene.viewer.client import Page
from kaleidoscene.viewer.comparison import Other, Photographs, beside
from kaleidoscene.viewer.gate import Gate
from kaleidoscene.viewer.live import LiveFrame, LiveScene
from kaleidoscene.viewer.panel import PathPanel
from kaleidoscene.viewer.path import PathEditor
from kaleidoscene.viewer.path_rendering import render_made, render_path
from kaleidoscene.viewer.things import FRUSTUM, scale_of, show_cameras, show_file

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a window is about.

    Attributes:
        capture: Posed views.
        references: Views to render from.
        out: Folder for what is saved and rendered from the page.
        name: Of the model that renders at first.
        load: Gives the model of a name; None: cameras alone are shown.
        names: Of models that can be chosen.
        against: Another model that is given the same references, or the capture's own images, to be compared with.
        made: The scene, where it was made before; its photographs are the capture.
        beside: Captures that are shown as well, in a row beside the first.
    """

    capture: Capture
    references: tuple[int, ...]
    out: Path
    name: str = "default"
    load: Load | None = None
    names: tuple[str, ...] = ()
    against: Model | Literal["truth"] | None = None
    made: Reconstruction | None = None
    beside: tuple[Capture, ...] = ()


class Window:
    """A viser server that shows a capture, files, and new views where a page looks.

    Args:
        host: Of the address that pages are served at. Beyond this machine they are served to those alone who have the
            token of the address.
        port: Of the server; on this machine another one is taken where it is not free.

    Raises:
        KaleidosceneError: viser is missing, or nothing can listen there.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8080) -> None:
        inside = host in _LOOPBACK
        own = {"host": host, "port": port} if inside else {"host": "127.0.0.1", "port": port + 1}
        self.server = _viser().ViserServer(**own, label="Kaleidoscene", verbose=False)
        try:
            self.gate = None if inside else Gate(host, port, self.server.get_port())
        except KaleidosceneError:
            self.server.stop()
            raise
        self.server.gui.configure_theme(dark_mode=False, show_logo=False, show_share_button=False)
        # A page could ask for a public tunnel by itself; nobody without the address is to see the window.
        self.server.request_share_url = _not_shared
        self.server.gui.main_panel.dock_right()
        self.pages: dict[int, Page] = {}
        self.scene: LiveScene | None = None
        self.other: Other | None = None
        self._refused = False  # what was chosen last
        self._changing = RLock()  # callbacks of pages come from many threads, and from fields that are set here
        self._cameras: list[Any] = []

    @property
    def address(self) -> str:
        """Where a browser finds it."""
        if self.gate is not None:
            return self.gate.address
        return f"http://{self.server.get_host()}:{self.server.get_port()}"

    def show_files(self, paths: Sequence[Path]) -> list[str]:
        """Meshes and clouds, which can be downloaded as they are; returns what they are."""
        said = [f"{path.name}: {show_file(self.server.scene, path, n)}" for n, path in enumerate(paths)]
        if paths:
            with self.server.gui.add_folder("Files"):
                for path in paths:
                    self._offer(path)
        return said

    def _offer(self, path: Path) -> None:
        button = self.server.gui.add_button(f"Download {path.name}")
        button.on_click(
            lambda event: event.client.send_file_download(path.name, path.read_bytes(), save_immediately=True)
        )

    def show(self, subject: Subject) -> None:
        """Cameras of a capture, and with a model new views of it and camera paths.

        Raises:
            KaleidosceneError: There is no such model or view.
        """
        self.subject, self.capture = subject, subject.capture
        scale = scale_of(self.capture)
        self.server.scene.set_up_direction(self.capture.up().double().numpy())
        self.server.scene.add_frame("/world", axes_length=0.2 * scale, axes_radius=0.004 * scale)
        self._draw_cameras(list(subject.references))
        if subject.beside:
            self.server.scene.add_label("/name", self.capture.name, position=self.capture.origin().double().numpy())
        for number, laid in enumerate(lay_beside(self.capture, list(subject.beside)), start=1):
            self._draw_beside(laid, f"/beside/{number}", scale)
        if subject.load is not None:
            self._prepare(subject.load)
        # Pages that wait for the server come at once, and need all of it.
        self.server.on_client_connect(self._connect)
        self.server.on_client_disconnect(lambda client: self.pages.pop(client.client_id).end())

    def _prepare(self, load: Load) -> None:
        """What is rendered live, and the panel."""
        subject, gui = self.subject, self.server.gui
        self._choice = Choice(subject.name, subject.references, 0, 0)
        model = load(subject.name)
        made = subject.made
        self.scene = LiveScene(model, self.capture, subject.references) if made is None else LiveScene.of(model, made)
        self.other = self._other(self.scene)
        with gui.add_folder("New views"):
            compared = subject.against is not None
            self.chosen = ChoicePanel(
                gui, subject.names or (subject.name,), self._choice, self.scene, compared=compared,
                fixed=made is not None,
            )  # fmt: skip
            show = gui.add_checkbox("Show cameras", True)
        self.chosen.on_change(self._change_scene, self._use)
        if self.chosen.share is not None:
            self.chosen.share.on_update(lambda _: [page.look() for page in list(self.pages.values())])
        show.on_update(lambda _: [setattr(handle, "visible", show.value) for handle in self._cameras])
        with gui.add_folder("Camera path"):
            editor = PathEditor(self.scene.intrinsics, self.scene.model.image_size, self.scene.any_lens)
            self.path = PathPanel(
                self.server, editor, self.capture, page_of=self._page_of, render=self._render, out=subject.out
            )

    def _render(self, path: Path, on_view: OnStep) -> Path:
        """The folder that a path was rendered into."""
        scene, subject, fps = self.scene, self.subject, self.path.editor.fps
        assert scene is not None
        if subject.made is not None:
            return render_made(
                path, subject.made, capture=self.capture, out=subject.out, fps=fps, on_view=on_view
            )  # fmt: skip
        return render_path(
            path, scene, name=self._choice.model, capture=self.capture, out=subject.out, fps=fps, on_view=on_view
        )

    def _page_of(self, client: Any) -> Page:
        return self.pages[client.client_id]

    def _draw_cameras(self, references: list[int]) -> None:
        for handle in self._cameras:
            handle.remove()
        self._cameras = show_cameras(self.server.scene, self.capture, references, self._fly_to)
        self.references = references

    def _draw_beside(self, laid: Laid, name: str, scale: float) -> None:
        def fly(client: Any, number: int) -> None:
            self._page_of(client).fly(laid.poses[number], laid.middle)

        show_cameras(self.server.scene, laid.capture, [], fly, name=name, poses=laid.poses, size=FRUSTUM * scale)
        self.server.scene.add_label(f"{name}/name", laid.capture.name, position=laid.middle.numpy())

    def _other(self, scene: LiveScene) -> Other | None:
        """What is compared with, for the references and the seed of a scene."""
        against = self.subject.against
        if against is None:
            return None
        if isinstance(against, str):
            return Photographs(self.capture, scene)
        return LiveScene(against, self.capture, scene.indices, scene.seed)

    def _compared(self, frame: LiveFrame, pose: Tensor) -> LiveFrame:
        """A view with the other answer beside it, where there is one."""
        if self.other is None or self.chosen.share is None or not self._is_compared():
            return frame
        share = float(self.chosen.share.value)
        degrees = math.degrees(field_of_view(frame.focal, frame.image.shape[-2]))  # of a path those of its cameras
        found = self.other.view(pose, degrees)
        return frame if found is None else beside(frame, found, share)

    def _is_compared(self) -> bool:
        """Whether the slider leaves anything of the other answer to be seen."""
        return self.other is not None and self.chosen.share is not None and float(self.chosen.share.value) < 1

    def _change_scene(self) -> None:
        """Model, references, steps or seed are others now."""
        with self._changing:
            before, was = self.scene, self._choice
            assert before is not None and self.subject.load is not None
            try:
                choice = self.chosen.choice()
                if choice == was and not self._refused:
                    return
                self._refused = False
                if choice.model != was.model:
                    self._say(f"loading {choice.model}")
                after = choice.scene(before, was, self.capture, self.subject.load)
                seed_alone = after.asked is before.asked and after.indices == before.indices
                held = self.other
                other = held.with_seed(after.seed) if seed_alone and isinstance(held, LiveScene) else self._other(after)
                if choice.references != was.references:
                    self._draw_cameras(list(choice.references))
            except Exception as error:  # memory that ran out, say; the window goes on with what it has
                kind = "" if isinstance(error, KaleidosceneError) else f"{type(error).__name__}: "
                if not isinstance(error, KaleidosceneError):
                    self.chosen.show(was)  # which asks for nothing new as long as nothing counts as refused
                self._refused = True
                self._say(f"{kind}{error}")
                return
            self.scene, self.other, self._choice = after, other, choice
            self.chosen.follow(after)
            self.path.follow(after)
            self._use()

    def _use(self) -> None:
        for page in list(self.pages.values()):
            page.use(self.scene if self.chosen.live.value else None, self.chosen.degrees)

    def _connect(self, client: Any) -> None:
        page = self.pages[client.client_id] = Page(client, self.scene, self._took, self._compared, self._is_compared)
        client.camera.near = 3 * FRUSTUM * scale_of(self.capture)  # who looks from a camera does not see its picture
        page.fly(self.capture.cameras.world_from_cam[self.references[0]], self.capture.origin())
        if self.scene is not None and self.chosen.live.value:
            page.use(self.scene, self.chosen.degrees)
        else:
            page.use(None)

    def _fly_to(self, client: Any, number: int) -> None:
        self._page_of(client).fly(self.capture.cameras.world_from_cam[number], self.capture.origin())

    def _took(self, sentence: str) -> None:
        """What a page says of its views; what was refused stands until it is mended."""
        if not self._refused:
            self._say(sentence)

    def _say(self, sentence: str) -> None:
        if self.scene is not None:
            self.chosen.said.content = sentence

    def wait(self) -> None:
        """Until Ctrl-C."""
        with contextlib.suppress(KeyboardInterrupt):
            self.server.sleep_forever()

    def close(self) -> None:
        """End the server and what its pages do."""
        if self.gate is not None:
            self.gate.close()
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


def _not_shared(*_: Any, **__: Any) -> None:
    """No address for others."""


def _viser() -> Any:
    try:
        import viser  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("The window needs viser: pip install 'kaleidoscene[viewer]'.") from error
    return viser
