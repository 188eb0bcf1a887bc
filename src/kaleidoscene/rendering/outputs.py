"""What a rendering leaves on disk: frames, video, transforms.json, contact sheet."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor

from kaleidoscene.captures.conversion.rendered import write_depths
from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.files import write_image
from kaleidoscene.images.pixels import depth_picture, resize_image, to_bytes


def depth_name(index: int) -> str:
    """Name of the depth map of a frame below the output folder."""
    return f"depth/{index:04d}.png"


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

    def finish(self, depths: Sequence[Float[Tensor, "h w"]] = ()) -> list[Path]:
        """Write video.mp4 and transforms.json from the frames; returns what there is.

        Args:
            depths: Of all frames, world units; they are written as well, in 16 bits.
        """
        names = [frame_name(index) for index in range(len(self.cameras))]
        paths = [self.folder / name for name in names]
        maps, unit = None, 1.0
        if depths:
            unit = write_depths(self.folder, [depth_name(index) for index in range(len(depths))], depths)
            maps = [depth_name(index) for index in range(len(depths))]
        write_cameras(
            self.folder / "transforms.json", names, self.cameras, centred=self.centred, depths=maps, depth_unit=unit
        )
        write_video(self.folder / "video.mp4", paths, fps=self.fps)
        return [self.folder / "frames", self.folder / "video.mp4", self.folder / "transforms.json"]


def write_video(path: Path, frames: Sequence[Path], *, fps: float) -> None:
    """H.264 in MP4 from image files of one size; small frames are enlarged so that players show them well."""
    encode_video(path, (Image.open(frame) for frame in frames), fps=fps)


def write_grid_video(path: Path, films: Sequence[Sequence[Path]], *, fps: float) -> None:
    """Films of one length and size side by side, about as many rows as columns."""
    encode_video(path, (_grid([Image.open(frame) for frame in frames]) for frames in zip(*films, strict=True)), fps=fps)


def _grid(pictures: Sequence[Image.Image]) -> Image.Image:
    columns, (width, height) = math.ceil(math.sqrt(len(pictures))), pictures[0].size
    grid = Image.new("RGB", (columns * width, -(-len(pictures) // columns) * height), "white")
    for place, picture in enumerate(pictures):
        grid.paste(picture.convert("RGB"), (place % columns * width, place // columns * height))
        picture.close()
    return grid


def encode_video(path: Path, pictures: Iterator[Image.Image], *, fps: float) -> None:
    """As :func:`write_video`, from pictures as they come; they are closed."""
    partial = path.with_name("partial-" + path.name)
    first = next(pictures)
    width, height = first.size
    scale = max(1, -(-256 // min(width, height)))
    # yuv420p wants even sides.
    size = (width * scale // 2 * 2, height * scale // 2 * 2)
    with av.open(str(partial), "w") as container:
        container.metadata["comment"] = "Rendered with Kaleidoscene"
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18"}
        for picture in chain([first], pictures):
            with picture:
                frame = av.VideoFrame.from_image(picture.convert("RGB").resize(size, Image.Resampling.NEAREST))
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    partial.replace(path)


def depth_pictures(depths: Float[Tensor, "views h w"]) -> list[Float[Tensor, "3 h w"]]:
    """Depth maps in colours, all in one range."""
    known = depths[depths > 0]
    known = known[:: max(1, len(known) // 2**20)]  # more than 2^24 numbers have no quantile in PyTorch
    low, high = (float(known.quantile(share)) for share in (0.01, 0.99)) if len(known) else (0.0, 1.0)
    return [depth_picture(depth, low, high) for depth in depths]


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
