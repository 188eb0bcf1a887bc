"""Objects of nothing: a scene is drawn, and seen from all sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kaleidoscene.api import Model
from kaleidoscene.captures.formats.photos import intrinsics_of
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry import trajectories
from kaleidoscene.geometry.camera_path import write_camera_path
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import beside_object
from kaleidoscene.geometry.view import View
from kaleidoscene.rendering.ordering import render_in_order
from kaleidoscene.rendering.outputs import FrameWriter, depth_name, frame_name
from kaleidoscene.rendering.renderer import OnStep, Scene
from kaleidoscene.rendering.resume import REQUEST, is_finished
from kaleidoscene.rendering.system import Imagining
from kaleidoscene.serialisation import write_json
from kaleidoscene.workflows.samples import sample_name, write_side_by_side

_FILES = ("video.mp4", "transforms.json", "camera_path.json")


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What is to be made.

    Attributes:
        out: Folder to write, a folder in it for each sample.
        name: Of the model, as it was asked for.
        model: That draws scenes of nothing.
        samples: How many.
        frames: Of the turntable of each.
        elevation: Of the cameras above the object's middle, degrees.
        distance: Of the cameras from the middle, in lengths of the object's longest side.
        seed: Of the first; each further one has the next.
        fps: Of the videos.
        overwrite: Replace samples of another request.
        depth: Write depth maps, and name them in transforms.json.
        precision: Of matrix products.
        label: Class of all of them; None: any.
    """

    out: Path
    name: str
    model: Model
    samples: int
    frames: int
    elevation: float
    distance: float
    seed: int
    fps: float
    overwrite: bool
    depth: bool = False
    precision: str = "fp32"
    label: int | None = None

    @property
    def cameras(self) -> Cameras:
        """Around an object at the origin, z up."""
        h, _ = size = self.model.image_size
        matrix = intrinsics_of(self.model.system.focal_over_height * h, size)
        first = Cameras(beside_object(self.distance, self.elevation), matrix.double(), size)
        origin, up = torch.zeros(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
        return trajectories.orbit(View(first, origin, up), self.frames)

    def run(self, on_sample: Callable[[int, bool], None], on_step: OnStep | None = None) -> None:
        """Make what is not there yet, and lay all side by side.

        Args:
            on_sample: Called with the samples that are there, and whether the last was made just now.
            on_step: Progress inside a sample.

        Raises:
            KaleidosceneError: The model draws no scenes of nothing, or a folder cannot be written.
        """
        self.model.require("generates", "Generating")
        self._scene()  # a label that there is not is said before a folder is made
        for number in range(self.samples):
            folder, said = self.out / sample_name(number + 1), self._identity(self.seed + number)
            names = [name(index) for index in range(self.frames) for name in self._names]
            is_new = not is_finished(folder, said, [*names, *_FILES])
            if is_new:
                with whole_folder(folder, overwrite=self.overwrite) as partial:
                    self._write(partial, self.seed + number, on_step)
                    write_json(partial / REQUEST, said)
            on_sample(number + 1, is_new)
        write_side_by_side(self.out, self.samples, self.frames, fps=self.fps)

    @property
    def _names(self) -> list[Callable[[int], str]]:
        return [frame_name, depth_name] if self.depth else [frame_name]

    def _identity(self, seed: int) -> dict[str, Any]:
        """Everything that a sample depends on."""
        weights, model = resolve(self.name) / "model.safetensors", self.model
        return {
            "model": str(weights.resolve()), "modified": weights.stat().st_mtime_ns, "route": "diffusion",
            "sampling": model.system.method_note, "image_size": list(model.image_size), "seed": seed, "fps": self.fps,
            "precision": self.precision,
            "cameras": self.cameras.world_from_cam.tolist(), **({"depth": True} if self.depth else {}),
            **({} if self.label is None else {"label": self.label}),
        }  # fmt: skip

    def _scene(self) -> Scene:
        """Of nothing, not drawn yet."""
        renderer = self.model.system.renderer
        assert isinstance(renderer, Imagining)
        return renderer.imagine(self.cameras.reshape(1, self.frames), self.label)

    def _write(self, folder: Path, seed: int, on_step: OnStep | None) -> None:
        renderer, cameras, scene = self.model.system.renderer, self.cameras, self._scene()
        writer = FrameWriter(folder, cameras, centred="object", fps=self.fps)
        depths: list[torch.Tensor] = []
        for chunk in render_in_order(
            renderer, scene, cameras[:0], cameras, self.model.system.default_plan, seed=seed, depth=self.depth,
            on_step=on_step,
        ):  # fmt: skip
            writer.write(chunk.indices, chunk.images)
            if self.depth:
                assert chunk.depths is not None
                depths += list(chunk.depths)
        writer.finish(depths)
        write_camera_path(folder / "camera_path.json", cameras, fps=self.fps)
