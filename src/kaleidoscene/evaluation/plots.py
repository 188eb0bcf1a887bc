"""Line plots as PNG, with labels, units and colours that colour-blind readers can tell apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from kaleidoscene.serialisation import save_aside

Point = tuple[float, float]
# Okabe and Ito's colours, in an order of contrast.
_COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (0, 0, 0))
# Values along x that are spaced evenly and marked; of more the axis is to scale and curves are lines alone.
_FEW = 10


@dataclass(frozen=True)
class Curve:
    """One line of a plot: its label and points ``(x, y)``, dashed if it is a published one."""

    label: str
    points: Sequence[Point]
    dashed: bool = False


@dataclass(frozen=True)
class _Axis:
    """Ticks, and where a value lies between the ends of the axis, from 0 to 1."""

    ticks: tuple[float, ...]
    by_rank: bool = False

    @classmethod
    def over(cls, values: Sequence[float]) -> _Axis:
        """To scale, with at most nine round ticks about the values."""
        low, high = min(values), max(values)
        rough = max((high - low) / 7, 1e-2)
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1.0, 2.0, 5.0, 10.0) if unit * factor >= rough * (1 - 1e-9))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        return cls(tuple(step * number for number in range(first, max(last, first + 1) + 1)))

    def place(self, value: float) -> float:
        if self.by_rank:
            return self.ticks.index(value) / max(1, len(self.ticks) - 1)
        return (value - self.ticks[0]) / (self.ticks[-1] - self.ticks[0])


def draw_plot(path: Path, title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> None:
    """Curves with axes and a legend; where x has few values, as numbers of references, they are spaced evenly.

    Args:
        path: PNG to write.
        title: Over the plot.
        x_label: Of the horizontal axis, with its unit.
        y_label: Of the vertical axis, with its unit.
        curves: At least one with a point.
    """
    width, height, left, right, top, bottom = 900, 520, 80, 250, 50, 70
    picture = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    xs = sorted({x for curve in curves for x, _ in curve.points})
    few = len(xs) <= _FEW
    across = _Axis(tuple(xs), by_rank=True) if few else _Axis.over(xs)
    up = _Axis.over([y for curve in curves for _, y in curve.points])

    def at(x: float, y: float) -> Point:
        return left + across.place(x) * (width - left - right), height - bottom - up.place(y) * (height - top - bottom)

    draw.text((left, 14), title, fill="black", font=ImageFont.load_default(18))
    for tick in up.ticks:
        _, y = at(across.ticks[0], tick)
        draw.line((left, y, width - right, y), fill=(225, 225, 225))
        draw.text((left - 8, y), f"{tick:.6g}", fill="black", font=font, anchor="rm")
    for tick in across.ticks:
        x, _ = at(tick, up.ticks[0])
        draw.line((x, height - bottom, x, height - bottom + 6), fill="black")
        draw.text((x, height - bottom + 10), f"{tick:.6g}", fill="black", font=font, anchor="mt")
    draw.line((left, height - bottom, width - right, height - bottom), fill="black")
    draw.text(((left + width - right) / 2, height - 28), x_label, fill="black", font=font, anchor="mm")
    label = Image.new("RGB", (height, 24), "white")
    ImageDraw.Draw(label).text((height / 2, 12), y_label, fill="black", font=font, anchor="mm")
    picture.paste(label.rotate(90, expand=True), (4, 0))
    for number, curve in enumerate(curves):
        colour = _COLOURS[number % len(_COLOURS)]
        places = [at(x, y) for x, y in sorted(curve.points)]
        for a, b in pairwise(places):
            _line(draw, a, b, colour, curve.dashed)
        for x, y in places if few else ():
            inside = "white" if curve.dashed else colour
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=inside, outline=colour, width=2)
        x, y = float(width - right + 16), float(top + 10 + 24 * number)
        _line(draw, (x, y), (x + 30, y), colour, curve.dashed)
        draw.text((x + 38, y), curve.label, fill="black", font=font, anchor="lm")
    save_aside(path, lambda file: picture.save(file, "png"))


def _line(draw: ImageDraw.ImageDraw, a: Point, b: Point, colour: tuple[int, int, int], dashed: bool) -> None:
    if not dashed:
        draw.line((*a, *b), fill=colour, width=3)
        return
    length = max(1.0, ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5)
    pieces = max(1, int(length // 6))
    for n in range(0, pieces, 2):
        s, e = n / pieces, min(1.0, (n + 1) / pieces)
        draw.line(
            (a[0] + s * (b[0] - a[0]), a[1] + s * (b[1] - a[1]), a[0] + e * (b[0] - a[0]), a[1] + e * (b[1] - a[1])),
            fill=colour, width=2,
        )  # fmt: skip
