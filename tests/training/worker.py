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

from anyview.errors import AnyViewError  # noqa: E402
from anyview.training.config import TrainConfig  # noqa: E402
from anyview.training.distributed import join_world, leave_world  # noqa: E402
from tests.training.test_trainer import make_task, make_trainer  # noqa: E402


def main() -> None:
    shards, run, options = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
    torch.set_num_threads(1)
    kill, spoil = options.pop("kill", None), options.pop("spoil", None)
    network = options.pop("network", {})
    world = join_world(TrainConfig(timeout=30.0, sharding=options.get("sharding", "none"), **_group(options)))
    if options.pop("meta", False):
        with torch.device("meta"):
            task = make_task(**network)
    else:
        task = make_task(**network)
    try:
        trainer = make_trainer(shards, run, task, world=world, **options)
        if kill is not None and world.rank == kill:
            inner = trainer._step
            trainer._step = lambda parts: os.kill(os.getpid(), signal.SIGKILL) if trainer.step == 2 else inner(parts)
        if spoil is not None and world.rank == spoil:
            inner_losses = task.losses
            task.losses = lambda views, seed: {
                k: v * (float("nan") if trainer.step == 2 else 1) for k, v in inner_losses(views, seed).items()
            }
        trainer.train()
    except AnyViewError as error:
        print(f"anyview: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        if sys.exc_info()[0] is None:
            leave_world()


def _group(options):
    return {"shard_size": options["shard_size"]} if options.get("sharding") == "hybrid" else {}


if __name__ == "__main__":
    main()
