"""Several reports side by side: means, and paired differences of scenes with bootstrap intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.metrics.registry import (
    DEPTH_METRICS,
    IMAGE_METRICS,
    POSE_METRICS,
    SEQUENCE_METRICS,
    axis_label,
)
from kaleidoscene.evaluation.plots import Curve, draw_plot
from kaleidoscene.evaluation.published import published_scores
from kaleidoscene.evaluation.report import notes_on
from kaleidoscene.evaluation.results import Report, count_scenes, protocol_differences
from kaleidoscene.serialisation import write_aside

_DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """Of two methods over the same scenes.

    Attributes:
        mean: Of the second less the first.
        low: Lower end of the 95 % interval, by the percentiles of 10000 bootstrap draws of scenes.
        high: Upper end.
        scenes: How many; of few, the interval is too narrow.
        better: Scenes at which the second is better.
    """

    mean: float
    low: float
    high: float
    scenes: int
    better: int


def paired_difference(first: Report, second: Report, references: int, metric: str, *, seed: int = 0) -> Difference:
    """Scene by scene at one number of references.

    Args:
        first: The one that is compared with.
        second: Of the same protocol.
        references: N.
        metric: Its name.
        seed: Of the bootstrap.
    """
    before = {result.scene: result.mean(metric) for result in first.of(references)}
    after = {result.scene: result.mean(metric) for result in second.of(references)}
    values = torch.tensor([after[name] - before[name] for name in before], dtype=torch.float64)
    draws = torch.randint(len(values), (_DRAWS, len(values)), generator=torch.Generator().manual_seed(seed))
    low, high = torch.quantile(values[draws].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    up = IMAGE_METRICS[metric].higher_is_better
    return Difference(float(values.mean()), low, high, len(values), int(((values > 0) == up)[values != 0].sum()))


def compare(reports: Sequence[Report], names: Sequence[str]) -> str:
    """A Markdown table of all reports, and the differences of each from the first.

    Args:
        reports: Two or more of one protocol.
        names: What to call them.

    Raises:
        KaleidosceneError: Their protocols differ, or there is only one.
    """
    if len(reports) < 2:
        raise KaleidosceneError(f"A comparison needs at least 2 reports, got {len(reports)}.")
    for report, name in zip(reports[1:], names[1:], strict=True):
        if differences := protocol_differences(reports[0], report):
            raise KaleidosceneError(
                f"{names[0]} and {name} are of different protocols and cannot stand in one table: "
                f"{'; '.join(differences)}."
            )
    protocol = reports[0].protocol
    lines = [f"# {protocol.benchmark}, {count_scenes(reports[0])}", ""]
    for metric in (name for name in protocol.metrics if name in IMAGE_METRICS):
        kind = IMAGE_METRICS[metric]
        better = "higher" if kind.higher_is_better else "lower"
        head = " | ".join(f"N = {n}" for n in protocol.counts)
        lines += [f"## {axis_label(metric)} ({better} is better)", ""]
        lines += [f"| method | {head} |", "|---|" + "---|" * len(protocol.counts)]
        for report, name in zip(reports, names, strict=True):
            row = " | ".join(f"{report.mean[str(n)][metric]:.3f}" for n in protocol.counts)
            lines.append(f"| {name} | {row} |")
        lines += _published(protocol.benchmark, metric, protocol.counts)
        lines += ["", f"Less {names[0]}, scene by scene, with the 95 % interval of a bootstrap over scenes:", ""]
        lines += [f"| method | {head} |", "|---|" + "---|" * len(protocol.counts)]
        for report, name in zip(reports[1:], names[1:], strict=True):
            cells = [_cell(paired_difference(reports[0], report, n, metric)) for n in protocol.counts]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += _other_numbers(reports, names)
    lines += [f"- {note}" for note in notes_on(reports[0])]
    lines += [f"- {name}: {json.dumps(report.method.settings)}" for report, name in zip(reports, names, strict=True)]
    return "\n".join(lines) + "\n"


def _other_numbers(reports: Sequence[Report], names: Sequence[str]) -> list[str]:
    """What is not a mean over pairs of images: distances of sets, sequences, depth, the oracle over scales."""
    counts = reports[0].protocol.counts
    tables: dict[str, dict[str, dict[int, str]]] = {}
    for report, name in zip(reports, names, strict=True):
        for result in report.sets:
            title = f"{result.metric} of {result.samples} images (lower is better)"
            tables.setdefault(title, {}).setdefault(name, {})[result.references] = f"{result.value:.3f}"
        for count in counts:
            for key, value in report.mean[str(count)].items():
                if key in SEQUENCE_METRICS:
                    truth = f"{report.mean[str(count)][f'truth_{key}']:.3f}"
                    tables.setdefault(f"{key} (of the true views)", {}).setdefault(name, {})[count] = (
                        f"{value:.3f} ({truth})"
                    )
                if key in DEPTH_METRICS:
                    better = "higher" if DEPTH_METRICS[key].higher_is_better else "lower"
                    tables.setdefault(f"{key} ({better} is better)", {}).setdefault(name, {})[count] = f"{value:.3f}"
                if key in POSE_METRICS:
                    tables.setdefault(f"{key} in percent", {}).setdefault(name, {})[count] = f"{value:.1f}"
                if key.startswith("oracle_"):
                    title = f"{key.removeprefix('oracle_')} with the best scale by the truth (an oracle)"
                    tables.setdefault(title, {}).setdefault(name, {})[count] = f"{value:.3f}"
    lines: list[str] = []
    for title, rows in tables.items():
        lines += [f"## {title}", "", f"| method | {' | '.join(f'N = {n}' for n in counts)} |"]
        lines += ["|---|" + "---|" * len(counts)]
        lines += [f"| {name} | {' | '.join(row.get(n, '') for n in counts)} |" for name, row in rows.items()]
        lines.append("")
    return lines


def _cell(d: Difference) -> str:
    if d.scenes == 1:
        return f"{d.mean:+.3f} (one scene)"
    return f"{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}], better at {d.better} of {d.scenes}"


def _published(benchmark: str, metric: str, counts: Sequence[int]) -> list[str]:
    """Rows of a table of one metric."""
    scores = published_scores(benchmark, metric)
    if scores is None:
        return []
    where = f"published, {scores.source}; its resolution and scenes{scores.caveat}"
    return [f"| {name} ({where}) | {' | '.join(cells)} |" for name, cells in scores.cells(counts)]


def write_comparison(folder: Path, reports: Sequence[Report], names: Sequence[str]) -> list[Path]:
    """Write ``comparison.md`` and ``comparison.png`` into a folder that is there."""
    text = compare(reports, names)
    protocol = reports[0].protocol
    names_of = [name for name in protocol.metrics if name in IMAGE_METRICS]
    metric = "psnr" if "psnr" in names_of else names_of[0]
    curves = [
        Curve(name, [(float(n), report.mean[str(n)][metric]) for n in protocol.counts])
        for report, name in zip(reports, names, strict=True)
    ]
    published = published_scores(protocol.benchmark, metric)
    curves += [
        Curve(f"{name} (published)", [(float(n), row[n]) for n in protocol.counts if n in row], dashed=True)
        for name, row in (published.rows.items() if published else ())
    ]
    draw_plot(
        folder / "comparison.png", f"{protocol.benchmark}, {count_scenes(reports[0])}", "reference views",
        axis_label(metric), curves,
    )  # fmt: skip
    write_aside(folder / "comparison.md", text)
    return [folder / "comparison.md", folder / "comparison.png"]
