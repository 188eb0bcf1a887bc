"""kaleidoscene compare: reports of one protocol side by side; meshes or cameras beside true ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.against_truth import MESHES, compare_cameras, compare_cloud, compare_meshes, is_cloud
from kaleidoscene.evaluation.benchmark_run import IDENTITY
from kaleidoscene.evaluation.comparison import compare, write_comparison
from kaleidoscene.evaluation.documents import schema_of
from kaleidoscene.evaluation.results import REPORT, read_report
from kaleidoscene.evaluation.timing import SCHEMA as SPEED_SCHEMA
from kaleidoscene.evaluation.timing import SPEED, compare_speed, read_speed_report
from kaleidoscene.folders import whole_folder
from kaleidoscene.serialisation import write_aside


@dataclass(frozen=True, kw_only=True)
class CompareOptions:
    """Put reports of one protocol side by side, with paired differences and published rows; or reports of bench; or one
    mesh, a cloud of points, or the cameras of one capture beside true ones.
    """

    reports: tyro.conf.Positional[tuple[Path, ...]]
    """Reports, or folders that kaleidoscene evaluate wrote; the first is compared with. Or a mesh or a cloud and the
    true mesh, or a capture and one with true cameras of the same images."""
    names: tuple[str, ...] = ()
    """What to call them; by default their methods."""
    out: Path | None = None
    """Folder for comparison.md and comparison.png; without it the table is only printed."""
    overwrite: bool = False
    json: bool = False
    """Of meshes and cameras: a last line for machines."""


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(CompareOptions, argv, "compare")
    if _with_truth(options.reports):
        _compare_with_truth(options)
        return
    if options.json:
        raise KaleidosceneError("--json is for meshes and cameras; reports are JSON themselves.")
    if options.reports and _is_speed(options.reports[0]):
        _compare_speed(options)
        return
    reports = [read_report(path) for path in options.reports]
    names = _names(options, [report.method.name for report in reports])
    if len(set(names)) < len(names):
        names = [f"{name} ({path})" for name, path in zip(names, options.reports, strict=True)]
    print(compare(reports, names))
    if options.out is not None:
        with whole_folder(options.out, overwrite=options.overwrite, sources=options.reports) as folder:
            written = write_comparison(folder, reports, names)
        for path in written:
            print(f"wrote {options.out / path.name}")


def _is_speed(path: Path) -> bool:
    """Whether a report, or the one in a folder, is one of bench."""
    if path.is_dir():
        return (path / SPEED).is_file()
    return schema_of(path) == SPEED_SCHEMA


def _with_truth(paths: Sequence[Path]) -> bool:
    """Whether any path is a mesh, or all are folders and none is one of reports."""
    if any(path.suffix.lower() in MESHES for path in paths):
        return True
    notes = (REPORT, SPEED, IDENTITY)
    return bool(paths) and all(path.is_dir() and not any((path / n).is_file() for n in notes) for path in paths)


def _compare_with_truth(options: CompareOptions) -> None:
    """A mesh or a capture, and the true one."""
    if len(options.reports) != 2 or options.names or options.out is not None or options.overwrite:
        raise KaleidosceneError(
            "Meshes and cameras are compared two at a time, without --names, --out and --overwrite."
        )
    ours, truth = options.reports
    numbers: Mapping[str, float | None]
    if any(path.suffix.lower() in MESHES for path in (ours, truth)):
        numbers = compare_cloud(ours, truth) if is_cloud(ours) else compare_meshes(ours, truth)
    else:
        numbers = compare_cameras(read_capture(ours), read_capture(truth))
    for name, value in numbers.items():
        print(f"{name}: {'none, a surface has holes' if value is None else f'{value:.6g}'}")
    if options.json:
        print_json({"of": str(ours), "truth": str(truth), "numbers": dict(numbers)})


def _names(options: CompareOptions, given: Sequence[str]) -> list[str]:
    """What to call the reports: as asked for, else as given."""
    if options.names and len(options.names) != len(options.reports):
        raise KaleidosceneError(
            f"{len(options.reports)} reports and {len(options.names)} --names do not match in number."
        )
    return list(options.names or given)


def _compare_speed(options: CompareOptions) -> None:
    names = _names(options, [str(path) for path in options.reports])
    text = compare_speed([read_speed_report(path) for path in options.reports], names)
    print(text)
    if options.out is not None:
        with whole_folder(options.out, overwrite=options.overwrite, sources=options.reports) as folder:
            write_aside(folder / "comparison.md", text)
        print(f"wrote {options.out / 'comparison.md'}")
