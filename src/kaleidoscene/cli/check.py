"""kaleidoscene check: what is wrong with a capture, before anything is rendered from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.report import write_findings
from kaleidoscene.captures.checking.run import check_capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.formats.registry import FORMATS, scan_capture
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import Failed, KaleidosceneError, unknown_name
from kaleidoscene.folders import whole_folder

_MOST_ROWS = 12


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """Look for faults in a capture: files, intrinsics, poses and their conventions. Exit code 1 on errors."""

    capture: tyro.conf.Positional[Path]
    """Folder of any supported capture format."""
    out: Path | None = None
    """Folder for frusta.png, frusta.html and check.json; nothing is written without it."""
    format: str | None = None
    """Read the capture as this format instead of detecting it."""
    overwrite: bool = False
    """Replace the output folder if it is not empty."""
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(CheckOptions, argv, "check")
    if not options.capture.exists():
        raise KaleidosceneError(f"{options.capture}: no such file or folder.")
    if options.format is not None and options.format not in FORMATS:
        raise unknown_name("capture format", options.format, FORMATS)
    capture, findings = None, []
    try:
        capture = scan_capture(options.capture, format=options.format)
        findings = check_capture(capture)
    except KaleidosceneError as error:
        findings = [Finding(
            "error", "unreadable", None, str(error).rstrip("."), "nothing can be read", "see docs/formats.md",
        )]  # fmt: skip
    _print(options, capture, findings)
    counts = {severity: sum(f.severity == severity for f in findings) for severity in ("error", "warning", "note")}
    if options.out is not None:
        with whole_folder(options.out, overwrite=options.overwrite, sources=[options.capture]) as folder:
            names = write_findings(folder, capture, findings)
        print("\n".join(f"wrote {options.out / name}" for name in names))
    if options.json:
        print_json({"capture": str(options.capture), **counts, "findings": [asdict(finding) for finding in findings]})
    if counts["error"]:
        raise Failed


def _print(options: CheckOptions, capture: Capture | None, findings: list[Finding]) -> None:
    if capture is not None:
        for note in capture.notes:
            print(f"{capture.name}: {note}.")
        sizes = [frame.image_size for frame in capture.frames if frame.image_size is not None]
        size = f"{min(h for h, _ in sizes)}x{min(w for _, w in sizes)}" if sizes else "not known"
        print(f"{capture.name}: {len(capture)} frames, smallest size {size}.")
    shown = [finding for finding in findings if finding.severity != "note"]
    if not shown:
        print("No errors and no warnings.")
        return
    table = Table(show_lines=True)
    for name in ("", "frame", "what", "effect", "what to do"):
        table.add_column(name, overflow="fold")
    for finding, frames in _grouped(shown)[:_MOST_ROWS]:
        table.add_row(finding.severity, frames, finding.value, finding.effect, finding.remedy)
    Console().print(table)
    hidden = len(_grouped(shown)) - _MOST_ROWS
    if hidden > 0:
        print(f"... and {hidden} more kinds; --out or --json has them all.")


def _grouped(findings: list[Finding]) -> list[tuple[Finding, str]]:
    """One row for each kind, with the first frame and how many more there are."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.kind, []).append(finding)
    rows = []
    for group in groups.values():
        first = "" if group[0].frame is None else str(group[0].frame)
        rows.append((group[0], first + (f" and {len(group) - 1} more" if len(group) > 1 else "")))
    return rows
