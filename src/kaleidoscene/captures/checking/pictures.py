"""The cameras of a capture from above and from the side, with small pictures beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.frames import Frame
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.files import read_thumbnail
from kaleidoscene.images.videos import read_video_frames

REFERENCE, TARGET, POINTS = (0, 90, 181), (220, 80, 32), (170, 170, 170)  # blue and orange: told apart by all eyes
_PANEL, _MARGIN, _THUMBNAIL, _MOST_THUMBNAILS = 760, 56, 74, 28


_MOST_TARGETS = 480


def write_frusta_picture(
    path: Path, capture: Capture, *, targets: Cameras | None = None, numbers: list[int] | None = None
) -> Path:
    """Write a PNG: top view and side view of all frusta, the middle of the scene, and thumbnails.

    Args:
        path: Where to.
        capture: Its cameras are drawn in blue.
        targets: Further cameras, drawn in orange; of many some, evenly chosen.
        numbers: Of the frames, as they are written beside them; by default 0, 1, ...
    """
    cameras = capture.cameras
    if targets is not None and len(targets) > _MOST_TARGETS:
        targets = targets[:: -(-len(targets) // _MOST_TARGETS)]
    up = capture.up()
    drawn = cameras.centres if targets is None else torch.cat([cameras.centres, targets.centres])
    size = frustum_size(drawn, capture.origin())
    shown = list(range(len(capture))) if numbers is None else numbers
    panels = [
        _Panel(axes, label, cameras, targets, capture, size, shown)
        for axes, label in zip(_views(up), _LABELS, strict=True)
    ]
    strip = _thumbnails(capture, shown)
    sheet = Image.new("RGB", (2 * _PANEL, _PANEL + strip.height), "white")
    for column, panel in enumerate(panels):
        sheet.paste(panel.draw(), (column * _PANEL, 0))
    sheet.paste(strip, (0, _PANEL))
    partial = path.with_name(path.name + ".partial")
    sheet.save(partial, "png")
    partial.replace(path)
    return path


_LABELS = ("from above", "from the side")


def _views(up: Float[Tensor, " 3"]) -> tuple[Float[Tensor, "2 3"], Float[Tensor, "2 3"]]:
    """Right and down of the picture in world axes, for the view from above and the one from the side."""
    right, away, up = level_axes(up)
    return torch.stack([right, -away]), torch.stack([right, -up])


def level_axes(up: Float[Tensor, " 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Right, away and up: a right-handed frame in world axes whose third axis is the unit ``up``."""
    up = up / up.norm()
    other = torch.zeros(3)
    other[int(up.abs().argmin())] = 1
    right = torch.nn.functional.normalize(torch.linalg.cross(other, up), dim=0)
    return right, torch.linalg.cross(up, right), up


def frustum_size(centres: Float[Tensor, "n 3"], origin: Float[Tensor, " 3"]) -> float:
    """Depth of drawn frusta: a share of the cameras' extent, or of their distance where they are at one place."""
    extent = (centres - centres.mean(0)).norm(dim=-1).median()
    distance = (centres - origin).norm(dim=-1).median()
    return float(0.16 * (extent if float(extent) > 1e-6 else distance).clamp_min(1e-6))


def frustum_corners(cameras: Cameras, depth: float) -> Float[Tensor, "views 4 3"]:
    """World points of the image corners at a distance along the optical axis: left top, right top, right bottom, ..."""
    h, w = cameras.image_size
    pixels = torch.tensor([[0.0, 0, 1], [w, 0, 1], [w, h, 1], [0, h, 1]]).to(cameras.intrinsics)
    local = depth * pixels @ torch.linalg.inv(cameras.intrinsics).mT
    return local @ cameras.world_from_cam[:, :3, :3].mT + cameras.centres[:, None]


@dataclass
class _Panel:
    axes: Float[Tensor, "2 3"]
    label: str
    cameras: Cameras
    targets: Cameras | None
    capture: Capture
    size: float
    numbers: list[int]

    def draw(self) -> Image.Image:
        image = Image.new("RGB", (_PANEL, _PANEL), "white")
        pen = ImageDraw.Draw(image)
        kinds = [(self.cameras, REFERENCE)] + ([(self.targets, TARGET)] if self.targets is not None else [])
        corners = [(camera.centres, frustum_corners(camera, self.size), colour) for camera, colour in kinds]
        place = self._fit(corners)
        if self.capture.points is not None:
            for x, y in place(self._cloud()).tolist():
                pen.point((x, y), fill=POINTS)
        self._middle(pen, place)
        for centres, ends, colour in corners:
            self._frusta(pen, place(centres), place(ends), colour)
        self._numbers(pen, place(self.cameras.centres))
        pen.text((12, 8), self.label, fill="black", font=_font(18))
        if self.targets is not None:
            pen.text((12, 32), "references", fill=REFERENCE, font=_font(14))
            pen.text((12, 50), "new views", fill=TARGET, font=_font(14))
        pen.rectangle((0, 0, _PANEL - 1, _PANEL - 1), outline=(220, 220, 220))
        return image

    def _fit(self, corners: list):
        """From world points to pixels of this panel."""
        points = torch.cat([torch.cat([centres, ends.reshape(-1, 3)]) for centres, ends, _ in corners])
        seen = points.double() @ self.axes.double().mT
        middle = (self.capture.origin().double() @ self.axes.double().mT)[None]
        spread = (seen - seen.median(0).values).norm(dim=-1)
        # The middle of a scene may lie far off where cameras look the same way; then it is not shown.
        if float((middle - seen.median(0).values).norm()) < 3 * float(spread.max()):
            seen = torch.cat([seen, middle])
        low, high = seen.min(0).values, seen.max(0).values
        scale = (_PANEL - 2 * _MARGIN) / float((high - low).max().clamp_min(1e-9))
        shift = _PANEL / 2 - scale * (low + high) / 2
        return lambda world: (world.double() @ self.axes.double().mT) * scale + shift

    def _cloud(self) -> Tensor:
        assert self.capture.points is not None
        positions = self.capture.points.positions
        return positions[:: max(1, len(positions) // 3000)]

    def _middle(self, pen: ImageDraw.ImageDraw, place) -> None:
        x, y = place(self.capture.origin()[None])[0].tolist()
        if 0 <= x < _PANEL and 0 <= y < _PANEL:
            pen.line((x - 7, y, x + 7, y), fill="black")
            pen.line((x, y - 7, x, y + 7), fill="black")
            pen.text((x + 9, y - 6), "middle", fill="black", font=_font(12))

    @staticmethod
    def _frusta(pen: ImageDraw.ImageDraw, centres: Tensor, ends: Tensor, colour: tuple[int, int, int]) -> None:
        for centre, corner in zip(centres.tolist(), ends.tolist(), strict=True):
            for a, b in zip(corner, corner[1:] + corner[:1], strict=True):
                pen.line((*a, *b), fill=colour)
                pen.line((*centre, *a), fill=colour)
            pen.line((*corner[0], *corner[1]), fill=colour, width=3)  # the upper edge of the image
            x, y = centre
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=colour)

    def _numbers(self, pen: ImageDraw.ImageDraw, centres: Tensor) -> None:
        step = max(1, math.ceil(len(centres) / 30))
        for place, (x, y) in enumerate(centres.tolist()):
            if place % step == 0:
                pen.text((x + 4, y + 2), str(self.numbers[place]), fill=(60, 60, 60), font=_font(11))


def _font(size: int):
    return ImageFont.load_default(size)


def thumbnails(frames: list[Frame], side: int) -> list[Image.Image | None]:
    """A small picture of every frame, None where it cannot be read; videos are decoded once."""
    try:
        videos = read_video_frames([(frame.image, frame.position) for frame in frames])
    except KaleidosceneError:
        videos = {}
    return [_thumbnail(frame, side, videos) for frame in frames]


def _thumbnail(frame: Frame, side: int, videos: dict[tuple[Path, int], np.ndarray]) -> Image.Image | None:
    if frame.position is not None:
        if (frame.image, frame.position) not in videos:
            return None
        picture = Image.fromarray(videos[frame.image, frame.position])
        picture.thumbnail((side, side))
        return picture
    try:
        return read_thumbnail(frame.image, side, upright=frame.upright)
    except KaleidosceneError:
        return None


def _thumbnails(capture: Capture, numbers: list[int]) -> Image.Image:
    """Small pictures of evenly chosen frames, with their numbers."""
    count = min(_MOST_THUMBNAILS, len(capture))
    chosen = torch.linspace(0, len(capture) - 1, count).round().long().tolist()
    per_row = 2 * _PANEL // (_THUMBNAIL + 2)
    rows = math.ceil(count / per_row)
    strip = Image.new("RGB", (2 * _PANEL, rows * (_THUMBNAIL + 18) + 8), "white")
    pen = ImageDraw.Draw(strip)
    pictures = thumbnails([capture.frames[number] for number in chosen], _THUMBNAIL)
    for place, (number, picture) in enumerate(zip(chosen, pictures, strict=True)):
        left, top = 4 + place % per_row * (_THUMBNAIL + 2), 4 + place // per_row * (_THUMBNAIL + 18)
        if picture is not None:
            strip.paste(picture, (left, top))
        pen.text((left + 2, top + _THUMBNAIL), str(numbers[number]), fill=REFERENCE, font=_font(12))
    return strip
