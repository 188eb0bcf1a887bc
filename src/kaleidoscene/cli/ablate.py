"""kaleidoscene ablate: run the rows of the paper's ablation and set them beside its numbers."""

from __future__ import annotations

import hashlib
import json
import statistics
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kaleidoscene.api import Model
from kaleidoscene.cli.ablation_report import Result, write_ablation_report
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.cli.evaluate import read_objects
from kaleidoscene.cli.synthesize import write_shards
from kaleidoscene.cli.train import TrainOptions, train
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.benchmarks import BENCHMARKS, find_scenes
from kaleidoscene.evaluation.protocols import FirstViews
from kaleidoscene.evaluation.run import evaluate, means
from kaleidoscene.families.kaleido.recipes.ablations import (
    CHOICES,
    ROWS,
    AblationRow,
    ablation_recipes,
    choice_recipes,
    nano_scale,
    paper_scale,
)
from kaleidoscene.families.kaleido.recipes.nano import kaleido_nano_32
from kaleidoscene.families.kaleido.recipes.recipe import KaleidoRecipe
from kaleidoscene.families.kaleido.settings import SamplingConfig
from kaleidoscene.families.kaleido.system import KaleidoSystem, load_system
from kaleidoscene.serialisation import file_sha256, to_plain, write_json
from kaleidoscene.training.config import recipe_identity
from kaleidoscene.training.distributed import launched_processes
from kaleidoscene.training.health import top_activations

# References -> targets of the paper's table; targets of one call see each other.
_JOINT = FirstViews("ablation", 25, tuple(range(10, 15)))
_SETTINGS = ("1->5", "5->1", "5->5")
_SCALES = {"nano": nano_scale, "paper": paper_scale}


@dataclass(frozen=True, kw_only=True)
class AblateOptions:
    """Train every row of the ablation, in the paper's greedy order, and write a table and a plot; it can go on."""

    out: Path
    """Folder: one run for a row and seed, results.json, table.md, plot.png."""
    held_out: Path
    """Folder of captures with 25 views each to score on."""
    suite: Literal["kaleido", "choices"] = "kaleido"
    """kaleido: Table 4, greedily; choices: those of the default weights' recipe, each undone alone."""
    scale: Literal["nano", "paper"] = "nano"
    """nano: 32 px, minutes a row on a CPU; paper: Kaleido-Small at 256 px (kaleido only)."""
    steps: int | None = None
    """Length of every run; by default the scale's."""
    batch: int | None = None
    """Scenes of a step; by default the scale's."""
    shards: tuple[Path, ...] = ()
    """Folders of training shards; by default the scale's synthetic scenes are rendered into OUT/shards."""
    sampling_steps: int | None = None
    """Denoising steps of the views that are scored; by default the scale's (50, as the paper)."""
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
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(AblateOptions, argv, "ablate")
    base = _base(options)
    greedy = options.suite == "kaleido"
    recipes = ablation_recipes(base, features=options.features) if greedy else choice_recipes(base)
    table = ROWS if greedy else CHOICES
    rows = [row for row in table if row.name in recipes]
    for name in options.rows:
        if name not in recipes:
            raise unknown_name("row (or one that needs --features)", name, recipes)
    chosen = [row for row in rows if not options.rows or row.name in options.rows]
    if not options.rows and not options.video_init:
        chosen = [row for row in chosen if row.needs != "video"]
    if not options.seeds:
        raise KaleidosceneError("--seeds is empty.")
    _check(chosen, options)
    shards = options.shards or (_rendered(base, options.out),)
    options = replace(options, shards=shards)
    # What cannot stand in one table is refused before anything is trained.
    results = _all_results(rows, recipes, options)
    on_video = [row for row in chosen if row.needs == "video"]
    for row in chosen:
        init = options.video_init[on_video.index(row)] if row in on_video else None
        for seed in options.seeds:
            _run(row, recipes, seed, init, options)
            results = _all_results(rows, recipes, options)
            write_ablation_report(options.out, table, results, _context(base, results, options))
    print(f"wrote {options.out / 'results.json'}\nwrote {options.out / 'table.md'}\nwrote {options.out / 'plot.png'}")
    if options.json:
        print_json({"out": str(options.out), "results": [to_plain(result) for result in results]})


def _check(rows: list[AblationRow], options: AblateOptions) -> None:
    """Refuse what would fail only after hours of training."""
    if launched_processes() > 1:
        raise KaleidosceneError(
            "kaleidoscene ablate is one process; start several on rows of their own (--rows), or train a row's recipe "
            "with 'kaleidoscene train kaleido-ablation-...'."
        )
    if options.objects < 1:
        raise KaleidosceneError(f"--objects must be at least 1, got {options.objects}.")
    if not options.held_out.is_dir():
        raise KaleidosceneError(f"{options.held_out}: no such folder.")
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
            before = row if row.trains else next(other for other in ROWS if other.name == _trained_before(row))
            if before not in rows and not (options.out / f"{before.name}-{seed}").is_dir():
                raise KaleidosceneError(
                    f"Row {row.name} is scored on the weights of row {before.name}: run that as well."
                )


def _all_results(rows: list[AblationRow], recipes: dict[str, KaleidoRecipe], options: AblateOptions) -> list[Result]:
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


def _note(recipe: KaleidoRecipe, seed: int, init: str | None, options: AblateOptions) -> dict[str, Any]:
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


def _base(options: AblateOptions) -> KaleidoRecipe:
    base = _SCALES[options.scale]() if options.suite == "kaleido" else kaleido_nano_32()
    changes: dict[str, Any] = {
        name: value
        for name, value in (("steps", options.steps), ("device", options.device), ("workers", options.workers))
        if value is not None
    }
    if options.batch is not None and options.batch < 1:
        raise KaleidosceneError(f"--batch must be at least 1, got {options.batch}.")
    data = base.data if options.batch is None else replace(base.data, batch_size=options.batch)
    sampling = base.settings.sampling
    try:
        if options.sampling_steps is not None:
            sampling = replace(sampling, schedule=replace(sampling.schedule, steps=options.sampling_steps))
        settings = replace(base.settings, sampling=sampling)
        train = replace(base.train, validate_every=10**9, compile=options.compile or base.train.compile, **changes)
        return replace(base, settings=settings, data=data, train=train)
    except ValueError as error:
        raise KaleidosceneError(f"{error}") from error


def _rendered(base: KaleidoRecipe, out: Path) -> Path:
    assert base.synthetic is not None
    write_shards(base.synthetic, out / "shards", workers=2)
    return out / "shards"


def _context(base: KaleidoRecipe, results: list[Result], options: AblateOptions) -> dict[str, Any]:
    return {
        "suite": options.suite, "scale": options.scale, "steps": base.train.steps, "batch_size": base.data.batch_size,
        "image_size": list(base.settings.image_size), "held_out": options.held_out.name, "objects": options.objects,
        "seeds": sorted({result.seed for result in results}), "sampling_steps": base.settings.sampling.schedule.steps,
    }  # fmt: skip


def _run(
    row: AblationRow, recipes: dict[str, KaleidoRecipe], seed: int, init: str | None, options: AblateOptions
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
    source = run if row.trains else options.out / f"{_trained_before(row)}-{seed}"
    records = [json.loads(line) for line in (source / "metrics.jsonl").read_text().splitlines()]
    scores, top = _scores(source, recipe.settings.sampling, options.device or recipe.train.device, options)
    seconds = statistics.median(record["seconds"] for record in records)
    result = Result(
        row=row.name, seed=seed, psnr=scores, scenes_per_second=recipe.data.batch_size / seconds,
        top_activation=top, loss=statistics.fmean(r["loss"] for r in records[-50:]),
    )  # fmt: skip
    run.mkdir(parents=True, exist_ok=True)
    write_json(path, {**to_plain(result), "of": note})


def _trained_before(row: AblationRow) -> str:
    """The chosen row whose weights an inference row is scored on."""
    earlier = ROWS[: ROWS.index(row)]  # only rows of the paper have inference alone
    return next(other.name for other in reversed(earlier) if other.trains and other.chosen)


def _train(recipe: KaleidoRecipe, run: Path, seed: int, init: str | None, options: AblateOptions) -> None:
    train_options = TrainOptions(
        out=run, shards=options.shards, init=init,
        train=replace(recipe.train, seed=seed), data=replace(recipe.data, seed=seed), loss=recipe.loss,
    )  # fmt: skip
    train(replace(recipe, train=train_options.train, data=train_options.data), train_options)


def _scores(run: Path, sampling: SamplingConfig, device: str, options: AblateOptions) -> tuple[dict[str, float], float]:
    """PSNR of the settings of the table, and the largest output of any block meanwhile."""
    last = sorted((run / "checkpoints").glob("step-*"))[-1]
    system = load_system(last, device)
    system = KaleidoSystem(system.renderer.changed(sampling=sampling))
    objects = read_objects(options.held_out, Model(system))[: options.objects]
    with top_activations(system.renderer.model) as top:
        joint = means(evaluate(system.renderer, objects, _JOINT, [1, 5], independent=False))
        alone = means(evaluate(system.renderer, objects, _JOINT, [5], independent=True))
    psnr: dict[str, float] = dict(zip(_SETTINGS, (joint[1]["psnr"], alone[5]["psnr"], joint[5]["psnr"]), strict=True))
    return psnr, max(top.values())
