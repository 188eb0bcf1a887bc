"""kaleidoscene train: run a recipe, or go on with a run that was stopped."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import tyro
from torch import nn

from kaleidoscene.api import Model, check_device, resolve
from kaleidoscene.cli.common import parse, print_json
from kaleidoscene.cli.evaluate import read_objects
from kaleidoscene.cli.synthesize import write_shards
from kaleidoscene.codecs.codec import Codec
from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.datasets.batches import BatchConfig, Source, ViewBatches
from kaleidoscene.datasets.latents import NOTE
from kaleidoscene.datasets.shards import DAMAGE, ShardFolder, StoredScene
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.encoders.features import DinoV2
from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.protocols import ESCHERNET_GSO
from kaleidoscene.evaluation.run import evaluate, means
from kaleidoscene.families.kaleido.checkpoint import load_model, read_weights
from kaleidoscene.families.kaleido.distillation import Distillation, KaleidoDistillation, student_settings
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.recipes import RECIPES, KaleidoRecipe
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.system import KaleidoSystem
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from kaleidoscene.geometry.poses import field_of_view
from kaleidoscene.serialisation import file_sha256, to_plain
from kaleidoscene.training.checkpoint import list_checkpoints, step_of
from kaleidoscene.training.distributed import World, join_world, launched_processes, launched_rank, leave_world
from kaleidoscene.training.trainer import TrainConfig, Trainer, Validate
from kaleidoscene.training.weights import check_weights


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a recipe; the same command on the same folder goes on where it was."""

    out: Path
    """Folder of the run: checkpoints/, metrics.jsonl, and the rendered scenes if none are given."""
    shards: tuple[Path, ...] = ()
    """Folders of training shards; by default --synthetic is rendered ahead into OUT/shards."""
    weights: tuple[float, ...] = ()
    """Relative shares of the folders in the batches; by default each has its number of scenes."""
    held_out: Path | None = None
    """Folder of captures to score while training (N = 1, 3, 5 on up to 16 objects)."""
    init: str | None = None
    """Checkpoint, run folder or 'default' to start the weights from."""
    fresh: tuple[str, ...] = ()
    """Parts of the network that the checkpoint of --init does not have and that begin anew (such as reprojection)."""
    autoencoder: str | None = None
    """Folder or hub id (OWNER/NAME or OWNER/NAME/FOLDER) to load the recipe's autoencoder from."""
    features: str | None = None
    """Folder or hub id to load the recipe's DINOv2 from."""
    field_of_view: float | None = None
    """Degrees of the shorter side, in place of the recipe's, for shards that were made with another
    (kaleidoscene convert --shards.field-of-view)."""
    distil: Distillation = field(default_factory=Distillation)
    """Learn to follow a trained model in fewer steps; start from its weights with --init."""
    force_recipe: bool = False
    """Go on with a run although its recipe or data have changed."""
    rollback: float | None = None
    """Go back to the last checkpoint before a run went wrong, with the learning rates times this (such as 0.5)."""
    train: TrainConfig = field(default_factory=TrainConfig)
    data: BatchConfig = field(default_factory=BatchConfig)
    loss: KaleidoLoss = field(default_factory=KaleidoLoss)
    synthetic: tyro.conf.AvoidSubcommands[SyntheticScenes | None] = field(default_factory=SyntheticScenes)
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    if not argv or argv[0] in ("-h", "--help"):
        names = "\n".join(f"  {name:<40}{(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items())
        print(f"usage: kaleidoscene train RECIPE --out RUN [OPTIONS]     (RECIPE --help tells its options)\n\n{names}")
        if not argv:
            raise KaleidosceneError("A recipe is missing.")
        return
    if argv[0] not in RECIPES:
        raise unknown_name("recipe", argv[0], RECIPES)
    recipe = RECIPES[argv[0]]()
    default = TrainOptions(
        out=Path("runs") / argv[0], train=recipe.train, data=recipe.data, loss=recipe.loss, synthetic=recipe.synthetic
    )
    options = parse(TrainOptions, argv[1:], f"train {argv[0]}", default)
    recipe = replace(recipe, settings=_with_sources(recipe.settings, options))
    last = train(
        replace(recipe, train=options.train, data=options.data, loss=options.loss, synthetic=options.synthetic), options
    )
    if launched_rank():
        return
    print(f"wrote {last}")
    if step_of(last) < options.train.steps:
        print(f"time is up after step {step_of(last)} of {options.train.steps}; the same command goes on.")
    if options.json:
        print_json({"checkpoint": str(last), "steps": step_of(last)})


def _with_sources(settings: KaleidoSettings, options: TrainOptions) -> KaleidoSettings:
    """The recipe's settings with the autoencoder, the features and the lens that were asked for."""
    if options.autoencoder is not None:
        if settings.codec.kind != "kl":
            raise KaleidosceneError("--autoencoder: this recipe works on pixels and has none.")
        settings = replace(settings, codec=replace(settings.codec, source=options.autoencoder))
    if options.features is not None:
        if not settings.model.feature_channels:
            raise KaleidosceneError("--features: this recipe has no features of references.")
        settings = replace(settings, feature_source=options.features)
    if options.field_of_view is not None:
        if not 1 <= options.field_of_view < 180:
            raise KaleidosceneError(
                f"--field-of-view must be from 1 to below 180 degrees, got {options.field_of_view:g}."
            )
        settings = replace(settings, field_of_view=options.field_of_view)
    return settings


def train(recipe: KaleidoRecipe, options: TrainOptions) -> Path:
    """Prepare model and data of a recipe and train it; everything that can be refused is refused before rendering."""
    out = options.out
    if out.exists() and not out.is_dir():
        raise KaleidosceneError(f"{out}: the folder of the run is a file.")
    known = ("metrics.jsonl", "shards", "train.json")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in known):
        raise KaleidosceneError(f"{out}: not empty and not a run; give another folder.")
    if options.rollback is not None and not 0 < options.rollback <= 1:
        raise KaleidosceneError(f"--rollback must be above 0 and at most 1, got {options.rollback}.")
    if options.distil.teacher is None and options.distil != Distillation():
        raise KaleidosceneError("--distil needs its teacher: give --distil.teacher RUN.")
    if options.fresh and options.init is None:
        raise KaleidosceneError("--fresh names parts that --init does not have: give --init as well.")
    if options.distil.teacher is not None and options.init is None and not list_checkpoints(options.out):
        raise KaleidosceneError("A student starts from its teacher's weights: give --init as well.")
    if launched_processes() == 1:  # every process of several has a device of its own
        check_device(recipe.train.device)
    last = _train(recipe, options, join_world(recipe.train))
    leave_world()  # not after an error: the others may be waiting in the middle of something
    return last


def _train(recipe: KaleidoRecipe, options: TrainOptions, world: World) -> Path:
    out, settings = options.out, recipe.settings
    codec, features = make_codec(settings.codec).to(world.device), None
    if settings.model.feature_channels:
        features = DinoV2.from_pretrained(settings.feature_source, codec.factor * settings.model.patch_size)
        features = features.to(world.device)
    task = _task(settings, recipe, options.distil, codec, features)
    done = list_checkpoints(out)
    initial = None if options.init is None or done else read_weights(resolve(options.init))
    if initial is not None:
        check_weights(task.model, initial, str(options.init), fresh=options.fresh)
    validate = None if options.held_out is None else _validation(options.held_out, task, recipe.train)
    batches = ViewBatches(_sources(recipe, options, world), recipe.batches)
    if done and world.is_main:
        print(f"going on from {done[-1]}")
    identity = {"data": to_plain(recipe.batches), "loss": to_plain(recipe.loss), "sources": batches.fingerprint}
    if options.distil.teacher is not None:
        # Not where the teacher lies: a run that is one may have gone on since, and a folder may have moved.
        weights = file_sha256(resolve(options.distil.teacher) / "model.safetensors")
        identity["distil"] = {**to_plain(options.distil), "teacher": weights}
    trainer = Trainer(
        task, batches, recipe.train, out, validate=validate, identity=identity, world=world, initial=initial,
        fresh=options.fresh, force=options.force_recipe, rollback=options.rollback,
    )  # fmt: skip
    del initial  # the whole of the weights, which the model has its share of now
    return trainer.train()


def _task(
    settings: KaleidoSettings, recipe: KaleidoRecipe, distil: Distillation, codec: Codec, features: DinoV2 | None
) -> KaleidoTask:
    """The task of a run, its network still without weights."""
    if distil.teacher is None:
        with torch.device("meta"):
            return KaleidoTask(settings, recipe.loss, codec=codec, features=features)
    teacher, theirs = load_model(resolve(distil.teacher))
    if theirs.model != settings.model:
        raise KaleidosceneError(
            f"{distil.teacher}: another network than the recipe's; a student is built like its teacher."
        )
    student = student_settings(settings, distil)
    try:
        with torch.device("meta"):
            return KaleidoDistillation(student, recipe.loss, teacher, distil, codec=codec, features=features)
    except ValueError as error:
        raise KaleidosceneError(str(error)) from error


def _sources(recipe: KaleidoRecipe, options: TrainOptions, world: World) -> list[Source]:
    """The folders of shards with their weights; rendered ahead where none are given."""
    paths = options.shards
    if not paths and recipe.synthetic is None:
        raise KaleidosceneError(
            "This recipe trains on videos: give --shards FOLDER (see 'kaleidoscene convert VIDEOS')."
        )
    if not paths:
        if options.field_of_view is not None:
            raise KaleidosceneError(
                "--field-of-view is for shards that were made with another lens: give --shards; synthetic scenes have "
                "that of the recipe."
            )
        paths = (options.out / "shards",)
        if world.size > 1:
            raise KaleidosceneError(
                "Several processes need --shards: render them ahead with 'kaleidoscene synthesize'."
            )
        if recipe.synthetic is not None:
            write_shards(recipe.synthetic, paths[0], workers=1)
    folders = [ShardFolder(path) for path in paths]
    for folder in folders:
        _check_shards(folder, recipe)
    if options.weights and len(options.weights) != len(folders):
        raise KaleidosceneError(f"--weights has {len(options.weights)} numbers for {len(folders)} folders of shards.")
    weights = options.weights or [float(len(folder)) for folder in folders]
    return [Source(folder, weight) for folder, weight in zip(folders, weights, strict=True)]


def _first_sound_scene(folder: ShardFolder) -> StoredScene:
    """The first scene that reads; the training decides how many may be damaged."""
    said = ""
    for number in range(min(8, len(folder))):
        try:
            return folder.read(number, [0])
        except DAMAGE as error:
            said = said or f"{folder.key(number)} ({error})"
    raise KaleidosceneError(f"{folder.folder}: the first scenes are all damaged, {said}.")


def _check_shards(folder: ShardFolder, recipe: KaleidoRecipe) -> None:
    """Stored views must be as large as the recipe's (they are cropped to its aspect ratio), with its field of view."""
    settings, scene = recipe.settings, _first_sound_scene(folder)
    if scene.latents is not None:
        made = json.loads((folder.folder / NOTE).read_text())
        for what, ours in (("autoencoder", settings.codec.source), ("features", settings.feature_source)):
            if made[what] != ours:
                raise KaleidosceneError(f"{folder.folder}: latents by {what} {made[what]!r}, the recipe has {ours!r}.")
    h, w = scene.rgba.shape[1:3] if scene.latents is None else scene.latents.image_size
    for want_h, want_w in [shape.image_size for shape in recipe.batches.shapes if shape.image_size is not None]:
        if h < want_h or w < want_w:
            raise KaleidosceneError(f"{folder.folder}: views of {h}x{w}, the recipe trains at {want_h}x{want_w}.")
    if scene.cameras is None:
        return
    cameras = scene.cameras
    angle = math.degrees(field_of_view(float(cameras.intrinsics[0, 1, 1]), min(h, w)))
    if abs(angle - settings.field_of_view) > 1:
        raise KaleidosceneError(
            f"{folder.folder}: views of {angle:.1f} degrees, the recipe has {settings.field_of_view:.1f}; for those of "
            "the shards give --field-of-view."
        )


def _validation(folder: Path, task: KaleidoTask, config: TrainConfig) -> Validate:
    """PSNR on held-out captures with 1, 3 and 5 references, by the model's own sampling."""

    def system(model: nn.Module) -> KaleidoSystem:
        assert isinstance(model, Kaleido)
        renderer = KaleidoRenderer(model, task.settings, task.codec, task.features, precision=config.precision)
        return KaleidoSystem(renderer)

    objects = read_objects(folder, Model(system(task.model)))[:16]

    def validate(model: nn.Module) -> dict[str, float]:
        scores = evaluate(system(model).renderer, objects, ESCHERNET_GSO, [1, 3, 5])
        return {f"psnr_{count}": numbers["psnr"] for count, numbers in means(scores).items()}

    return validate
