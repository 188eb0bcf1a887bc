"""What a rendering leaves on disk: frames, video, transforms.json, contact sheet."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from kaleidoscene.captures.formats import transforms_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.files import write_image
from kaleidoscene.images.pixels import resize_image, to_bytes

FRUSTA = "frusta.png"


@contextmanager
def whole_folder(folder: Path, *, overwrite: bool, sources: Sequence[Path | None] = ()) -> Iterator[Path]:
    """A folder to write to that takes its name only when all is done; what fails leaves nothing behind.

    Args:
        folder: Its name.
        overwrite: Replace what is there.
        sources: What is read for it, which it must not replace.

    Raises:
        KaleidosceneError: ``folder`` is there and not empty (and ``overwrite`` is off), is a file, holds a source, or
            cannot be made.
    """
    shown, folder = folder, folder.resolve()
    protect(shown, sources)
    if folder.exists() and not folder.is_dir():
        raise KaleidosceneError(f"{shown}: the output folder is a file.")
    if folder in (Path.cwd(), *Path.cwd().parents):
        raise KaleidosceneError(f"{shown}: the output folder is the one we are in, or above it; give another.")
    if folder.is_dir() and not _replaceable(folder) and not overwrite:
        raise KaleidosceneError(f"{folder}: the output folder is not empty; give --overwrite to replace it.")
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    except OSError as error:
        raise KaleidosceneError(f"{folder}: the output folder cannot be made ({error.strerror}).") from error
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.is_dir():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def protect(folder: Path, sources: Sequence[Path | None]) -> None:
    """Raise if writing a folder anew would take away what it is made from.

    Raises:
        KaleidosceneError: A source is the folder or lies below it.
    """
    target = folder.resolve()
    for source in sources:
        if source is not None and (target == source.resolve() or target in source.resolve().parents):
            raise KaleidosceneError(
                f"{folder}: the output would replace the capture or file {source}; give another folder."
            )


def _replaceable(folder: Path) -> bool:
    """Whether nothing is lost with a folder: it is empty, or has the picture of a dry run alone."""
    return all(path.name == FRUSTA for path in folder.iterdir())


def frame_name(index: int) -> str:
    """Name of a frame below the output folder."""
    return f"frames/{index:04d}.png"


class FrameWriter:
    """Writes frames as they come, so that memory does not grow with their number; then what needs them all."""

    def __init__(self, folder: Path, cameras: Cameras, *, centred: str, fps: float = 24.0) -> None:
        self.folder, self.cameras, self.centred, self.fps = folder, cameras, centred, fps
        (folder / "frames").mkdir(parents=True, exist_ok=True)

    def write(self, indices: list[int], images: Float[Tensor, "n 3 h w"]) -> None:
        """Write some frames."""
        for index, image in zip(indices, images, strict=True):
            write_image(self.folder / frame_name(index), image)

    def finish(self) -> list[Path]:
        """Write video.mp4 and transforms.json from the frames; returns what there is."""
        names = [frame_name(index) for index in range(len(self.cameras))]
        paths = [self.folder / name for name in names]
        transforms_json.write(self.folder / "transforms.json", names, self.cameras, centred=self.centred)
        write_video(self.folder / "video.mp4", paths, fps=self.fps)
        return [self.folder / "frames", self.folder / "video.mp4", self.folder / "transforms.json"]


def write_video(path: Path, frames: list[Path], *, fps: float) -> None:
    """H.264 in MP4 from image files of one size; small frames are enlarged so that players show them well."""
    partial = path.with_name("partial-" + path.name)
    with Image.open(frames[0]) as first:
        width, height = first.size
    scale = max(1, -(-256 // min(width, height)))
    # yuv420p wants even sides.
    size = (width * scale // 2 * 2, height * scale // 2 * 2)
    with av.open(str(partial), "w") as container:
        container.metadata["comment"] = "Rendered with Kaleidoscene"
        stream = container.add_stream("libx264", rate=round(fps))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for frame in frames:
            with Image.open(frame) as image:
                picture = image.convert("RGB").resize(size, Image.Resampling.NEAREST)
            for packet in stream.encode(av.VideoFrame.from_image(picture)):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    partial.replace(path)


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet: a label and its images."""

    label: str
    images: list[Float[Tensor, "3 h w"]]


def write_contact_sheet(path: Path, rows: list[SheetRow], *, per_line: int = 12, tile: int = 128) -> None:
    """All rows below each other, long ones on several lines, labels on the left."""
    label_width, gap = 92, 4
    lines = [
        (row.label if start == 0 else "", row.images[start : start + per_line])
        for row in rows
        for start in range(0, len(row.images), per_line)
    ]
    columns = max(len(images) for _, images in lines)
    first = next(images[0] for _, images in lines)
    ratio = first.shape[-1] / first.shape[-2]
    height, width = tile, round(tile * ratio)
    sheet = Image.new("RGB", (label_width + columns * (width + gap), len(lines) * (height + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    for line, (label, images) in enumerate(lines):
        top = gap + line * (height + gap)
        draw.multiline_text((6, top + 4), label, fill="black")
        for column, image in enumerate(images):
            picture = Image.fromarray(to_bytes(_fit(image, (height, width))))
            left = label_width + column * (width + gap)
            sheet.paste(picture, (left, top))
            draw.rectangle((left, top, left + width - 1, top + height - 1), outline=(220, 220, 220))
    partial = path.with_name(path.name + ".partial")
    sheet.save(partial, "png")
    partial.replace(path)


def _fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge by whole pixels, so that the sheet shows what was rendered, or shrink by area."""
    if size[0] >= image.shape[-2]:
        return torch.nn.functional.interpolate(image[None], size, mode="nearest")[0]
    return resize_image(image, size)
