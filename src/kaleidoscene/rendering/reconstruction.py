"""A scene that was made of photographs: its cameras, any view of it with depth, and a complete cloud of points."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation
from kaleidoscene.geometry.trajectories import sphere
from kaleidoscene.geometry.view import View
from kaleidoscene.images.files import write_image
from kaleidoscene.reconstruction.fusion import FusionConfig, PointViews, fuse
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.rendering.renderer import TARGET_SEEDS, Scene, in_chunks
from kaleidoscene.rendering.scene_file import read_scene, write_scene
from kaleidoscene.rendering.system import Drawing, SceneKeeper, System
from kaleidoscene.serialisation import save_aside

OnView = Callable[[int, int], None]
"""Called with the views done and their total."""
AROUND = 24
"""Views from all sides by which the world of a scene is told, where it is not known what will be asked for."""
_IN_ONE_CALL = 8
NO_DISTANCE = 1e-6
"""A camera so near to the origin stands in the object."""


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a model knows of photographs.

    Attributes:
        system: The model; it renders points.
        scene: Of batch 1.
        images: The photographs as the model saw them, RGB in [0, 1].
        cameras: Of the photographs, ``(sources,)``, in the world that everything here is in: that of the capture, or
            of the model where it estimated them.
        origin: Of the object, in that world.
        up: In that world.
        seed: Of what is drawn, by models that draw.
    """

    system: System
    scene: Scene
    images: Float[Tensor, "sources 3 h w"]
    cameras: Cameras
    origin: Float[Tensor, " 3"]
    up: Float[Tensor, " 3"]
    seed: int = 0

    @classmethod
    def of(
        cls,
        system: System,
        images: Float[Tensor, "sources 3 h w"],
        cameras: Cameras,
        origin: Float[Tensor, " 3"],
        up: Float[Tensor, " 3"],
        *,
        seed: int = 0,
    ) -> Reconstruction:
        """What a model makes of images with cameras ``(sources,)``; what it draws is drawn here.

        Raises:
            KaleidosceneError: The first camera stands at the origin.
        """
        if float((cameras.centres[0] - origin).norm()) < NO_DISTANCE:
            raise KaleidosceneError(
                f"The first camera stands where the object should be, at {origin.tolist()}; give images without "
                "cameras, or several with."
            )
        inside = SceneNormalisation(origin, torch.ones(())).normalise(cameras)
        scene = system.renderer.encode(images[None], inside.reshape(1, len(cameras)))
        made = cls(system, scene, images, cameras, origin, up, seed)
        scene = expect_all_around(system, scene, made.view)
        if isinstance(system.renderer, Drawing):
            system.renderer.draw(scene, seed)
        return replace(made, scene=scene)

    def render(self, cameras: Cameras, *, on_view: OnView | None = None, keep: Path | None = None) -> PointViews:
        """Views with depth and points from cameras ``(targets,)`` of the model's image size.

        Args:
            cameras: Of the views.
            on_view: Progress.
            keep: Folder in which finished views wait, should the rest be interrupted; those that are there are taken.

        Raises:
            KaleidosceneError: There are none.
        """
        if not len(cameras):
            raise KaleidosceneError("There is nothing to render: zero targets.")
        parts = []
        for some in in_chunks(len(cameras), _IN_ONE_CALL, on_view):
            file = None if keep is None else keep / f"{some.start:06d}.safetensors"
            kept = None if file is None or not file.is_file() else _read_views(file, cameras[some])
            parts.append(self._some(cameras[some]) if kept is None else kept)
            if file is not None and kept is None:
                _write_views(file, parts[-1])
        return PointViews(
            *(torch.cat([getattr(part, name) for part in parts]) for name in ("images", "depths", "points")),
            confidence=torch.cat([part.confidence for part in parts]), cameras=cameras,
        )  # fmt: skip

    def _some(self, cameras: Cameras) -> PointViews:
        count = len(cameras)
        inside = self._centred.normalise(cameras).reshape(1, count)
        seeds = [self.seed * TARGET_SEEDS] * count
        rendering = self.system.renderer.render(self.scene, inside, seeds=seeds, independent=True)
        if rendering.depths is None or rendering.points is None or rendering.confidence is None:
            raise KaleidosceneError(f"{self.system.family} renders no points.")
        points = rendering.points[0].cpu() + self.origin
        return PointViews(
            rendering.images[0].cpu(), rendering.depths[0].cpu(), points, rendering.confidence[0].cpu(), cameras
        )

    def around(self, frames: int) -> Cameras:
        """Cameras on a sphere about the object, as far from it as the first source."""
        return sphere(self.view, frames)

    @property
    def view(self) -> View:
        """Where paths about the object start: at the first source."""
        return View(self.cameras[0], self.origin.to(self.cameras.world_from_cam), self.up)

    def sources(self, *, on_view: OnView | None = None, keep: Path | None = None) -> PointViews:
        """The photographs with the points that are told at their cameras; arguments as of :meth:`render`."""
        return replace(self.render(self.cameras, on_view=on_view, keep=keep), images=self.images)

    @property
    def _centred(self) -> SceneNormalisation:
        """From the world to one whose zero is the object's middle."""
        return SceneNormalisation(self.origin, torch.ones(()))

    def points(
        self,
        frames: int = 24,
        config: FusionConfig | None = None,
        *,
        sources: PointViews | None = None,
        new: PointViews | None = None,
        on_view: OnView | None = None,
    ) -> SurfacePoints:
        """The complete object: points of the sources and of views all around it.

        Args:
            frames: Views around the object.
            config: Which of their pixels count; by default as the authors' release.
            sources: What :meth:`sources` gives, where it is at hand.
            new: Views all around, where they are at hand; ``frames`` counts for nothing then.
            on_view: Progress.

        Raises:
            KaleidosceneError: No pixel is left.
        """
        seen = self._about_the_object(sources or self.sources())
        if new is None and frames:
            new = self.render(self.around(frames), on_view=on_view)
        cloud = fuse(seen, None if new is None else self._about_the_object(new), config or FusionConfig())
        return replace(cloud, positions=cloud.positions + self.origin)

    def _about_the_object(self, views: PointViews) -> PointViews:
        return replace(views, points=views.points - self.origin, cameras=self._centred.normalise(views.cameras))

    def photographs(self, folder: Path) -> Capture:
        """The photographs as a capture with cameras.

        Args:
            folder: Where its images are written.
        """
        paths = [folder / f"{index:04d}.png" for index in range(len(self.images))]
        for path, image in zip(paths, self.images, strict=True):
            write_image(path, image)
        capture = Capture.of_images("scene", "scene file", folder, paths, self.cameras, centred="scene")
        return replace(capture, centre=self.origin, upward=self.up)

    def save(self, path: str | Path) -> None:
        """Write a scene file, from which :meth:`load` goes on without computing the scene again.

        Raises:
            KaleidosceneError: Scenes of this model cannot be kept.
        """
        own = {
            "images": self.images, "world_from_cam": self.cameras.world_from_cam,
            "intrinsics": self.cameras.intrinsics, "origin": self.origin, "up": self.up,
            "seed": torch.tensor(self.seed),
        }  # fmt: skip
        keeper, path = _keeper(self.system), Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scene(path, keeper, self.scene, own)

    @classmethod
    def load(cls, path: str | Path, system: System) -> Reconstruction:
        """Read a scene file of :meth:`save`.

        Raises:
            KaleidosceneError: It is damaged, or of another model.
        """
        scene, own = read_scene(Path(path), _keeper(system))
        try:
            images = own["images"]
            cameras = Cameras(own["world_from_cam"], own["intrinsics"], (images.shape[-2], images.shape[-1]))
            seed = int(own["seed"]) if "seed" in own else 0  # not in files of earlier versions
            return cls(system, scene, images, cameras, own["origin"], own["up"], seed)
        except KeyError as error:
            raise KaleidosceneError(f"{path}: the scene has no {error.args[0]!r}.") from error


def expect_all_around(system: System, scene: Scene, view: View) -> Scene:
    """A scene of which views from all sides will be asked for, as far away as a view that looks at its origin."""
    around = SceneNormalisation(view.centre, torch.ones(())).normalise(sphere(view, AROUND))
    return system.renderer.expect(scene, around.reshape(1, AROUND))


def _write_views(file: Path, views: PointViews) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: x.contiguous() for name, x in vars(views).items() if name != "cameras"}
    save_aside(file, lambda opened: opened.write(save(tensors)))


def _read_views(file: Path, cameras: Cameras) -> PointViews | None:
    """Views that were put away; None of a file that was damaged, which are made again."""
    try:
        return PointViews(**load_file(file), cameras=cameras)
    except (SafetensorError, OSError, TypeError):
        return None


def _keeper(system: System) -> SceneKeeper:
    if not isinstance(system, SceneKeeper):
        raise KaleidosceneError(f"Scenes of {system.family} cannot be kept in files.")
    return system
