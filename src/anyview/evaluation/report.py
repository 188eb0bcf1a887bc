"""Write down an evaluation: JSON with the protocol beside every number, and a contact sheet."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from anyview.evaluation.protocols import Protocol
from anyview.evaluation.run import HeldOutObject, Score, means
from anyview.rendering.outputs import SheetRow, write_contact_sheet


def write_report(path: Path, scores: Sequence[Score], protocol: Protocol, context: dict[str, Any]) -> None:
    """Scores of every object and their means.

    Args:
        path: JSON file to write.
        scores: From :func:`anyview.evaluation.run.evaluate`.
        protocol: That they were taken with.
        context: What else tells the numbers apart: weights, sampling, size.
    """
    per_object = [
        {"object": s.object, "references": s.references, "psnr": s.psnr, "ssim": s.ssim,
         "copy_psnr": s.copy_psnr, "copy_ssim": s.copy_ssim}
        for s in scores
    ]  # fmt: skip
    document = {
        "protocol": protocol.name,
        "targets": list(protocol.targets),
        "metrics": {"psnr": "on [0, 1], mean over targets, then objects", "ssim": "11 x 11 Gaussian, sigma 1.5"},
        "baseline": "copy_*: the reference with the nearest viewing direction, unchanged",
        **context,
        "mean": {str(count): numbers for count, numbers in means(scores).items()},
        "objects": per_object,
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(document, indent=1))
    os.replace(partial, path)


def write_evaluation_sheet(
    path: Path, objects: Sequence[HeldOutObject], scores: Sequence[Score], protocol: Protocol, *, most: int = 8
) -> None:
    """For some objects: the references, the truth, and the new views for every number of references."""
    rows = []
    for thing in objects[:: max(1, len(objects) // most)][:most]:
        mine = [score for score in scores if score.object == thing.name]
        shown = list(protocol.targets)[:10]
        count = max(score.references for score in mine)
        rows.append(SheetRow(f"{thing.name[:14]}\nreferences", list(thing.images[: min(count, 10)])))
        rows.append(SheetRow("truth", list(thing.images[shown])))
        for score in mine:
            rows.append(SheetRow(f"N = {score.references}\n{score.psnr:.2f} dB", list(score.images[: len(shown)])))
    write_contact_sheet(path, rows, per_line=10, tile=96)


def summary_table(scores: Sequence[Score]) -> list[tuple[str, ...]]:
    """Rows for the terminal: references, PSNR, SSIM, the copy's PSNR, and the difference."""
    rows = []
    for count, m in means(scores).items():
        gain = m["psnr"] - m["copy_psnr"]
        rows.append((str(count), f"{m['psnr']:.2f}", f"{m['ssim']:.3f}", f"{m['copy_psnr']:.2f}", f"{gain:+.2f}"))
    return rows
