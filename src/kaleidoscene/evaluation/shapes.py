"""Scores of surfaces against true meshes, on disk and as a table beside what was published (Kaleido, Table 3)."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

SCHEMA, VERSION = "shapes", 1
# Distance and overlap by model and number of references.
PUBLISHED: dict[str, dict[int, tuple[float, float]]] = {
    "NeuS": {3: (0.0366, 0.5352), 5: (0.0245, 0.6742), 10: (0.0195, 0.7264)},
    "EscherNet": {
        1: (0.0314, 0.5974), 2: (0.0215, 0.6868), 3: (0.0190, 0.7189), 5: (0.0175, 0.7423), 10: (0.0167, 0.7478),
    },
    "Kaleido": {
        1: (0.0214, 0.6800), 2: (0.0120, 0.7785), 3: (0.0113, 0.7960), 5: (0.0104, 0.8082), 10: (0.0100, 0.8118),
    },
}  # fmt: skip
"""Kaleido, Table 3, on GSO-30 at 256 px."""


@dataclass(frozen=True, kw_only=True)
class ShapeScore:
    """One object at one number of references.

    Attributes:
        scene: Its name.
        references: How many.
        vertices: Chamfer distance of vertices, as published (:func:`chamfer_vertices`).
        samples: Of 100,000 points of each surface.
        overlap: Volume IoU; None where a surface is not closed.
        seconds: From references to mesh.
        failed: Why there is no surface, in which case distances count as 0.5 and the overlap as 0.
    """

    scene: str
    references: int
    vertices: float
    samples: float
    overlap: float | None
    seconds: float
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class ShapeReport:
    """Scores of a method.

    Attributes:
        schema: Of the file.
        version: Of the schema.
        method: The model or baseline.
        identity: Where the data lie, and what else the numbers depend on; a second start goes on if it is the same.
        scores: By object and number of references.
    """

    schema: str = SCHEMA
    version: int = VERSION
    method: str
    identity: dict[str, Any] = field(default_factory=dict)
    scores: tuple[ShapeScore, ...] = ()


def means(report: ShapeReport) -> dict[str, dict[str, float | None]]:
    """Mean distances, overlap (of objects that have one; else None) and seconds by number of references."""
    found: dict[str, dict[str, float | None]] = {}
    for count in sorted({score.references for score in report.scores}):
        rows = [score for score in report.scores if score.references == count]
        overlaps = [score.overlap for score in rows if score.overlap is not None]
        found[str(count)] = {
            name: statistics.fmean(getattr(row, name) for row in rows) for name in ("vertices", "samples", "seconds")
        } | {"overlap": statistics.fmean(overlaps) if overlaps else None}
    return found


def table(report: ShapeReport) -> list[str]:
    """Means by number of references, beside what was published on other objects."""
    lines = [
        "| N | CD, vertices | CD, 100K samples | volume IoU | seconds | Kaleido, Table 3: CD / IoU |",
        "|---|---|---|---|---|---|",
    ]
    for name, mean in means(report).items():
        count = int(name)
        cells = [f"{mean['vertices']:.4f}", f"{mean['samples']:.4f}"]
        cells += ["" if mean["overlap"] is None else f"{mean['overlap']:.3f}", f"{mean['seconds']:.0f}"]
        known = [f"{who} {row[count][0]:.4f} / {row[count][1]:.3f}" for who, row in PUBLISHED.items() if count in row]
        lines.append(f"| {count} | {' | '.join(cells)} | {', '.join(known)} |")
    objects = {score.scene for score in report.scores}
    closed = {score.scene for score in report.scores if score.overlap is not None}
    failed = [f"{score.scene} at {score.references}" for score in report.scores if score.failed]
    lines += ["", f"{report.method}, {len(objects)} objects; IoU of {len(closed)}, which are closed."]
    lines.append("What was published is of GSO-30 at 256 px, other objects.")
    if failed:
        lines.append(f"No surface, counted as 0.5 and 0: {', '.join(failed)}.")
    return lines
