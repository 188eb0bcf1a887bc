"""A request for new views becomes a folder: it can be interrupted, goes on, and is scored where the truth is known."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from kaleidoscene.api import Model
from kaleidoscene.captures.checking.pictures import write_frusta_picture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.image import psnr
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.folders import FRUSTA, whole_folder
from kaleidoscene.geometry.camera_path import write_camera_path
from kaleidoscene.images.files import read_image
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.rendering.outputs import (
    FrameWriter,
    SheetRow,
    depth_name,
    depth_pictures,
    frame_name,
    write_contact_sheet,
)
from kaleidoscene.rendering.renderer import OnStep
from kaleidoscene.rendering.resume import REQUEST, PartialRendering, is_begun_otherwise, is_finished
from kaleidoscene.serialisation import to_plain, write_json
from kaleidoscene.workflows.costs import describe_rendering
from kaleidoscene.workflows.request import RenderRequest

WRITTEN = ("frames/", "video.mp4", "transforms.json", "camera_path.json", "contact_sheet.png")
_SHEET_FRAMES = 48
_WORTH_SAYING = 2**28
# Three numbers of four bytes and a PNG that is no smaller than its pixels; likewise of depth.
_BYTES_PER_PIXEL, _BYTES_PER_DEPTH = 3 * 4 + 3, 4 + 2


@dataclass(frozen=True)
class Rendered:
    """What came of a request.

    Attributes:
        is_new: False where all had been there already.
        scores: PSNR of every target whose truth is known, in dB.
        mean: Of those that count (:attr:`RenderRequest.scored`); None without any.
    """

    is_new: bool
    scores: tuple[float, ...] = ()
    mean: float | None = None


@dataclass(frozen=True, kw_only=True)
class RenderingJob:
    """Where and how a request is rendered.

    Attributes:
        out: Folder to write; it appears when everything is written.
        name: Of the model, as it was asked for.
        model: At the image size that is rendered.
        request: References and targets.
        plan: Order and grouping.
        precision: Of matrix products.
        seed: Any number.
        fps: Of the video.
        overwrite: Replace the folder.
        capture: Where the capture lies.
        sources: What is read, which the folder must not replace.
        depth: Write depth maps, and name them in transforms.json.
    """

    out: Path
    name: str
    model: Model
    request: RenderRequest
    plan: RenderPlan
    precision: str
    seed: int
    fps: float
    overwrite: bool
    capture: Path
    sources: tuple[Path | None, ...]
    depth: bool = False

    @property
    def disk_bytes(self) -> int:
        """What the rendering takes on disk while it runs: views in full precision, and their files."""
        h, w = self.model.image_size
        return len(self.request.cameras) * h * w * (_BYTES_PER_PIXEL + self.depth * _BYTES_PER_DEPTH)

    def check_disk(self) -> None:
        """Raise unless there is so much room where the folder is to be.

        Raises:
            KaleidosceneError: With what it takes and what is free.
        """
        there = next(path for path in (self.out.resolve(), *self.out.resolve().parents) if path.exists())
        free = shutil.disk_usage(there).free
        if self.disk_bytes > free:
            raise KaleidosceneError(
                f"{self.out}: {len(self.request.cameras)} views take {self.disk_bytes / 2**30:.1f} GiB on disk, "
                f"{free / 2**30:.1f} GiB are free."
            )

    def dry_run(self, device: str) -> list[str]:
        """Draw the cameras into ``OUT/frusta.png``; returns what the rendering would take, as lines for users.

        Args:
            device: Where it would run.

        Raises:
            KaleidosceneError: The folder is a file, or there is no room on the disk.
        """
        model, request = self.model, self.request
        if self.out.exists() and not self.out.is_dir():
            raise KaleidosceneError(f"{self.out}: the output folder is a file.")
        self.check_disk()
        self.out.mkdir(parents=True, exist_ok=True)
        picture = write_frusta_picture(
            self.out / FRUSTA, request.references, targets=model.lens(request.cameras), numbers=request.indices
        )
        counts = len(request.references), len(request.cameras)
        lines = [describe_rendering(model, *counts, self.plan, device=device, precision=self.precision)]
        if self.disk_bytes > _WORTH_SAYING:
            lines.append(f"On disk up to {self.disk_bytes / 2**30:.1f} GiB.")
        return [*lines, f"wrote {self.out / picture.name} (nothing was rendered: --dry-run)"]

    @property
    def is_free(self) -> bool:
        """Whether nothing lies in the folder, and no other request waits beside it to go on."""
        return not self.out.exists() and not is_begun_otherwise(self.out, self._identity())

    def run(self, on_view: OnStep | None = None) -> Rendered:
        """Render what is not there yet.

        Args:
            on_view: Called with the views that are done and their number; what it raises stops the rendering, and the
                same request goes on with the rest.

        Raises:
            KaleidosceneError: The folder cannot be written, or the rendering failed; finished views are kept.
        """
        said, request = self._identity(), self.request
        frames = [frame_name(index) for index in range(len(request.cameras))]
        depths = [depth_name(index) for index in range(len(request.cameras))] if self.depth else []
        if is_finished(self.out, said, [*frames, *depths, *WRITTEN[1:]]) and not self.overwrite:
            return Rendered(False)
        self.check_disk()
        # The final folder is made first: one that cannot be written must not cost a rendering.
        with whole_folder(self.out, overwrite=self.overwrite, sources=self.sources) as folder:
            partial = PartialRendering(self.out, said, overwrite=self.overwrite)
            if partial.count:
                print(f"going on: {partial.count} of {len(request.cameras)} views are rendered already")
            try:
                self._render(partial, on_view)
            except BaseException:
                if partial.count:
                    kept = f"{partial.count} of {len(request.cameras)} views are kept"
                    print(f"{kept}; the same command goes on with the rest.")
                else:
                    partial.discard()
                raise
            rendered = self._write(partial, folder)
            write_json(folder / REQUEST, said)
        partial.discard()
        return rendered

    def _identity(self) -> dict[str, Any]:
        """Everything that the output depends on; of the references, what the model sees of them."""
        model, request = self.model, self.request
        images, cameras = model.prepare(request.references, masked=request.masked)
        told = (images, cameras.world_from_cam, cameras.intrinsics, request.references.origin())
        seen = hashlib.sha256(b"".join(part.numpy().tobytes() for part in told)).hexdigest()
        weights = resolve(self.name) / "model.safetensors"
        return {
            "model": str(weights.resolve()), "modified": weights.stat().st_mtime_ns,
            "sampling": model.system.method_note, "image_size": list(model.image_size), "seed": self.seed,
            "precision": self.precision, "plan": to_plain(self.plan), "capture": str(self.capture.resolve()),
            "references": request.indices, "seen": seen, "fps": self.fps,
            "cameras": request.cameras.world_from_cam.tolist(),
            "lenses": model.lens(request.cameras).intrinsics.tolist(),
            **({"depth": True} if self.depth else {}), **self._route,
        }  # fmt: skip

    @property
    def _route(self) -> dict[str, Any]:
        """How the views are made, of models that have more than one way."""
        route = self.model.route(len(self.request.references))
        return {} if route is None else {"route": route}

    def _render(self, partial: PartialRendering, on_view: OnStep | None) -> None:
        """Render what is not there yet and put it away as it comes."""
        request, done = self.request, 0
        bar = Progress(
            TextColumn("rendering"), BarColumn(), MofNCompleteColumn(), _FramesPerSecond(),
            TextColumn("{task.fields[note]}"), TimeRemainingColumn(),
        )  # fmt: skip
        with bar:
            task = bar.add_task("", total=len(request.cameras), note="")

            def on_step(done: int, steps: int) -> None:
                bar.update(task, note=f"step {done}/{steps}")

            for chunk in self.model.render_chunks(
                request.references, cameras=request.cameras, seed=self.seed, plan=self.plan, masked=request.masked,
                depth=self.depth, on_step=on_step, finished=partial.finished,
            ):  # fmt: skip
                if chunk.is_new:
                    partial.keep(chunk)
                bar.advance(task, len(chunk.indices))
                done += len(chunk.indices)
                if on_view is not None:
                    on_view(done, len(request.cameras))

    def _write(self, partial: PartialRendering, folder: Path) -> Rendered:
        """Frames, video, cameras, contact sheet (of 48 frames at most) and, where the truth is known, every PSNR."""
        model, request, count = self.model, self.request, len(self.request.cameras)
        lens = model.lens(request.cameras)
        write_camera_path(folder / "camera_path.json", lens, fps=self.fps)
        writer = FrameWriter(folder, lens, centred=request.references.centred, fps=self.fps)
        depths = []
        for index in range(count):
            view = partial.finished([index])
            assert view is not None
            writer.write([index], view.images)
            if self.depth:
                assert view.depths is not None
                depths.append(view.depths[0])
        writer.finish(depths)
        shown = range(0, count, -(-count // _SHEET_FRAMES))
        paths = [folder / frame_name(index) for index in range(count)]
        rows = [SheetRow("references", list(model.prepare(request.references, masked=request.masked)[0]))]
        rows.append(SheetRow("new views", [read_image(paths[i])[0] for i in shown]))
        if depths:
            rows.append(SheetRow("depth", depth_pictures(torch.stack([depths[i] for i in shown]))))
        scores: list[float] = []
        if request.truth is not None:
            truth, _ = model.prepare(request.truth, masked=request.masked)
            scores = [float(psnr(read_image(path)[0], real)) for path, real in zip(paths, truth, strict=True)]
            rows.append(SheetRow("truth", [truth[i] for i in shown]))
        write_contact_sheet(folder / "contact_sheet.png", rows)
        counted = [scores[place] for place in request.scored]
        return Rendered(True, tuple(scores), sum(counted) / len(counted) if counted else None)


class _FramesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} frames/s" if task.speed else "")
