"""The panel of the window: what is rendered live, the camera path, and its rendering."""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Event, Lock, RLock
from typing import Any

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.viewer.client import Page
from kaleidoscene.viewer.live import LiveScene
from kaleidoscene.viewer.path import PRESETS, Keyframe, PathEditor
from kaleidoscene.viewer.things import FRUSTUM, place_of, pose_of, scale_of

Render = Callable[[Path, Callable[[int, int], None]], Path]
"""From the file of a path, and who is told of progress (and may stop it), to the folder that was written."""
_LINE, _GRIP, _NONE = (220, 60, 60), 0.2, "none"


class Stopped(KaleidosceneError):
    """Somebody pressed 'Stop'."""


class PathPanel:
    """Keyframes, presets, playing, rendering.

    Args:
        server: Of viser.
        editor: The path.
        start: Where presets start.
        page_of: The page of a client.
        render: Renders the file of a path.
        out: Folder that everything is written to, and nothing beside it.
    """

    def __init__(
        self, server: Any, editor: PathEditor, start: Capture, *, page_of: Callable[[Any], Page], render: Render,
        out: Path,
    ) -> None:  # fmt: skip
        self.server, self.editor, self.out = server, editor, out
        self._start, self._page_of, self._render = start, page_of, render
        self._stop, self._busy = Event(), Lock()
        self._editing = RLock()  # a page's clicks and drags come from many threads
        self._scale, self._grip, self._drawn = scale_of(start), None, []
        self._rendered: Path | None = None
        gui = server.gui
        self.said = gui.add_markdown("")
        self._build_keyframes(gui)
        self._build_path(gui)
        self._build_rendering(gui)
        self._changed()

    def _build_keyframes(self, gui: Any) -> None:
        add = gui.add_button("Add keyframe", hint="Where this page looks from.")
        add.on_click(lambda event: self._edit(lambda: self._add(event)))
        self.chosen = gui.add_dropdown("Keyframe", (_NONE,), hint="A click on its frame chooses it.")
        # Off where one looks from the keyframe, as after adding it: a grip about the eye would take all drags.
        self.dragging = gui.add_checkbox("Drag keyframe", False)
        for handle in (self.chosen, self.dragging):
            handle.on_update(lambda _: self._hold_anew())
        go, move, drop = (
            gui.add_button(label) for label in ("Go to keyframe", "Move keyframe here", "Delete keyframe")
        )
        go.on_click(lambda event: self._with_chosen(lambda place: self._fly(event, place)))
        move.on_click(lambda event: self._with_chosen(lambda place: self.editor.replace(place, self._seen(event))))
        drop.on_click(lambda _: self._with_chosen(self.editor.remove))
        gui.add_button("Delete all").on_click(lambda _: self._edit(self.editor.clear))

    def _build_path(self, gui: Any) -> None:
        self.preset = gui.add_dropdown("Preset", PRESETS)
        take = gui.add_button("Take preset")
        take.on_click(lambda _: self._edit(lambda: self.editor.take_preset(self.preset.value, self._start)))
        self.duration = gui.add_number("Seconds", self.editor.duration, min=0.1, max=600.0, step=0.1)
        self.fps = gui.add_number("Frames a second", self.editor.fps, min=1.0, max=120.0, step=1.0)
        self.closed = gui.add_checkbox("Back to the first", self.editor.closed)
        for handle in (self.duration, self.fps, self.closed):
            handle.on_update(lambda _: self._edit(self._take_numbers))
        gui.add_button("Play").on_click(lambda event: self._do(lambda: self._play(event)))

    def _build_rendering(self, gui: Any) -> None:
        gui.add_button("Save path").on_click(lambda event: self._do(lambda: self._save(event.client)))
        upload = gui.add_upload_button("Open path", mime_type="application/json")
        upload.on_upload(lambda _: self._edit(lambda: self._open(upload.value.content)))
        self.bar = gui.add_progress_bar(0.0, visible=False)
        gui.add_button("Render path").on_click(lambda event: self._do(lambda: self._render_path(event.client)))
        gui.add_button("Stop").on_click(lambda _: self._stop.set())
        frames = gui.add_button("Download frames", hint="Of the path that was rendered last, with its cameras.")
        frames.on_click(lambda event: self._do(lambda: self._send_frames(event.client)))

    def _add(self, event: Any) -> None:
        self.dragging.value = False
        self.editor.add(self._seen(event))

    def _seen(self, event: Any) -> Keyframe:
        page = self._page_of(event.client)
        return Keyframe(page.pose.float(), page.degrees)

    def _fly(self, event: Any, place: int) -> None:
        self._page_of(event.client).fly(self.editor.keyframes[place].world_from_cam, self._start.origin())

    def follow(self, scene: LiveScene) -> None:
        """Take the lens and image size of a scene that took the place of another one."""
        editor = self.editor
        with self._editing:
            editor.intrinsics, editor.image_size = scene.intrinsics, scene.model.image_size
            editor.any_lens = scene.any_lens
            self._changed()

    def _play(self, event: Any) -> None:
        self._page_of(event.client).play(self.editor.cameras(), self.editor.fps)

    def _take_numbers(self) -> None:
        self.editor.duration, self.editor.fps = float(self.duration.value), float(self.fps.value)
        self.editor.closed = bool(self.closed.value)

    def _with_chosen(self, what: Callable[[int], None]) -> None:
        if (place := self._place) is not None:
            self._edit(lambda: what(place))

    @property
    def _place(self) -> int | None:
        """The keyframe that is chosen."""
        return None if self.chosen.value == _NONE else int(self.chosen.value) - 1

    def _edit(self, what: Callable[[], None]) -> None:
        with self._editing:
            if self._do(what):
                self._changed()

    def _do(self, what: Callable[[], object]) -> bool:
        """Do what a button asks for; what cannot be done is said in the panel."""
        try:
            what()
            return True
        except KaleidosceneError as error:
            self.said.content = str(error)
        except OSError as error:
            self.said.content = f"{error.filename}: {error.strerror}."
        return False

    def _changed(self) -> None:
        """Show the path as it is now."""
        count, held = len(self.editor.keyframes), self._place
        self.chosen.options = tuple(str(n + 1) for n in range(count)) or (_NONE,)
        if held is not None and held < count:
            self.chosen.value = str(held + 1)
        self._draw()
        self._hold()

    def _draw(self) -> None:
        """The line of the path, and a frame for every keyframe."""
        editor, scene = self.editor, self.server.scene
        count = len(editor.keyframes)
        scene.remove_by_name("/path")
        for handle in self._drawn:
            handle.remove()
        self._drawn = [self._draw_keyframe(place) for place in range(count)]
        try:
            cameras = editor.cameras()
        except KaleidosceneError as error:
            self.said.content = str(error) if count == 0 else f"{count} keyframes; a path needs two."
            return
        self.said.content = f"{count} keyframes, {len(cameras)} frames." if count else f"{len(cameras)} frames."
        if len(cameras) > 1:
            points = cameras.centres.double().numpy()
            scene.add_spline_catmull_rom("/path", points, thickness=2.0, thickness_units="screen", color=_LINE)

    def _draw_keyframe(self, place: int) -> Any:
        (h, w), keyframe = self.editor.image_size, self.editor.keyframes[place]
        angle = field_of_view(float(self.editor.lens(keyframe)[1, 1]), h)
        frame = self.server.scene.add_camera_frustum(
            f"/keyframes/{place}", angle, w / h, scale=FRUSTUM * self._scale, color=_LINE, thickness=2.0,
            thickness_units="screen", **place_of(keyframe.world_from_cam),
        )  # fmt: skip

        def choose(_: Any) -> None:
            self.chosen.value, self.dragging.value = str(place + 1), True

        frame.on_click(choose)
        return frame

    def _hold_anew(self) -> None:
        with self._editing:
            self._hold()

    def _hold(self) -> None:
        """A grip at the keyframe that is chosen, to drag and turn it by, where it is wanted."""
        if self._grip is not None:
            self._grip.remove()
            self._grip = None
        place = self._place
        if not self.dragging.value or place is None or place >= len(self.editor.keyframes):
            return
        grip = self._grip = self.server.scene.add_transform_controls(
            "/grip", scale=_GRIP * self._scale, **place_of(self.editor.keyframes[place].world_from_cam)
        )
        grip.on_update(lambda _: self._drag(place, grip))

    def _drag(self, place: int, grip: Any) -> None:
        with self._editing:
            if grip is self._grip and place < len(self.editor.keyframes):
                self.editor.move(place, pose_of(grip).float())
                self._draw()

    def _save(self, client: Any) -> None:
        path = self.out / "camera_path.json"
        self.editor.save(path)
        client.send_file_download(path.name, path.read_bytes(), save_immediately=True)
        self.said.content = f"wrote {path}"

    def _open(self, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "path.json"
            path.write_bytes(content)
            try:
                self.editor.open(path)
            except KaleidosceneError as error:
                raise KaleidosceneError(str(error).replace(str(path), "the file")) from error
        self.duration.value, self.fps.value = self.editor.duration, self.editor.fps

    def _render_path(self, client: Any) -> None:
        if not self._busy.acquire(blocking=False):
            raise KaleidosceneError("A path is being rendered already.")
        try:
            self._stop.clear()
            self.editor.save(self.out / "camera_path.json")
            self.bar.visible = True
            folder = self._render(self.out / "camera_path.json", self._on_view)
            self._rendered = folder
            client.send_file_download("video.mp4", (folder / "video.mp4").read_bytes(), save_immediately=True)
            self.said.content = f"wrote {folder}"
        finally:
            self.bar.visible = False
            self._busy.release()

    def _send_frames(self, client: Any) -> None:
        if (folder := self._rendered) is None:
            raise KaleidosceneError("No path has been rendered here yet.")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:  # stored: PNG files do not become smaller
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(file, Path(folder.name) / file.relative_to(folder))
        client.send_file_download(f"{folder.name}.zip", packed.getvalue(), save_immediately=True)

    def _on_view(self, done: int, total: int) -> None:
        self.bar.value = 100.0 * done / total
        self.said.content = f"{done} of {total} views"
        if self._stop.is_set():
            raise Stopped(f"Stopped after {done} of {total} views; rendering the same path again goes on.")
