"""An ablation written down: JSON, a table beside the paper's numbers, and a plot."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from kaleidoscene.families.kaleido.recipes.ablations import AblationRow
from kaleidoscene.serialisation import save_aside, to_plain, write_aside, write_json

_SETTINGS = ("1->5", "5->1", "5->5")
# Student's t at 95 % for 1, 2, ... degrees of freedom.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
# Okabe and Ito's blue and orange: told apart by colour-blind readers.
_OURS, _PAPER, _GREY = (0, 114, 178), (230, 159, 0), (120, 120, 120)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One run of a row.

    Attributes:
        row: Name of the row.
        seed: Of data, noise and first weights.
        psnr: By setting, ``references->targets``.
        scenes_per_second: Of training, from the median step.
        top_activation: Largest output of any block while the held-out captures were rendered; None if not measured.
        loss: Mean of the last 50 steps.
    """

    row: str
    seed: int
    psnr: dict[str, float]
    scenes_per_second: float
    top_activation: float | None
    loss: float


@dataclass(frozen=True)
class Effect:
    """What a row changes against the choice before it.

    Attributes:
        ours: Difference of PSNR, mean over seeds.
        error: Its standard error; NaN with one seed.
        seeds: How many seeds it is a mean of.
        paper: The published difference, if there is one.
    """

    ours: float
    error: float
    seeds: int
    paper: float | None

    @property
    def reach(self) -> float:
        """Half the width of the 95 % interval, by Student's t; NaN with one seed."""
        return math.nan if self.seeds == 1 else _T[min(self.seeds - 2, len(_T) - 1)] * self.error

    @property
    def verdict(self) -> str:
        """Whether the sign of the paper is reproduced, or what undoing a choice of our own did."""
        if abs(self.ours) < self.reach:
            return "within noise"
        if self.paper is None:
            return "one seed" if math.isnan(self.error) else "worse" if self.ours < 0 else "better"
        if math.isnan(self.error):
            return "one seed: " + ("same sign" if self.ours * self.paper > 0 else "other sign")
        return "reproduced" if self.ours * self.paper > 0 else "NOT reproduced"


def effects(rows: Sequence[AblationRow], results: Sequence[Result], setting: int) -> dict[str, Effect]:
    """The effect of every row against the chosen row of the decision before it, seed by seed.

    Args:
        rows: In the order of the table.
        results: Of the runs there are.
        setting: 0, 1 or 2 of 1->5, 5->1, 5->5.
    """
    name = _SETTINGS[setting]
    scores = {(result.row, result.seed): result.psnr[name] for result in results}
    out: dict[str, Effect] = {}
    for place, row in enumerate(rows):
        earlier = [other for other in rows[:place] if other.chosen and other.decision != row.decision]
        run = [other for other in earlier if any(name == other.name for name, _ in scores)]
        if not run:
            continue
        # Where a decision could not be tried here, ours is against the one before it; the paper's never skips.
        before, published_before = run[-1], earlier[-1]
        differences = [
            value - scores[before.name, seed]
            for (other, seed), value in scores.items()
            if other == row.name and (before.name, seed) in scores
        ]
        if differences:
            spread = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
            published = None
            if row.paper is not None and published_before.paper is not None:
                published = row.paper[setting] - published_before.paper[setting]
            out[row.name] = Effect(statistics.fmean(differences), spread, len(differences), published)
    return out


def write_ablation_report(
    folder: Path, rows: Sequence[AblationRow], results: Sequence[Result], context: dict[str, Any]
) -> None:
    """Write ``results.json``, ``table.md`` and ``plot.png``."""
    write_json(folder / "results.json", {**context, "results": [to_plain(result) for result in results]})
    write_aside(folder / "table.md", _table(rows, results, context))
    picture = _plot(rows, effects(rows, results, 2))
    save_aside(folder / "plot.png", lambda file: picture.save(file, "png"))


def _table(rows: Sequence[AblationRow], results: Sequence[Result], context: dict[str, Any]) -> str:
    said = ", ".join(f"{key} {value}" for key, value in context.items())
    lines = [
        f"{said}. Mean over seeds +- standard error; paper: Objaverse, Kaleido-Small, 100K steps (Table 4, published).",
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
        psnr = [_mean_and_error([result.psnr[name] for result in mine]) for name in _SETTINGS]
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
