"""Runs the rows of an ablation on the same data and seeds, and sets them beside published numbers."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.synthetic.writing import write_synthetic_shards
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.benchmarks import BENCHMARKS, find_scenes
from kaleidoscene.evaluation.held_out import read_objects
from kaleidoscene.evaluation.protocols import FirstViews
from kaleidoscene.evaluation.run import Score, evaluate
from kaleidoscene.experiments.ablation_report import write_ablation_report
from kaleidoscene.experiments.statistics import SETTINGS, Result
from kaleidoscene.families.ablation import Ablation, AblationRow
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.registry import find_ablation
from kaleidoscene.nn.precision import AnyPrecision, chosen
from kaleidoscene.serialisation import file_sha256, to_plain, write_json
from kaleidoscene.training.config import recipe_identity
from kaleidoscene.training.health import top_activations
from kaleidoscene.training.recipe import Recipe
from kaleidoscene.training.run import RunOptions
from kaleidoscene.training.world import launched_processes
from kaleidoscene.workflows.training import train

# References -> targets of the paper's table; targets of one call see each other.
_JOINT = FirstViews("ablation", 25, tuple(range(10, 15)))


@dataclass(frozen=True, kw_only=True)
class AblationOptions:
    """Train every row of the ablation, in the paper's greedy order, and write a table and a plot; it can go on."""

    out: Path
    """Folder: one run for a row and seed, results.json, table.md, plot.png."""
    held_out: Path
    """Folder of captures with 25 views each to score on."""
    suite: str = "paper"
    """paper: Table 4, greedily; choices: those of the default weights' recipe, each undone alone; lenses:
    ways to tell a network its lens; rng: Table 3 of RnG; rae3d: tokens, their noise and what is ours in 3DRAE."""
    scale: str = "nano"
    """nano: 32 px, minutes a row on a CPU; paper: the paper's small model at 256 px (suite paper only)."""
    steps: int | None = None
    """Length of every run; by default the scale's."""
    batch: int | None = None
    """Scenes of a step; by default the scale's."""
    shards: tuple[Path, ...] = ()
    """Folders of training shards; by default the scale's synthetic scenes are rendered into OUT/shards."""
    sampling_steps: int | None = None
    """Denoising steps of the views that are scored; by default the scale's (50, as the paper)."""
    precision: AnyPrecision | None = None
    """Of matrix products in training; by default the scale's."""
    compile: bool = False
    """Compile the blocks; about a minute a row, and half the time of a step after it."""
    rows: tuple[str, ...] = ()
    """Names of rows; by default all that can be run."""
    seeds: tuple[int, ...] = (0,)
    objects: int = 16
    """Captures to score on."""
    features: bool = False
    """Whether DINOv2 weights can be had; the rows that need them are left out otherwise."""
    video_init: tuple[str, ...] = ()
    """Runs or checkpoints that were trained on video at this scale, one for each row of (x), in its order."""
    device: str | None = None
    workers: int | None = None


def run_ablation(options: AblationOptions) -> list[Result]:
    """Train and score what is not there yet; writes results.json, table.md and plot.png.

    Raises:
        KaleidosceneError: A row is unknown, lacks what it needs, or earlier results cannot stand beside.
    """
    study = find_ablation(options.suite)
    base = _base(study, options)
    recipes = study.recipes(base, options.features)
    rows = [row for row in study.rows if row.name in recipes]
    for name in options.rows:
        if name not in recipes:
            raise unknown_name("row (or one that needs --features)", name, recipes)
    chosen = [row for row in rows if not options.rows or row.name in options.rows]
    if not options.rows and not options.video_init:
        chosen = [row for row in chosen if row.needs != "video"]
    if not options.seeds:
        raise KaleidosceneError("--seeds is empty.")
    _check(study, chosen, options)
    shards = options.shards or (_rendered(base, options.out),)
    options = replace(options, shards=shards)
    # What cannot stand in one table is refused before anything is trained.
    results = _all_results(rows, recipes, options)
    on_video = [row for row in chosen if row.needs == "video"]
    for row in chosen:
        init = options.video_init[on_video.index(row)] if row in on_video else None
        for seed in options.seeds:
            _run(study, row, recipes, seed, init, options)
            results = _all_results(rows, recipes, options)
            write_ablation_report(options.out, study, results, _context(study, base, results, options))
    return results


def _check(study: Ablation, rows: list[AblationRow], options: AblationOptions) -> None:
    """Refuse what would fail only after hours of training."""
    if launched_processes() > 1:
        raise KaleidosceneError(
            "kaleidoscene ablate is one process; start several on rows of their own (--rows), or train a row's recipe "
            "with 'kaleidoscene train RECIPE'."
        )
    if options.objects < 1:
        raise KaleidosceneError(f"--objects must be at least 1, got {options.objects}.")
    if not options.held_out.is_dir():
        raise KaleidosceneError(f"{options.held_out}: no such folder.")
    find_scenes(BENCHMARKS["objects"], options.held_out)  # nothing to score on is found before hours of training
    on_video = [row.name for row in rows if row.needs == "video"]
    if options.video_init and len(options.video_init) != len(on_video):
        raise KaleidosceneError(
            f"--video-init has {len(options.video_init)} runs for {len(on_video)} rows ({', '.join(on_video)}); "
            "rows that differ in their video training alone need one each."
        )
    for row in rows:
        if row.needs == "video" and not options.video_init:
            raise KaleidosceneError(
                f"Row {row.name} begins with weights that were trained on video: give --video-init RUN."
            )
        for seed in options.seeds:
            before = (
                row if row.trains else next(other for other in study.rows if other.name == _trained_before(study, row))
            )
            if before not in rows and not (options.out / f"{before.name}-{seed}").is_dir():
                raise KaleidosceneError(
                    f"Row {row.name} is scored on the weights of row {before.name}: run that as well."
                )


def _all_results(rows: list[AblationRow], recipes: dict[str, Recipe], options: AblationOptions) -> list[Result]:
    """Of all runs in the folder, also of earlier calls; every seed may have shards of its own.

    Raises:
        KaleidosceneError: An earlier call had another recipe, captures to score on, or shards of the same seed: its
            numbers cannot stand beside.
    """
    found: list[Result] = []
    shards: dict[int, Any] = {seed: _sources(options.shards) for seed in options.seeds}
    for row in rows:
        for path in sorted(options.out.glob(f"{row.name}-*/result.json")):
            document = json.loads(path.read_text())
            of = document.pop("of")
            if document["row"] != row.name:
                continue
            now = _note(recipes[row.name], document["seed"], None, options)
            parts = {"recipe": "recipe", "held_out": "set of captures", "objects": "number of captures"}
            if different := [said for key, said in parts.items() if of.get(key) != now[key]]:
                raise KaleidosceneError(
                    f"{path}: of another {different[0]} than this call's (or of an older version); give another --out."
                )
            if shards.setdefault(document["seed"], of["sources"]) != of["sources"]:
                raise KaleidosceneError(f"{path}: of other shards than those of the same seed; give another --out.")
            found.append(Result(**document))
    return found


def _note(recipe: Recipe, seed: int, init: str | None, options: AblationOptions) -> dict[str, Any]:
    """What a result is of."""
    return json.loads(json.dumps({
        "recipe": {**to_plain(recipe), "train": recipe_identity(recipe.train), "steps": recipe.train.steps},
        "seed": seed, "sources": _sources(options.shards),
        "held_out": _digest(options.held_out, options.objects), "objects": options.objects, "video_init": init,
    }))  # fmt: skip


@cache
def _sources(shards: tuple[Path, ...]) -> list[str]:
    return [ShardFolder(path).fingerprint for path in shards]


@cache
def _digest(folder: Path, objects: int) -> str:
    """Of the images and cameras that are scored on."""
    digest = hashlib.sha256()
    for scene in find_scenes(BENCHMARKS["objects"], folder)[:objects]:
        capture = scene.read()
        digest.update("".join(file_sha256(frame.image) for frame in capture.frames).encode())
        digest.update(capture.cameras.world_from_cam.numpy().tobytes() + capture.cameras.intrinsics.numpy().tobytes())
    return digest.hexdigest()


def _base(study: Ablation, options: AblationOptions) -> Recipe:
    if options.scale not in study.scales:
        raise unknown_name(f"scale of suite {options.suite}", options.scale, study.scales)
    base = study.scales[options.scale]()
    if options.batch is not None and options.batch < 1:
        raise KaleidosceneError(f"--batch must be at least 1, got {options.batch}.")
    names = ("steps", "device", "workers", "precision")
    given = tuple((name, getattr(options, name)) for name in names)
    changes: dict[str, Any] = {name: value for name, value in given if value is not None}
    try:
        if options.sampling_steps is not None:
            base = study.with_sampling_steps(base, options.sampling_steps)
        old = base.options
        data = old.data if options.batch is None else replace(old.data, batch_size=options.batch)
        train = replace(old.train, validate_every=10**9, compile=options.compile or old.train.compile, **changes)
        train = replace(train, precision=chosen(train.precision, train.device))  # results of unlike ones do not mix
        return base.changed(replace(old, data=data, train=train))
    except ValueError as error:
        raise KaleidosceneError(f"{error}") from error


def _rendered(base: Recipe, out: Path) -> Path:
    assert base.synthetic is not None
    write_synthetic_shards(base.synthetic, out / "shards", workers=2)
    return out / "shards"


def _context(study: Ablation, base: Recipe, results: list[Result], options: AblationOptions) -> dict[str, Any]:
    steps = base.plan.method_note.get("schedule", {}).get("steps", 1)
    return {
        "suite": options.suite, "scale": options.scale, "steps": base.train.steps,
        "batch_size": base.batches.batch_size, "image_size": list(base.plan.image_size),
        "held_out": options.held_out.name, "objects": options.objects,
        "seeds": sorted({result.seed for result in results}), "sampling_steps": steps, "published": study.published,
    }  # fmt: skip


def _run(
    study: Ablation,
    row: AblationRow,
    recipes: dict[str, Recipe],
    seed: int,
    init: str | None,
    options: AblationOptions,
) -> None:
    """Train and score one row, unless that is done already; ``init`` has the weights that it begins with."""
    run, recipe = options.out / f"{row.name}-{seed}", recipes[row.name]
    path, note = run / "result.json", _note(recipe, seed, init, options)
    if path.is_file():
        document = json.loads(path.read_text())
        if document.pop("of") != note:
            raise KaleidosceneError(f"{path}: of another recipe, data, or captures to score on; give another --out.")
        return
    if row.trains:
        print(f"== {row.decision or 'baseline'} {row.name}, seed {seed}")
        _train(recipe, run, seed, init, options)
    source = run if row.trains else options.out / f"{_trained_before(study, row)}-{seed}"
    records = [json.loads(line) for line in (source / "metrics.jsonl").read_text().splitlines()]
    scans, top = _scores(study, source, recipe, options)
    seconds = statistics.median(record["seconds"] for record in records)
    result = Result(
        row=row.name, seed=seed, psnr={name: statistics.fmean(values.values()) for name, values in scans.items()},
        scenes_per_second=recipe.batches.batch_size / seconds, top_activation=top,
        loss=statistics.fmean(r["loss"] for r in records[-50:]), scans=scans,
    )  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    write_json(path, {**to_plain(result), "of": note})


def _trained_before(study: Ablation, row: AblationRow) -> str:
    """The chosen row whose weights an inference row is scored on."""
    earlier = study.rows[: study.rows.index(row)]
    return next(other.name for other in reversed(earlier) if other.trains and other.chosen)


def _train(recipe: Recipe, run: Path, seed: int, init: str | None, options: AblationOptions) -> None:
    old = recipe.options
    seeded = recipe.changed(replace(old, train=replace(old.train, seed=seed), data=replace(old.data, seed=seed)))
    train(seeded, RunOptions(out=run, shards=tuple(map(str, options.shards)), init=init))


def _scores(
    study: Ablation, run: Path, recipe: Recipe, options: AblationOptions
) -> tuple[dict[str, dict[str, float]], float]:
    """PSNR of every scan in the settings of the table, and the largest output of any unit meanwhile."""
    system = study.system(resolve(run), recipe, options.device or recipe.train.device)
    objects = read_objects(options.held_out, system)[: options.objects]
    with top_activations(study.network(system)) as top:
        joint = evaluate(system.renderer, objects, _JOINT, [1, 5], independent=False)
        alone = evaluate(system.renderer, objects, _JOINT, [5], independent=True)
    parts = ([s for s in joint if s.references == 1], alone, [s for s in joint if s.references == 5])
    return dict(zip(SETTINGS, map(_by_scan, parts), strict=True)), max(float(value) for value in top.values())


def _by_scan(scores: list[Score]) -> dict[str, float]:
    return {score.scene: score.mean("psnr") for score in scores}
