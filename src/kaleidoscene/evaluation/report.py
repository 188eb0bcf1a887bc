"""A report for readers: Markdown, and one HTML file with everything inside, worst scenes first."""

from __future__ import annotations

import base64
import html
import json
from pathlib import Path

from kaleidoscene.evaluation.metrics.registry import (
    ALL_METRICS,
    DEPTH_METRICS,
    IMAGE_METRICS,
    POSE_METRICS,
    SEQUENCE_METRICS,
    SET_METRICS,
    axis_label,
)
from kaleidoscene.evaluation.pictures import picture_name
from kaleidoscene.evaluation.plots import Curve, draw_plot
from kaleidoscene.evaluation.published import PublishedScores, published_scores
from kaleidoscene.evaluation.results import REPORT, Report, SceneResult, count_scenes, write_report
from kaleidoscene.serialisation import to_plain, write_aside

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:#111}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #bbb;padding:.25em .6em;text-align:right}
td:first-child,th:first-child{text-align:left}img{max-width:100%;image-rendering:pixelated}
figure{margin:1.5em 0}figcaption{color:#444}pre{background:#f3f3f3;padding:.8em;overflow:auto}"""

# A page of some thousand scenes could not be opened.
_PICTURES = 60


def write_all(folder: Path, report: Report) -> list[Path]:
    """Write ``report.md``, ``curve.png``, ``report.html`` and, last, ``report.json``.

    Args:
        folder: With the pictures of the scenes below ``scenes``.
        report: What to write down.
    """
    title, label = f"{report.protocol.benchmark}, {count_scenes(report)}", axis_label(_main_metric(report))
    draw_plot(folder / "curve.png", title, "reference views", label, _curves(report))
    write_aside(folder / "report.md", markdown(report))
    write_aside(folder / "report.html", _page(report, folder))
    write_report(folder / REPORT, report)
    return [folder / name for name in (REPORT, "report.md", "report.html", "curve.png")]


def _main_metric(report: Report) -> str:
    """The metric that curves and orders go by."""
    names = [name for name in report.protocol.metrics if name in IMAGE_METRICS]
    return next((name for name in ("psnr", "psnr-uint8") if name in names), names[0])


def _curves(report: Report) -> list[Curve]:
    name = _main_metric(report)
    rows = [(float(count), report.mean[str(count)]) for count in report.protocol.counts]
    return [
        Curve(report.method.name[-24:], [(n, row[name]) for n, row in rows]),
        Curve("copy of the nearest", [(n, row[f"copy_{name}"]) for n, row in rows]),
    ]


def mean_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one for each number of references."""
    pairs = [name for name in report.protocol.metrics if name in IMAGE_METRICS]
    sets = [name for name in report.protocol.metrics if name in SET_METRICS]
    main = _main_metric(report)
    sequences = [name for name in report.protocol.metrics if name in SEQUENCE_METRICS]
    depths = [name for name in report.protocol.metrics if name in DEPTH_METRICS]
    poses = [name for name in report.protocol.metrics if name in POSE_METRICS]
    header = ["references", *pairs, *sets, *(f"{name} (truth)" for name in sequences), *depths, *poses]
    header += [f"{main} of the copy", "gain"]
    header += ["oracle scale"] if any(result.oracle for result in report.scenes) else []
    rows = []
    for count in report.protocol.counts:
        row = report.mean[str(count)]
        of_sets = {r.metric: f"{r.value:.2f} ({r.samples} images)" for r in report.sets if r.references == count}
        line = [str(count), *(_number(name, row[name]) for name in pairs), *(of_sets[name] for name in sets)]
        line += [f"{row[name]:.2f} ({row[f'truth_{name}']:.2f})" for name in sequences]
        line += [_number(name, row[name]) for name in depths]
        line += [f"{row[name]:.1f}" if name in row else "" for name in poses]
        line += [_number(main, row[f"copy_{main}"]), f"{row[main] - row[f'copy_{main}']:+.2f}"]
        if "oracle scale" in header:
            line.append(_number(main, row[f"oracle_{main}"]) if f"oracle_{main}" in row else "")
        rows.append(line)
    return header, rows


def adherence_table(report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows: how views keep to their cameras, scene by scene, and the same of the true images."""
    header = ["scene", "references", "registered", "ATE_t", "ATE_r deg", "RA@5 %", "RT@5 %", "AUC@30 %"]
    rows = []
    for result in report.scenes:
        for label, kept in ((str(result.references), result.adherence), ("true images", result.truth_adherence)):
            if kept is not None:
                numbers = (kept.ate_t, kept.ate_r, kept.ra5, kept.rt5, kept.auc30)
                cells = ["" if value is None else f"{value:.3f}" for value in numbers[:2]]
                cells += ["" if value is None else f"{value:.1f}" for value in numbers[2:]]
                rows.append([result.scene, label, f"{kept.registered} of {kept.frames}", *cells])
    return header, list({tuple(row): row for row in rows}.values())


def _number(metric: str, value: float) -> str:
    return f"{value:.2f}" if metric.startswith("psnr") else f"{value:.3f}"


def markdown(report: Report) -> str:
    """The table of means, published rows beside it, and what it was taken under."""
    protocol = report.protocol
    header, rows = mean_table(report)
    lines = [f"# {protocol.benchmark}: {report.method.name}", "", *_markdown_table(header, rows), ""]
    if protocol.adherence:
        lines += [f"Cameras estimated again ({protocol.adherence}) against those that were asked for:", ""]
        lines += [*_markdown_table(*adherence_table(report)), ""]
    for scores in _published(report):
        lines += [f"{_published_title(scores)}:", "", *_markdown_table(*_published_table(report, scores)), ""]
    lines += [f"- {note}" for note in notes_on(report)]
    lines += [f"- method: {json.dumps(report.method.settings)}"]
    return "\n".join(lines) + "\n"


def notes_on(report: Report) -> list[str]:
    """What the numbers are, in words."""
    protocol = report.protocol
    notes = [f"{name}: {ALL_METRICS[name].definition}" for name in protocol.metrics]
    if any(result.oracle for result in report.scenes):
        tries = len(protocol.scale_sweep) * len(protocol.sweep_axes)
        notes.append(
            f"oracle scale: {_main_metric(report)} with the best of {tries} scales of translations by the truth"
        )
    return [
        *notes,
        f"{count_scenes(report)}; {protocol.image_size[0]}x{protocol.image_size[1]} pixels, "
        f"{protocol.field_of_view:.1f} degrees high, what lies outside an image is not scored; "
        f"background {protocol.background}; targets {'see each other' if protocol.joint else 'alone'}",
        protocol.note,
        "copy: the reference with the nearest viewing direction, unchanged",
    ]


def _published(report: Report) -> list[PublishedScores]:
    """Of PSNR, and of what else was measured: one table for all variants of a metric."""
    names = ("psnr", *(name for name in report.protocol.metrics if name in IMAGE_METRICS))
    found = [published_scores(report.protocol.benchmark, name) for name in names]
    return list({scores.quantity: scores for scores in found if scores is not None}.values())


def _published_title(scores: PublishedScores) -> str:
    return f"{scores.quantity} as published ({scores.source}), at its resolution and on all its scenes{scores.caveat}"


def _published_table(report: Report, scores: PublishedScores) -> tuple[list[str], list[list[str]]]:
    counts = report.protocol.counts
    rows = [[f"{name} (published)", *cells] for name, cells in scores.cells(counts)]
    return ["model", *(f"N = {n}" for n in counts)], rows


def _scene_table(report: Report, results: list[SceneResult]) -> tuple[list[str], list[list[str]]]:
    names = [name for name in report.protocol.metrics if name in IMAGE_METRICS]
    main = _main_metric(report)
    rows = [
        [result.scene, str(result.references), *(_number(name, result.mean(name)) for name in names),
         _number(main, result.mean(main, "copy"))]
        for result in results
    ]  # fmt: skip
    return ["scene", "references", *names, f"{main} of the copy"], rows


def _markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def _page(report: Report, folder: Path) -> str:
    header, rows = mean_table(report)
    name = _main_metric(report)
    sign = 1 if IMAGE_METRICS[name].higher_is_better else -1
    worst = sorted(report.scenes, key=lambda result: sign * result.mean(name))
    published = [
        part
        for scores in _published(report)
        for part in (f"<p>{html.escape(_published_title(scores))}:</p>", _html_table(*_published_table(report, scores)))
    ]
    body = [
        f"<h1>{html.escape(report.protocol.benchmark)}: {html.escape(report.method.name)}</h1>",
        _html_table(header, rows), *([_html_table(*adherence_table(report))] if report.protocol.adherence else []),
        "<ul>", *(f"<li>{html.escape(note)}</li>" for note in notes_on(report)), "</ul>",
        _image(folder / "curve.png", f"{name} against the number of references"), *published,
        "<h2>Scenes, worst first</h2>",
        "<p>Targets from the worst to the best: truth, rendering, error (white 0, orange 0.25, black 0.5 up). "
        f"{f'Pictures of the worst {_PICTURES}; all' if len(worst) > _PICTURES else 'All'} lie in scenes/.</p>",
        *(_figure(result, name, folder) for result in worst[:_PICTURES]),
        _html_table(*_scene_table(report, worst)),
        "<h2>Protocol and method</h2>",
        f"<pre>{html.escape(json.dumps([to_plain(report.protocol), to_plain(report.method)], indent=1))}</pre>",
    ]  # fmt: skip
    title = html.escape(f"{report.protocol.benchmark} {report.method.name}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>\n'
        + "\n".join(body)
        + "\n</html>\n"
    )


def _html_table(header: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{lines}</table>"


def _figure(result: SceneResult, metric: str, folder: Path) -> str:
    picture = folder / "scenes" / picture_name(result.scene, result.references)
    caption = (
        f"{result.scene}, N = {result.references}: {_number(metric, result.mean(metric))} "
        f"(copy {_number(metric, result.mean(metric, 'copy'))})"
    )
    return _image(picture, caption)


def _image(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return f'<figure><img alt="{text}" src="data:image/png;base64,{data}"><figcaption>{text}</figcaption></figure>'
