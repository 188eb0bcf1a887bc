"""One open page: where it looks, and the views that are rendered for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from threading import Event, Thread
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.images.pixels import to_bytes
from kaleidoscene.viewer.live import LiveFrame, LiveScene, letterbox
from kaleidoscene.viewer.things import place_of, pose_of

Said = Callable[[str], None]
Compared = Callable[[LiveFrame, Float[Tensor, "4 4"]], LiveFrame]
"""From what is seen from a pose to what is shown of it."""

_STILL = 0.15
"""Seconds without a move after which a view is rendered whole."""


class Page:
    """Renders where a client of a viser server looks, in a thread of its own, until the client is gone.

    Args:
        client: Of the server.
        scene: What to render from; None while nothing is rendered live.
        say: Takes what the last view took, as a sentence.
        compared: Lays another answer beside a view.
        is_compared: Whether there is one to be laid: then views are shown whole alone.
    """

    def __init__(
        self, client: Any, scene: LiveScene | None, say: Said, compared: Compared, is_compared: Callable[[], bool]
    ) -> None:
        self.client, self.scene, self._say, self._compared = client, scene, say, compared
        self._is_compared = is_compared
        self.degrees: float | None = None
        """Vertical field of view that is looked through; None: that of the model."""
        self._asked, self._ended, self._playing = Event(), Event(), Event()
        client.camera.on_update(lambda _: self.look())
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def pose(self) -> Float[Tensor, "4 4"]:
        """``world_from_cam`` of where it looks from."""
        return pose_of(self.client.camera)

    def look(self) -> None:
        """Render anew as soon as what is being rendered is done."""
        if not self._playing.is_set():
            self._asked.set()

    def fly(self, world_from_cam: Float[Tensor, "4 4"], target: Float[Tensor, " 3"] | None = None) -> None:
        """Look from a pose; with ``target`` turns of the mouse go about it."""
        with self.client.atomic():
            for name, value in place_of(world_from_cam).items():
                setattr(self.client.camera, name, value)
            if target is not None:  # on the axis, so that the direction stays what it is
                pose = world_from_cam.double()
                depth = (target.double() - pose[:3, 3]) @ pose[:3, 2]
                if depth > 1e-6:
                    self.client.camera.look_at = (pose[:3, 3] + depth * pose[:3, 2]).numpy()

    def use(self, scene: LiveScene | None, degrees: float | None = None) -> None:
        """Render from another scene, or no more.

        Args:
            scene: To render from.
            degrees: Vertical field of view, for models that show any.
        """
        self.scene, self.degrees = scene, degrees
        if scene is None:
            self.client.scene.set_background_image(None)
            return
        self._look_through(scene.lens(degrees), scene)
        self.look()

    def _look_through(self, intrinsics: Float[Tensor, "3 3"], scene: LiveScene) -> None:
        self.client.camera.fov = field_of_view(float(intrinsics[1, 1]), scene.model.image_size[0])

    def play(self, cameras: Cameras, fps: float) -> None:
        """Fly along a path, with the views that a rendering of it has; at most ``fps`` a second.

        Raises:
            KaleidosceneError: Nothing is rendered live, or a path is being played already.
        """
        if (scene := self.scene) is None:
            raise KaleidosceneError("Playing shows new views: let them be rendered first.")
        if self._playing.is_set():
            raise KaleidosceneError("A path is being played already.")
        self._playing.set()
        try:
            for number, frame in enumerate(scene.film(cameras)):
                if self._ended.is_set():
                    return
                camera = cameras[number]
                self.fly(camera.world_from_cam)
                self._look_through(camera.intrinsics, scene)
                self._show(self._compared(frame, camera.world_from_cam))
                self._ended.wait(max(0.0, 1 / fps - frame.seconds))
        finally:
            self._playing.clear()
            if not self._ended.is_set() and self.scene is not None:
                self._look_through(self.scene.lens(self.degrees), self.scene)

    def end(self) -> None:
        """The client is gone."""
        self._ended.set()
        self._asked.set()

    def _run(self) -> None:
        while True:
            self._asked.wait()
            self._asked.clear()
            if self._ended.is_set():
                return
            if self.scene is None:
                continue
            try:
                pose = self.pose
                if self.scene.drafts and not self._is_compared():
                    self._show(self.scene.draft(pose, self.degrees))
                    if self._asked.wait(_STILL):
                        continue  # somebody moves on
                self._show(self._compared(self.scene.view(pose, self.degrees), pose))
            except KaleidosceneError as error:
                self._say(str(error))
            except Exception as error:  # memory that ran out, say; the page goes on
                if not self._ended.is_set():  # a client that vanishes in the middle breaks what is sent to it
                    self._say(f"{type(error).__name__}: {error}")

    def _show(self, frame: LiveFrame) -> None:
        with contextlib.suppress(ZeroDivisionError):  # a page that has not told its size yet
            laid = letterbox(frame, float(self.client.camera.aspect))
            depth = None if laid.depth is None else torch.where(laid.depth > 0, laid.depth, 1e6).numpy()
            self.client.scene.set_background_image(to_bytes(laid.image), format="png", depth=depth)
            self._say(f"{frame.seconds * 1000:.0f} ms a view")
