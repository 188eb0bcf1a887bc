"""Line plots of benchmark results as PNG, with labels and colours that colour-blind readers can tell apart."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

# Okabe and Ito.
_COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0))


def draw_curves(path: Path, title: str, x_name: str, y_name: str, curves: dict[str, list[tuple[float, float]]]) -> None:
    """Draw named curves of (x, y) points.

    Args:
        path: PNG to write.
        title: Over the plot.
        x_name: Of the horizontal axis, with its unit.
        y_name: Of the vertical axis, with its unit.
        curves: By name.
    """
    points = [point for curve in curves.values() for point in curve]
    x_low, x_high = min(x for x, _ in points), max(x for x, _ in points)
    y_low, y_high = min(y for _, y in points), max(y for _, y in points)
    margin = 0.05 * max(y_high - y_low, 1e-9)
    y_low, y_high = y_low - margin, y_high + margin
    width, height, left, top, bottom = 900, 520, 80, 50, 70
    image = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / max(x_high - x_low, 1e-9)
        up = (y - y_low) / (y_high - y_low)
        return left + across * (width - left - 30), height - bottom - up * (height - top - bottom)

    draw.text((left, 14), title, fill="black", font=ImageFont.load_default(18))
    for n in range(6):
        x, y = x_low + n / 5 * (x_high - x_low), y_low + n / 5 * (y_high - y_low)
        draw.line((*at(x_low, y), *at(x_high, y)), fill=(225, 225, 225))
        draw.text((12, at(x_low, y)[1] - 8), f"{y:.4g}", fill="black", font=font)
        draw.text((at(x, y_low)[0] - 14, height - bottom + 8), f"{x:.4g}", fill="black", font=font)
    draw.text((width // 2 - 60, height - 36), x_name, fill="black", font=font)
    draw.text((12, top - 18), y_name, fill="black", font=font)
    for (name, curve), colour in zip(curves.items(), _COLOURS, strict=False):
        draw.line([at(x, y) for x, y in curve], fill=colour, width=2)
        number = list(curves).index(name)
        draw.line((left + 14, height - bottom - 18 * (number + 1), left + 44, height - bottom - 18 * (number + 1)),
                  fill=colour, width=3)  # fmt: skip
        draw.text((left + 52, height - bottom - 18 * (number + 1) - 9), name, fill="black", font=font)
    image.save(path)
