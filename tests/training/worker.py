"""One process of a distributed test, started by test_distributed.py: ``worker.py SHARDS RUN OPTIONS`` (JSON)."""

import json
import os
import signal
import sys
import warnings
from pathlib import Path

import torch

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[2]))

from anyview.cli.main import end_process  # noqa: E402
from anyview.errors import AnyViewError  # noqa: E402
from anyview.families.kaleido.renderer import KaleidoRenderer  # noqa: E402
from anyview.training.config import TrainConfig  # noqa: E402
from anyview.training.distributed import join_world, leave_world  # noqa: E402
from tests.conftest import ring  # noqa: E402
from tests.training.test_trainer import make_task, make_trainer  # noqa: E402


def main() -> int:
    shards, run, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    kill, spoil = options.pop("kill", None), options.pop("spoil", None)
    fatal = getattr(signal, options.pop("signal", "SIGKILL"))
    network, score = options.pop("network", {}), options.pop("score", False)
    overflow, save_again = options.pop("overflow", None), options.pop("save_again", False)
    world = join_world(
        TrainConfig(timeout=options.pop("timeout", 30.0), sharding=options.get("sharding", "none"), **_group(options))
    )
    if options.pop("meta", False):
        with torch.device("meta"):
            task = make_task(**network)
    else:
        task = make_task(**network)
    try:
        trainer = make_trainer(shards, run, task, world=world, **options)
        if kill is not None and world.rank == kill:
            before = task.losses  # in the middle of a step, when the others are waiting for its share of the weights
            task.losses = lambda views, seed: os.kill(os.getpid(), fatal) if trainer.step == 2 else before(views, seed)
        if spoil is not None and world.rank == spoil:
            inner_losses = task.losses
            task.losses = lambda views, seed: {
                k: v * (float("nan") if trainer.step == 2 else 1) for k, v in inner_losses(views, seed).items()
            }
        if overflow is not None and world.rank == overflow:
            inner_losses = task.losses
            task.losses = lambda views, seed: {
                k: v * (1e30 if trainer.step == 2 else 1) for k, v in inner_losses(views, seed).items()
            }
        if score:
            trainer.validate = lambda model: rendered_mean(task, model)
        if save_again:
            trainer.log = None
            trainer._save()
        compiled = sum(block._compiled_call_impl is not None for block in trainer.model.blocks)
        print(f"compiled blocks: {compiled}")
        trainer.train()
        leave_world()
    except AnyViewError as error:
        print(f"anyview: {error}", file=sys.stderr)
        return 1
    return 0


def rendered_mean(task, model) -> dict[str, float]:
    renderer = KaleidoRenderer(model, task.settings, task.codec)
    cameras = ring(3, (6, 10), batch=(1,))
    images = torch.rand(1, 2, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    views = renderer.render(renderer.encode(images, cameras[:, :2]), cameras[:, 2:], seeds=[0])
    return {"mean": views.images.mean().item()}


def _group(options):
    return {"shard_size": options["shard_size"]} if options.get("sharding") == "hybrid" else {}


if __name__ == "__main__":
    end_process(main())
