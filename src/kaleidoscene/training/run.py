"""A recipe of any family becomes a run in a folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kaleidoscene.datasets.batches import Source, ViewBatches
from kaleidoscene.datasets.published import published_weights
from kaleidoscene.datasets.remote import ShardCache
from kaleidoscene.datasets.shards import DAMAGE, ShardFolder
from kaleidoscene.datasets.stored import StoredScene
from kaleidoscene.datasets.synthetic.writing import write_synthetic_shards
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.machine import check_device
from kaleidoscene.training.checkpoint_folders import list_checkpoints, step_of
from kaleidoscene.training.cost import Placement
from kaleidoscene.training.distributed import join_world, leave_world
from kaleidoscene.training.recipe import Recipe
from kaleidoscene.training.resuming import ResumeFrom
from kaleidoscene.training.task import Task
from kaleidoscene.training.trainer import Trainer, Validate
from kaleidoscene.training.weights import check_weights
from kaleidoscene.training.world import World, launched_processes

MakeValidate = Callable[[Task, Path], Validate]
"""Task and folder of held-out captures to what scores a network on them."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where a run lies, what it reads and where it starts."""

    out: Path
    """Folder of the run: checkpoints/, metrics.jsonl, and the rendered scenes if none are given."""
    shards: tuple[str, ...] = ()
    """Folders or addresses of training shards; by default --synthetic is rendered ahead into OUT/shards."""
    cache: ShardCache = ShardCache()
    """Where copies of shards lie that are given by an address (s3://, gs://, hf://)."""
    weights: tuple[float, ...] = ()
    """Relative shares of the folders in the batches; by default each has its number of scenes."""
    mixture: str | None = None
    """In place of --weights: those that a paper prints for sets of the names of the folders; rae3d (Table 7 of 3DRAE:
    co3d, arkitscenes, scannet, re10k, dl3dv; the others have no reader here)."""
    held_out: Path | None = None
    """Folder of captures to score while training (N = 1, 3, 5 on up to 16 objects)."""
    init: str | None = None
    """Checkpoint, run folder or 'default' to start the weights from."""
    fresh: tuple[str, ...] = ()
    """Parts of the network that the checkpoint of --init does not have and that begin anew (such as reprojection)."""
    force_recipe: bool = False
    """Go on with a run although its recipe or data have changed."""
    resume_from: ResumeFrom = "last"
    """last: a damaged newest checkpoint is refused; last-good: go on from the newest that is whole, and say what is
    lost."""
    rollback: float | None = None
    """Go back to the last checkpoint before a run went wrong, with the learning rates times this (such as 0.5)."""


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        checkpoint: The last one.
        interrupted: A signal ended it before its last step; the same call goes on.
    """

    checkpoint: Path
    interrupted: bool

    @property
    def step(self) -> int:
        """Of the checkpoint."""
        return step_of(self.checkpoint)


def train(
    recipe: Recipe,
    options: RunOptions,
    *,
    resolve: Callable[[str], Path],
    validation: MakeValidate | None = None,
) -> Finished:
    """Prepare model and data of a recipe and train it; what can be refused is refused before anything is rendered.

    Args:
        recipe: Of any family.
        options: Folder, data, start.
        resolve: From a model's name to the folder of its checkpoint.
        validation: Scores the held-out captures, where any are given.

    Raises:
        KaleidosceneError: Something is missing or does not fit, or the training failed.
    """
    out, resumes = options.out, bool(list_checkpoints(options.out))
    if out.exists() and not out.is_dir():
        raise KaleidosceneError(f"{out}: the folder of the run is a file.")
    known = ("metrics.jsonl", "shards", "train.json")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in known):
        raise KaleidosceneError(f"{out}: not empty and not a run; give another folder.")
    if options.rollback is not None and not 0 < options.rollback <= 1:
        raise KaleidosceneError(f"--rollback must be above 0 and at most 1, got {options.rollback}.")
    if options.fresh and options.init is None:
        raise KaleidosceneError("--fresh names parts that --init does not have: give --init as well.")
    recipe.check_start(options.init, resumes=resumes, has_shards=bool(options.shards))
    if launched_processes() == 1:  # every process of several has a device of its own
        check_device(recipe.train.device)
    finished = _train(recipe, options, join_world(recipe.train), resolve, validation)
    leave_world()  # not after an error: the others may be waiting in the middle of something
    return finished


def _train(
    recipe: Recipe,
    options: RunOptions,
    world: World,
    resolve: Callable[[str], Path],
    validation: MakeValidate | None,
) -> Finished:
    out, done = options.out, world.agree(list_checkpoints(options.out))
    task = recipe.make_task(world.device)
    initial = None if options.init is None or done else recipe.read_weights(resolve(options.init))
    if initial is not None:
        check_weights(task.model, initial, str(options.init), fresh=options.fresh)
    validate = None
    if options.held_out is not None:
        if validation is None:
            raise KaleidosceneError("--held-out: nothing here scores held-out captures.")
        validate = validation(task, options.held_out)
    batches = ViewBatches(_sources(recipe, options, world), recipe.batches)
    if done and world.is_main:
        print(f"going on from {done[-1]}")
    identity = {"data": recipe.batches, "sources": batches.fingerprint, **recipe.identity()}
    trainer = Trainer(
        task, batches, recipe.train, out, validate=validate, identity=identity, world=world, initial=initial,
        fresh=options.fresh, force=options.force_recipe, rollback=options.rollback, resume_from=options.resume_from,
        step_flops=_step_flops(recipe, world),
    )  # fmt: skip
    del initial  # the whole of the weights, which the model has its share of now
    return Finished(trainer.train(), trainer.interrupted)


def _step_flops(recipe: Recipe, world: World) -> float:
    """Operations of an average step, recomputed activations not counted."""
    if not recipe.train.peak_flops:
        return 0.0
    costs, shapes = recipe.training_costs(Placement(world.size, 1, 1, False)), recipe.batches.shapes
    weights = [shape.weight for shape in shapes]
    return sum(cost.flops * weight for cost, weight in zip(costs, weights, strict=True)) / sum(weights)


def _sources(recipe: Recipe, options: RunOptions, world: World) -> list[Source]:
    """The folders of shards with their weights; rendered ahead where none are given."""
    paths: tuple[str | Path, ...] = options.shards
    if not paths:
        paths = (_rendered(recipe, options.out / "shards", world),)
    given = options.weights
    if options.mixture is not None:
        if given or not options.shards:
            raise KaleidosceneError("--mixture gives folders of --shards their weights: name them, and no --weights.")
        given = published_weights(options.mixture, options.shards)
    folders = [ShardFolder(path, options.cache) for path in paths]
    for folder in folders:
        _check_shards(folder, recipe)
    if given and len(given) != len(folders):
        raise KaleidosceneError(f"--weights has {len(given)} numbers for {len(folders)} folders of shards.")
    weights = given or [float(len(folder)) for folder in folders]
    return [Source(folder, weight) for folder, weight in zip(folders, weights, strict=True)]


def _rendered(recipe: Recipe, folder: Path, world: World) -> Path:
    if recipe.synthetic is None:
        raise KaleidosceneError(
            "This recipe renders no scenes of its own: give --shards FOLDER (see 'kaleidoscene convert', of captures, "
            "videos or folders of images, and 'kaleidoscene synthesize')."
        )
    most = max(shape.batch_size for shape in recipe.batches.shapes)
    if recipe.synthetic.scenes < most:
        raise KaleidosceneError(f"--synthetic.scenes {recipe.synthetic.scenes}: a batch needs {most}.")
    if world.size > 1:
        raise KaleidosceneError("Several processes need --shards: render them ahead with 'kaleidoscene synthesize'.")
    write_synthetic_shards(recipe.synthetic, folder, workers=1)
    return folder


def _check_shards(folder: ShardFolder, recipe: Recipe) -> None:
    """Stored views must be as large as the recipe's (they are cropped to its aspect ratio), and made for it."""
    scene = _first_sound_scene(folder)
    h, w = scene.rgba.shape[1:3] if scene.latents is None else scene.latents.image_size
    for want_h, want_w in [shape.image_size for shape in recipe.batches.shapes if shape.image_size is not None]:
        if h < want_h or w < want_w:
            raise KaleidosceneError(f"{folder.name}: views of {h}x{w}, the recipe trains at {want_h}x{want_w}.")
    recipe.check_shards(folder, scene)


def _first_sound_scene(folder: ShardFolder) -> StoredScene:
    """The first scene that reads; the training decides how many may be damaged."""
    said = ""
    for number in range(min(8, len(folder))):
        try:
            return folder.read(number, [0], depth=folder.has_depth(number))
        except DAMAGE as error:
            said = said or f"{folder.key(number)} ({error})"
    raise KaleidosceneError(f"{folder.name}: the first scenes are all damaged, {said}.")
