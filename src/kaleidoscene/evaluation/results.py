"""What an evaluation leaves on disk: one JSON with a versioned schema, checked when it is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.adherence import Adherence
from kaleidoscene.evaluation.documents import read_document
from kaleidoscene.evaluation.metrics.registry import (
    DEPTH_METRICS,
    IMAGE_METRICS,
    POSE_METRICS,
    SEQUENCE_METRICS,
    SET_METRICS,
)
from kaleidoscene.evaluation.protocols import Protocol, Split, SweepAxes
from kaleidoscene.evaluation.run import Score
from kaleidoscene.serialisation import to_plain, write_json

SCHEMA = "evaluation"
VERSION = 1
REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Method:
    """What made the views.

    Attributes:
        name: Of the model or baseline, as it was asked for.
        weights: SHA-256 of its weights; empty for a baseline.
        settings: How it samples, its precision and seed.
    """

    name: str
    weights: str = ""
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SceneResult:
    """One scene at one number of references.

    Attributes:
        scene: Its name.
        data: Fingerprint of its images, cameras and split.
        references: N.
        reference_views: Which they were.
        target_views: Which were rendered.
        values: By metric, of every target.
        copy: Likewise, of copying the reference with the nearest viewing direction.
        oracle_scale: See :class:`kaleidoscene.evaluation.run.Score`.
        oracle_axes: Likewise.
        oracle: Likewise.
        adherence: Of the rendered views to the cameras that were asked for, if it was measured.
        truth_adherence: Of the true images of the same views: what the estimator itself is off.
        sequence: By metric of sequences, of the rendered targets in their order.
        truth_sequence: Likewise, of the true views.
        depth: By metric of depth, of every target.
        pose: By metric of poses, of the references; none of a single one.
    """

    scene: str
    data: str
    references: int
    reference_views: tuple[int, ...]
    target_views: tuple[int, ...]
    values: dict[str, tuple[float, ...]]
    copy: dict[str, tuple[float, ...]]
    oracle_scale: float | None = None
    oracle_axes: SweepAxes | None = None
    oracle: dict[str, tuple[float, ...]] | None = None
    adherence: Adherence | None = None
    truth_adherence: Adherence | None = None
    sequence: dict[str, float] = field(default_factory=dict)
    truth_sequence: dict[str, float] = field(default_factory=dict)
    depth: dict[str, tuple[float, ...]] = field(default_factory=dict)
    pose: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        score: Score,
        split: Split,
        data: str,
        *,
        adherence: Adherence | None = None,
        truth_adherence: Adherence | None = None,
        sequence: dict[str, float] | None = None,
        truth_sequence: dict[str, float] | None = None,
        depth: dict[str, list[float]] | None = None,
        pose: dict[str, float] | None = None,
    ) -> SceneResult:
        """The numbers of a score."""

        def fixed(values: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
            return {name: tuple(numbers) for name, numbers in values.items()}

        return cls(
            scene=score.scene, data=data, references=score.references,
            reference_views=split.references[score.references],
            target_views=split.targets, values=fixed(score.values), copy=fixed(score.copy),
            oracle_scale=score.oracle_scale, oracle_axes=score.oracle_axes,
            oracle=None if score.oracle is None else fixed(score.oracle),
            adherence=adherence, truth_adherence=truth_adherence,
            sequence=sequence or {}, truth_sequence=truth_sequence or {}, depth=fixed(depth or {}), pose=pose or {},
        )  # fmt: skip

    def mean(self, metric: str, which: str = "values") -> float:
        """Over the targets, of ``values``, ``copy``, ``oracle`` or ``depth``."""
        numbers = getattr(self, which)[metric]
        return sum(numbers) / len(numbers)


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """A metric of all targets at one number of references.

    Attributes:
        metric: Its name.
        references: N.
        value: The distance.
        samples: Images on either side, without which it means nothing.
    """

    metric: str
    references: int
    value: float
    samples: int


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole evaluation.

    Attributes:
        schema: ``kaleidoscene-evaluation``.
        version: Of the schema.
        protocol: What the scores were taken under.
        method: What made the views.
        scenes: By scene, then by number of references.
        sets: Metrics of sets.
        mean: By number of references and metric; it follows from ``scenes`` and is checked against them.
    """

    schema: str = SCHEMA
    version: int = VERSION
    protocol: Protocol
    method: Method
    scenes: tuple[SceneResult, ...]
    sets: tuple[SetResult, ...] = ()
    mean: dict[str, dict[str, float]]

    @property
    def names(self) -> list[str]:
        """Of the scenes."""
        return list(dict.fromkeys(result.scene for result in self.scenes))

    def of(self, references: int) -> list[SceneResult]:
        """The results at one number of references."""
        return [result for result in self.scenes if result.references == references]


def count_scenes(report: Report) -> str:
    """How many there are, in words, and how many targets they have in all."""
    targets = sum({result.scene: len(result.target_views) for result in report.scenes}.values())
    return f"{_number(len(report.names), 'scene')}, {_number(targets, 'target')}"


def _number(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def means(scenes: Sequence[SceneResult], counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """Means over the targets of a scene, then over scenes; ``copy_*``, ``oracle_*`` and ``truth_*`` likewise."""
    out: dict[str, dict[str, float]] = {}
    for count in counts:
        group = [result for result in scenes if result.references == count]
        row: dict[str, float] = {}
        for which, prefix in (("values", ""), ("copy", "copy_"), ("oracle", "oracle_"), ("depth", "")):
            for metric in getattr(group[0], which) or ():
                row[prefix + metric] = sum(result.mean(metric, which) for result in group) / len(group)
        for which, prefix in (("sequence", ""), ("truth_sequence", "truth_"), ("pose", "")):
            for metric in getattr(group[0], which):
                row[prefix + metric] = sum(getattr(result, which)[metric] for result in group) / len(group)
        out[str(count)] = row
    return out


def write_report(path: Path, report: Report) -> None:
    """Write a report; the file appears when it is whole."""
    write_json(path, to_plain(report))


def read_report(path: Path) -> Report:
    """Read a report, or the one in a folder.

    Raises:
        KaleidosceneError: It is none, of another version of the schema, or its means do not follow from its scores.
    """
    path = path / REPORT if path.is_dir() else path
    report = read_document(Report, path, schema=SCHEMA, version=VERSION, verb="evaluate")
    _check(report, path)
    return report


def _check(report: Report, path: Path) -> None:
    counts = report.protocol.counts
    expected = [(name, count) for name in report.names for count in counts]
    if not expected or sorted((r.scene, r.references) for r in report.scenes) != sorted(expected):
        raise KaleidosceneError(f"{path}: the report has not every scene at every number of references once.")
    pairs = {name for name in report.protocol.metrics if name in IMAGE_METRICS}
    sequences = {name for name in report.protocol.metrics if name in SEQUENCE_METRICS}
    depths = {name for name in report.protocol.metrics if name in DEPTH_METRICS}
    poses = {name for name in report.protocol.metrics if name in POSE_METRICS}
    for result in report.scenes:
        for values in (result.values, result.copy, result.oracle):
            if values is not None and (
                values.keys() != pairs or {len(row) for row in values.values()} != {len(result.target_views)}
            ):
                raise KaleidosceneError(
                    f"{path}: {result.scene} has not every metric of the protocol for every target."
                )
        if not result.sequence.keys() == result.truth_sequence.keys() == sequences:
            raise KaleidosceneError(f"{path}: {result.scene} has not every metric of sequences of the protocol.")
        if result.depth.keys() != depths or any(len(row) != len(result.target_views) for row in result.depth.values()):
            raise KaleidosceneError(f"{path}: {result.scene} has not every metric of depth for every target.")
        if result.pose.keys() != (poses if result.references > 1 else set()):
            raise KaleidosceneError(f"{path}: {result.scene} has not every metric of poses of the protocol.")
    sets = sorted((name, count) for name in report.protocol.metrics if name in SET_METRICS for count in counts)
    if sorted((result.metric, result.references) for result in report.sets) != sets:
        raise KaleidosceneError(f"{path}: the report has not every metric of sets at every number of references once.")
    found = means(report.scenes, counts)
    same = found.keys() == report.mean.keys() and all(
        row.keys() == report.mean[count].keys()
        and all(math.isclose(value, report.mean[count][name], abs_tol=1e-6) for name, value in row.items())
        for count, row in found.items()
    )
    if not same:
        raise KaleidosceneError(f"{path}: the means do not follow from the scores of the scenes; the file was changed.")


def protocol_differences(a: Report, b: Report) -> list[str]:
    """In what the protocols of two reports differ, in words; empty if they may stand in one table."""
    out = [
        f"{field.name}: {getattr(a.protocol, field.name)!r}, {getattr(b.protocol, field.name)!r}"
        for field in fields(Protocol)
        if getattr(a.protocol, field.name) != getattr(b.protocol, field.name)
    ]
    if sorted(a.names) != sorted(b.names):
        only = sorted(set(a.names) ^ set(b.names))
        return [*out, f"scenes: {only[0]} is in one of them only"]
    splits = [{(r.scene, r.references): (r.reference_views, r.target_views) for r in x.scenes} for x in (a, b)]
    for key, split in splits[0].items():
        if key in splits[1] and splits[1][key] != split:
            return [*out, f"views of {key[0]} with {key[1]} references: {split}, {splits[1][key]}"]
    data = [{r.scene: r.data for r in x.scenes} for x in (a, b)]
    changed = [name for name in data[0] if data[0][name] != data[1][name]]
    return [*out, f"images or cameras of {changed[0]}"] if changed else out
