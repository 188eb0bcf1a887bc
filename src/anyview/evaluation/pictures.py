"""Pictures of an evaluation: truth, rendering and error side by side, and curves over the number of references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from anyview.data.images import to_bytes
from anyview.evaluation.metrics.registry import IMAGE_METRICS
from anyview.evaluation.protocols import Split
from anyview.evaluation.run import Score
from anyview.serialisation import save_aside

Point = tuple[float, float]
_SHOWN = 4
# Okabe and Ito's colours, told apart by colour-blind readers, in an order of contrast.
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (0, 0, 0))


def picture_name(scene: str, references: int) -> str:
    """Name of the picture of a scene at a number of references."""
    return f"{scene}-{references}.png"


def error_map(image: Float[Tensor, "3 h w"], truth: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 h w"]:
    """Mean absolute error of the channels from white (0) over orange to black (0.5 and more)."""
    error = ((image - truth).abs().mean(0) * 2).clamp(0, 1)
    stops = torch.tensor([[1.0, 1.0, 1.0], [0.9, 0.62, 0.0], [0.0, 0.0, 0.0]])
    place = error * 2
    low = place.floor().clamp(0, 1).long()
    part = (place - low)[..., None]
    return ((1 - part) * stops[low] + part * stops[low + 1]).movedim(-1, 0)


def write_scene_pictures(folder: Path, score: Score, truth: Float[Tensor, "n 3 h w"], split: Split) -> None:
    """Some targets from the worst to the best: truth above, rendering, and the error below."""
    name = next(iter(score.values))
    sign = 1 if IMAGE_METRICS[name].higher_is_better else -1
    values = score.values[name]
    order = sorted(range(len(values)), key=lambda n: sign * values[n])
    places = sorted({round(n * (len(order) - 1) / max(1, _SHOWN - 1)) for n in range(_SHOWN)})
    shown = [order[place] for place in places]
    columns = [torch.cat([truth[n], score.images[n], error_map(score.images[n], truth[n])], dim=1) for n in shown]
    picture = Image.fromarray(to_bytes(torch.cat(columns, dim=2)))
    save_aside(folder / picture_name(score.scene, score.references), lambda file: picture.save(file, "png"))


@dataclass(frozen=True)
class Curve:
    """One line of a plot: its label and points ``(x, y)``, dashed if it is a published one."""

    label: str
    points: list[tuple[float, float]]
    dashed: bool = False


def draw_plot(path: Path, title: str, x_label: str, y_label: str, curves: Sequence[Curve]) -> None:
    """Curves with axes, units and a legend; the x axis is spaced evenly over the values that occur."""
    width, height, left, right, top, bottom = 900, 520, 80, 250, 50, 70
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(15)
    ticks = sorted({x for curve in curves for x, _ in curve.points})
    ys = [y for curve in curves for _, y in curve.points]
    low, high = min(ys), max(ys)
    step = next(
        s for s in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 1e9) if (high - low) / s <= 8
    )
    low, high = step * int(low // step), step * (int(high // step) + 1)
    span = max(1, len(ticks) - 1)

    def at(x: float, y: float) -> tuple[float, float]:
        share = ticks.index(x) / span
        return left + share * (width - left - right), height - bottom - (y - low) / (high - low) * (
            height - top - bottom
        )

    draw.text((left, 14), title, fill="black", font=ImageFont.load_default(18))
    for number in range(round((high - low) / step) + 1):
        value = low + number * step
        y = at(ticks[0], value)[1]
        draw.line((left, y, width - right, y), fill=(225, 225, 225))
        draw.text((left - 8, y), f"{value:g}" if step >= 1 else f"{value:.2f}", fill="black", font=font, anchor="rm")
    for tick in ticks:
        x = at(tick, low)[0]
        draw.line((x, height - bottom, x, height - bottom + 6), fill="black")
        draw.text((x, height - bottom + 10), f"{tick:g}", fill="black", font=font, anchor="mt")
    draw.line((left, height - bottom, width - right, height - bottom), fill="black")
    draw.text(((left + width - right) / 2, height - 28), x_label, fill="black", font=font, anchor="mm")
    label = Image.new("RGB", (height, 24), "white")
    ImageDraw.Draw(label).text((height / 2, 12), y_label, fill="black", font=font, anchor="mm")
    picture.paste(label.rotate(90, expand=True), (4, 0))
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        places = [at(x, y) for x, y in sorted(curve.points)]
        for a, b in pairwise(places):
            _line(draw, a, b, colour, curve.dashed)
        for x, y in places:
            draw.ellipse(
                (x - 4, y - 4, x + 4, y + 4), fill="white" if curve.dashed else colour, outline=colour, width=2
            )
        y, x = float(top + 10 + 24 * number), float(width - right + 16)
        _line(draw, (x, y), (x + 30, y), colour, curve.dashed)
        draw.text((x + 38, y), curve.label, fill="black", font=font, anchor="lm")
    save_aside(path, lambda file: picture.save(file, "png"))


def _line(
    draw: ImageDraw.ImageDraw,
    a: tuple[float, float],
    b: tuple[float, float],
    colour: tuple[int, int, int],
    dashed: bool,
) -> None:
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
