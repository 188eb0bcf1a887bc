"""One process of several, started by processes.py: ``worker.py SHARDS RUNS``, JSON of ``[folder, options]`` each.

Beside what :func:`make_trainer` takes, options say what goes wrong, and in which process and at which step; what is
refused ends the process unless ``refused`` says that it is to be.
"""

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parents[2]))

from kaleidoscene.cli.main import end_process  # noqa: E402
from kaleidoscene.errors import KaleidosceneError  # noqa: E402
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer  # noqa: E402
from kaleidoscene.training.config import TrainConfig  # noqa: E402
from kaleidoscene.training.distributed import join_world, leave_world  # noqa: E402
from kaleidoscene.training.health import Divergence  # noqa: E402
from tests.conftest import ring  # noqa: E402
from tests.training.test_trainer import make_task, make_trainer  # noqa: E402

OWN = ("meta", "ask", "network", "score", "save_again", "timeout", "kill", "signal", "spoil", "overflow", "hurry",
       "blow_up", "slow_disk", "backend", "refused", "window")  # fmt: skip


def main() -> int:
    torch.set_num_threads(1)
    shards = Path(sys.argv[1])
    for run, options in json.loads(sys.argv[2]):
        if not train(shards, Path(run), options):
            return 1
    return 0


def train(shards: Path, run: Path, options: dict) -> bool:
    own = {name: options.pop(name) for name in OWN if name in options}
    if "backend" in own:
        torch.compiler.set_default_backend(own["backend"])
    group = {"shard_size": options["shard_size"]} if options.get("sharding") == "hybrid" else {}
    group["view_parallel"] = options.get("view_parallel", 1)
    try:
        config = TrainConfig(timeout=own.get("timeout", 30.0), sharding=options.get("sharding", "none"), **group)
        world = join_world(config)
        with torch.device("meta" if own.get("meta") else "cpu"):
            task = make_task(**own.get("network", {}))
        if own.get("hurry") == world.rank:  # its time is up at once, that of the others never
            options["time_limit"] = 1e-9
        trainer = make_trainer(shards, run, task, world=world, **options)
        if "window" in own:
            trainer.divergence = Divergence(trainer.config.divergence_factor, own["window"])
        go_wrong(trainer, own)
        if own.get("score"):
            trainer.validate = lambda model, pictures: rendered_mean(task, model)
        if own.get("save_again"):
            trainer.log = None
            trainer._save()
        compiled = sum(block._compiled_call_impl is not None for block in trainer.model.blocks)
        print(f"compiled blocks: {compiled}")
        with counted("reduce_scatter_single") as exchanges, counted("all_to_all_single") as swaps:
            trainer.train()
        print(f"interrupted: {trainer.interrupted}")
        print(f"{run}: gradients exchanged: {len(exchanges)}, matrices: {len(swaps)}")
        leave_world()
    except KaleidosceneError as error:
        print(f"kaleidoscene: {error}", file=sys.stderr)
        if "refused" in own:
            leave_world()
        return "refused" in own
    return True


def go_wrong(trainer, own) -> None:
    """Have the training go wrong at ``[process, step]`` of each way, or everywhere from step ``blow_up`` on."""
    task, inner = trainer.task, trainer.task.losses
    fatal = getattr(signal, own.get("signal", "SIGKILL"))
    # Killed in the middle of a step, when the others are waiting for its share of the weights.
    ways = {
        "kill": lambda views, seed: os.kill(os.getpid(), fatal),
        "spoil": lambda views, seed: inner(replace(views, images=views.images * float("nan")), seed),
        "ask": lambda views, seed: (os.kill(os.getpid(), fatal), inner(views, seed))[1],
        "overflow": lambda views, seed: {name: value * 1e30 for name, value in inner(views, seed).items()},
    }
    here = {own[name][1]: way for name, way in ways.items() if name in own and own[name][0] == trainer.world.rank}
    if here:

        def at_its_step(views, seed):
            return here.get(trainer.step, inner)(views, seed)

        task.losses = at_its_step
    if "blow_up" in own:
        guilty = dict(trainer.model.named_parameters())["blocks.1.feed_forward.down.weight"]

        def blown_up(views, seed):
            if trainer.step < own["blow_up"]:
                return inner(views, seed)
            guilty.data.mul_(2.0)
            return {name: 50 * value for name, value in inner(views, seed).items()}

        task.losses = blown_up
    if own.get("slow_disk") == trainer.world.rank:
        sync = os.fsync
        os.fsync = lambda file: (time.sleep(0.3), sync(file))


@contextmanager
def counted(collective: str) -> Iterator[list[int]]:
    """Grows by one with every call of a collective operation."""
    calls, inner = [], getattr(dist, collective)
    setattr(dist, collective, lambda *args, **named: (calls.append(1), inner(*args, **named))[1])
    yield calls
    setattr(dist, collective, inner)


def rendered_mean(task, model) -> dict[str, float]:
    renderer = KaleidoRenderer(model, task.settings, task.codec)
    cameras = ring(3, (6, 10), batch=(1,))
    images = torch.rand(1, 2, 3, 6, 10, generator=torch.Generator().manual_seed(0))
    views = renderer.render(renderer.encode(images, cameras[:, :2]), cameras[:, 2:], seeds=[0])
    return {"mean": views.images.mean().item()}


if __name__ == "__main__":
    end_process(main())
