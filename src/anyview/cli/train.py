"""anyview train: run a recipe, or go on with a run that was stopped."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import nn

from anyview.api import Model, resolve
from anyview.cli.common import parse, print_json
from anyview.cli.evaluate import read_objects
from anyview.cli.synthesize import write_shards
from anyview.codecs.codec import make_codec
from anyview.data.batches import BatchConfig, ViewBatches
from anyview.data.shards import ShardFolder
from anyview.data.synthetic.prerender import SyntheticScenes
from anyview.encoders.features import DinoV2
from anyview.errors import AnyViewError, unknown_name
from anyview.evaluation.protocols import ESCHERNET_GSO
from anyview.evaluation.run import TestObject, evaluate, means
from anyview.families.kaleido.checkpoint import read_weights
from anyview.families.kaleido.model import Kaleido
from anyview.families.kaleido.recipes import RECIPES, KaleidoRecipe
from anyview.families.kaleido.renderer import KaleidoRenderer
from anyview.families.kaleido.system import KaleidoSystem
from anyview.families.kaleido.task import KaleidoLoss, KaleidoTask
from anyview.training.checkpoint import list_checkpoints
from anyview.training.trainer import TrainConfig, Trainer, Validate


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Train a recipe; the same command on the same folder goes on where it was."""

    out: Path
    """Folder of the run: checkpoints/, metrics.jsonl, and the rendered scenes if none are given."""
    shards: Path | None = None
    """Folder of training shards; by default --synthetic is rendered ahead into OUT/shards."""
    held_out: Path | None = None
    """Folder of captures to score while training (N = 1, 3, 5 on up to 16 objects)."""
    init: str | None = None
    """Checkpoint, run folder or 'default' to start the weights from."""
    train: TrainConfig = field(default_factory=TrainConfig)
    data: BatchConfig = field(default_factory=BatchConfig)
    loss: KaleidoLoss = field(default_factory=KaleidoLoss)
    synthetic: SyntheticScenes = field(default_factory=SyntheticScenes)
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    if not argv or argv[0] in ("-h", "--help"):
        names = "\n".join(f"  {name:<26}{(make.__doc__ or '').splitlines()[0]}" for name, make in RECIPES.items())
        print(f"usage: anyview train RECIPE --out RUN [OPTIONS]     (RECIPE --help tells its options)\n\n{names}")
        if not argv:
            raise AnyViewError("A recipe is missing.")
        return
    if argv[0] not in RECIPES:
        raise unknown_name("recipe", argv[0], RECIPES)
    recipe = RECIPES[argv[0]]()
    default = TrainOptions(
        out=Path("runs") / argv[0], train=recipe.train, data=recipe.data, loss=recipe.loss, synthetic=recipe.synthetic
    )
    options = parse(TrainOptions, argv[1:], f"train {argv[0]}", default)
    last = train(
        replace(recipe, train=options.train, data=options.data, loss=options.loss, synthetic=options.synthetic), options
    )
    print(f"wrote {last}")
    if options.json:
        print_json({"checkpoint": str(last), "steps": options.train.steps})


def train(recipe: KaleidoRecipe, options: TrainOptions) -> Path:
    """Prepare data and model of a recipe and train it."""
    done = list_checkpoints(options.out)
    if options.out.exists() and any(options.out.iterdir()) and not (options.out / "metrics.jsonl").exists():
        if not (options.out / "shards").exists():
            raise AnyViewError(f"{options.out}: not empty and not a run; give another folder.")
    initial = None
    if options.init is not None and not done:
        initial = read_weights(resolve(options.init))
    shards = options.shards or options.out / "shards"
    if options.shards is None:
        write_shards(recipe.synthetic, shards, workers=1)
    torch.manual_seed(recipe.train.seed)
    settings = recipe.settings
    codec = make_codec(settings.codec)
    features = None
    if settings.model.feature_channels:
        features = DinoV2.from_pretrained(settings.feature_source, codec.factor * settings.model.patch_size)
    task = KaleidoTask(settings, recipe.loss, codec=codec, features=features)
    validate = None if options.held_out is None else _validation(options.held_out, task, recipe.train)
    batches = ViewBatches(ShardFolder(shards), recipe.data)
    if done:
        print(f"going on from {done[-1]}")
    return Trainer(task, batches, recipe.train, options.out, validate=validate, initial=initial).train()


def _validation(folder: Path, task: KaleidoTask, config: TrainConfig) -> Validate:
    """PSNR on held-out captures with 1, 3 and 5 references, by the model's own sampling."""
    objects: list[TestObject] | None = None

    def validate(model: nn.Module) -> dict[str, float]:
        nonlocal objects
        assert isinstance(model, Kaleido)
        precision = config.precision
        system = KaleidoSystem(KaleidoRenderer(model, task.settings, task.codec, task.features, precision=precision))
        if objects is None:
            objects = read_objects(folder, Model(system))[:16]
        scores = evaluate(system.renderer, objects, ESCHERNET_GSO, [1, 3, 5])
        return {f"psnr_{count}": numbers["psnr"] for count, numbers in means(scores).items()}

    return validate
