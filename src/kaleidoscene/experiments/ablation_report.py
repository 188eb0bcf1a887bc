"""An ablation written down: JSON, a table beside the paper's numbers, and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from kaleidoscene.experiments.statistics import SETTINGS, Effect, Result, effects
from kaleidoscene.families.ablation import Ablation, AblationRow
from kaleidoscene.serialisation import save_aside, to_plain, write_aside, write_json

# Okabe and Ito's blue and orange: told apart by colour-blind readers.
_OURS, _PAPER, _GREY = (0, 114, 178), (230, 159, 0), (120, 120, 120)


def write_ablation_report(folder: Path, study: Ablation, results: Sequence[Result], context: dict[str, Any]) -> None:
    """Write ``results.json``, ``table.md`` and ``plot.png``."""
    rows = study.rows
    write_json(folder / "results.json", {**context, "results": [to_plain(result) for result in results]})
    write_aside(folder / "table.md", _table(rows, results, context))
    picture = _plot(rows, effects(rows, results, 2))
    save_aside(folder / "plot.png", lambda file: picture.save(file, "png"))


def _table(rows: Sequence[AblationRow], results: Sequence[Result], context: dict[str, Any]) -> str:
    said = ", ".join(f"{key} {value}" for key, value in context.items())
    lines = [
        f"{said}. Mean over seeds +- standard error; of differences, from the noise of all rows of like treatment, "
        "with Student's t and Holm's correction for all rows that are judged.",
        "",
        "| | row | 1->5 | 5->1 | 5->5 | paper 1->5 | 5->1 | 5->5 | 5->5 against the choice before | paper | sign | "
        "throughput | paper | top activation |",
        "|" + "---|" * 14,
    ]  # fmt: skip
    found = effects(rows, results, 2)
    first = [result.scenes_per_second for result in results if result.row == rows[0].name]
    for row in rows:
        mine = [result for result in results if result.row == row.name]
        if not mine:
            continue
        psnr = [_mean_and_error([result.psnr[name] for result in mine]) for name in SETTINGS]
        paper = [f"{value:.2f}" for value in row.paper or ()] or [""] * 3
        effect = found.get(row.name)
        change = ["", "", ""]
        if effect is not None:
            spread = "" if math.isnan(effect.error) else f" +- {effect.error:.2f}"
            published = "" if effect.paper is None else f"{effect.paper:+.2f}"
            change = [f"{effect.ours:+.2f}{spread}", published, effect.verdict]
        speed = statistics.fmean(result.scenes_per_second for result in mine)
        relative = f"{speed / statistics.fmean(first):.2f}" if first else f"{speed:.1f} scenes/s"
        published = "" if row.throughput is None else f"{row.throughput / 160:.2f}"
        tops = [result.top_activation for result in mine if result.top_activation is not None]
        top = f"{statistics.fmean(tops):.1f}" if len(tops) == len(mine) else ""
        name = f"**{row.name}**" if row.chosen else row.name
        lines.append("| " + " | ".join([row.decision, name, *psnr, *paper, *change, relative, published, top]) + " |")
    return "\n".join(lines) + "\n"


def _mean_and_error(values: Sequence[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) == 1:
        return f"{mean:.2f}"
    return f"{mean:.2f} +- {statistics.stdev(values) / math.sqrt(len(values)):.2f}"


def _plot(rows: Sequence[AblationRow], found: dict[str, Effect]) -> Image.Image:
    """Effect of every row on PSNR at 5->5: ours with its 95 % interval, the paper's beside it."""
    shown = [row for row in rows if row.name in found]
    left, right, top, line = 230, 30, 60, 26
    width, height = 900, top + line * max(1, len(shown)) + 50
    reach = max([1.0, *(abs(e.ours) for e in found.values()), *(abs(e.paper or 0.0) for e in found.values())]) * 1.1
    image = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(14)

    def at(value: float) -> float:
        return left + (value + reach) / (2 * reach) * (width - left - right)

    draw.text((left, 10), "PSNR at 5->5 against the choice before, dB", fill="black", font=font)
    for x, colour, text in ((left, _OURS, "here (bar: 95 % by Student's t)"), (left + 260, _PAPER, "paper, published")):
        draw.ellipse((x, 35, x + 9, 44), fill=colour)
        draw.text((x + 15, 31), text, fill="black", font=font)
    bottom = top + line * len(shown)
    for tick in range(-int(reach), int(reach) + 1):
        x = at(float(tick))
        draw.line((x, top, x, bottom), fill=(0, 0, 0) if tick == 0 else (220, 220, 220))
        draw.text((x - 8, bottom + 8), f"{tick:+d}" if tick else "0", fill="black", font=font)
    for place, row in enumerate(shown):
        y, effect = top + line * place + line / 2, found[row.name]
        draw.text((10, y - 9), f"{row.decision:>5}  {row.name}", fill="black" if row.chosen else _GREY, font=font)
        if not math.isnan(effect.error):
            low, high = max(-reach, effect.ours - effect.reach), min(reach, effect.ours + effect.reach)
            ends = (at(low), y - 4, at(high), y - 4)
            draw.line(ends, fill=_OURS, width=2)
        for value, colour, shift in ((effect.ours, _OURS, -4), (effect.paper, _PAPER, 5)):
            if value is None:
                continue
            draw.ellipse((at(value) - 4, y + shift - 4, at(value) + 4, y + shift + 4), fill=colour)
    return image
