"""anyview bench: how fast this machine renders, trains, loads and encodes, with the share of its peak."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from anyview.api import Model, check_device, load, resolve
from anyview.cli.common import parse, print_json
from anyview.codecs.codec import make_codec
from anyview.data.batches import ViewBatches
from anyview.data.shards import ShardFolder
from anyview.data.views import Views
from anyview.errors import AnyViewError
from anyview.evaluation.timing import (
    SPEED,
    SpeedReport,
    Timing,
    describe_machine,
    matrix_peak,
    measure,
    speed_table,
    waiter,
)
from anyview.families.kaleido.checkpoint import read_settings
from anyview.families.kaleido.cost import Placement, training_cost
from anyview.families.kaleido.recipes import kaleido_nano
from anyview.families.kaleido.system import token_grid
from anyview.families.kaleido.task import KaleidoLoss, KaleidoTask
from anyview.geometry.cameras import Cameras
from anyview.geometry.poses import look_at
from anyview.rendering.outputs import whole_folder
from anyview.serialisation import to_plain, write_json
from anyview.training.distributed import World, place
from anyview.training.optim import Optimisers

Suite = Literal["render", "train", "data", "codec"]
_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Time rendering, a training step, data loading and the codec; `anyview compare A B` shows what changed."""

    out: Path
    """Folder for speed.json."""
    suites: tuple[Suite, ...] = ("render", "train", "codec")
    """What to time; data needs --shards."""
    model: str = "default"
    references: tuple[int, ...] = (1, 4, 12)
    """Numbers of references N to render from."""
    targets: tuple[int, ...] = (1, 8)
    """Numbers of targets M of a call."""
    steps: tuple[int, ...] = (1, 8)
    """Numbers of denoising steps."""
    train_batch: int = 4
    """Scenes of the training step."""
    views: int = 8
    """Views of a scene of the training step."""
    shards: Path | None = None
    """Folder of training shards, for the data suite."""
    runs: int = 5
    """Timed runs after one for warm-up; the median and half the distance of the quartiles are given."""
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    overwrite: bool = False
    json: bool = False


def main(argv: list[str]) -> None:
    """Run the verb."""
    options = parse(BenchOptions, argv, "bench")
    check_device(options.device)
    numbers = (options.references, options.targets, options.steps, options.suites, (options.runs, options.train_batch))
    if not all(numbers):
        raise AnyViewError("--references, --targets, --steps and --suites need a value each.")
    if min((*options.references, *options.targets, *options.steps, options.runs, options.train_batch)) < 1:
        raise AnyViewError("Numbers of references, targets, steps, runs and scenes must be at least 1.")
    if options.views < 2:
        raise AnyViewError(f"--views must be at least 2 (a reference and a target), got {options.views}.")
    if "data" in options.suites and options.shards is None:
        raise AnyViewError("The data suite times the loading of shards: give --shards.")
    makers = {"render": _render, "train": _train, "data": _data, "codec": _codec}
    with whole_folder(options.out, overwrite=options.overwrite, sources=[options.shards]) as folder:
        peak = matrix_peak(options.device, _TYPES[options.precision])
        timings: list[Timing] = []
        with Progress(transient=True) as bar:
            task = bar.add_task("timing", total=None)
            for suite in options.suites:
                for timing in makers[suite](options, peak):
                    timings.append(timing)
                    bar.update(task, advance=1, description=timing.name)
        report = SpeedReport(
            machine=describe_machine(options.device) | {"precision": options.precision}, model=options.model,
            peak_flops=peak, timings=tuple(timings),
        )  # fmt: skip
        write_json(folder / SPEED, to_plain(report))
    header, rows = speed_table(report)
    table = Table(title=f"{options.model} on {report.machine['device']}, peak {peak / 1e9:.0f} GFLOP/s")
    for name in header:
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    print(f"wrote {options.out / SPEED}")
    if options.json:
        print_json(to_plain(report))


def _timed(options: BenchOptions, peak: float) -> Callable[..., Timing]:
    def timed(name: str, work: Callable[[], object], count: int, unit: str, flops: int = 0) -> Timing:
        return measure(
            name, work, count=count, unit=unit, runs=options.runs, flops=flops, peak=peak,
            synchronise=waiter(options.device),
        )  # fmt: skip

    return timed


def _ring(count: int, like: Model) -> Cameras:
    angle = 2 * torch.pi * torch.arange(count) / count
    eye = 1.8 * torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 0.4)], dim=-1)
    h, w = like.image_size
    focal = like.system.focal_over_height * h
    matrix = torch.tensor([[focal, 0.0, w / 2], [0.0, focal, h / 2], [0.0, 0.0, 1.0]])
    poses = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras(poses, matrix.expand(count, 3, 3).contiguous(), like.image_size)


def _render(options: BenchOptions, peak: float) -> Iterator[Timing]:
    """Encoding of references, and whole requests (encoding and all steps), over N, M and the number of steps."""
    timed = _timed(options, peak)
    for steps in options.steps:
        model = load(options.model, device=options.device, precision=options.precision).with_sampling(steps=steps)
        renderer = model.system.renderer
        for n in options.references:
            cameras = _ring(n + max(options.targets), model)
            images = torch.rand(1, n, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
            at = cameras[:n].reshape(1, n)
            if steps == options.steps[0]:
                yield timed(f"encode N={n}", lambda i=images, a=at, r=renderer: r.encode(i, a), n, "images")
            for m in options.targets:
                target = cameras[n : n + m].reshape(1, m)
                yield timed(
                    f"render N={n} M={m} steps={steps}",
                    lambda i=images, a=at, t=target, m=m, r=renderer: r.render(r.encode(i, a), t, seeds=range(m)),
                    m, "frames", model.system.cost(n, m).flops,
                )  # fmt: skip


def _train(options: BenchOptions, peak: float) -> Iterator[Timing]:
    """Forward, backward and optimiser of the network of the model, on random views."""
    settings = read_settings(resolve(options.model))
    train = replace(kaleido_nano().train, device=options.device)
    task = KaleidoTask(settings, KaleidoLoss(), codec=make_codec(settings.codec).to(options.device))
    place(task.model, World(device=options.device), train, task.initialise)
    optimisers = Optimisers(task.model, train.optim)
    model = load(options.model, device=options.device)
    batch, count = options.train_batch, options.views
    cameras = Cameras.stack([_ring(count, model)] * batch)
    generator = torch.Generator().manual_seed(0)
    views = Views(
        images=torch.rand(batch, count, 3, *settings.image_size, generator=generator), cameras=cameras, times=None,
        is_video=torch.zeros(batch, dtype=torch.bool), num_references=count // 2,
    ).to(options.device)  # fmt: skip
    low = options.precision != "fp32"

    def step() -> None:
        with torch.autocast(options.device.split(":")[0], _TYPES[options.precision], enabled=low):
            loss = task.losses(views, 0)["loss"]
        loss.backward()
        optimisers.step()
        optimisers.zero_grad()

    parameters = sum(p.numel() for p in task.model.parameters())
    cost = training_cost(
        settings.model, parameters, views=float(count), batch=batch, grid=token_grid(settings, settings.image_size),
        placement=Placement(1, 1, 1, False),
    )  # fmt: skip
    yield _timed(options, peak)(f"train batch={batch} views={count}", step, batch, "scenes", cost.flops)


def _data(options: BenchOptions, peak: float) -> Iterator[Timing]:
    """Batches of the shards as the model's recipe would take them, in this process."""
    assert options.shards is not None
    settings = read_settings(resolve(options.model))
    config = replace(kaleido_nano().data, batch_size=options.train_batch, image_size=settings.image_size)
    batches = ViewBatches(ShardFolder(options.shards), config)
    steps = iter(range(1_000_000))
    yield _timed(options, peak)(
        f"load batch={options.train_batch}", lambda: batches[next(steps)], options.train_batch, "scenes"
    )


def _codec(options: BenchOptions, peak: float) -> Iterator[Timing]:
    """Images to latents and back."""
    settings = read_settings(resolve(options.model))
    codec = make_codec(settings.codec).to(options.device)
    images = torch.rand(1, 8, 3, *settings.image_size, generator=torch.Generator().manual_seed(0)).to(options.device)
    with torch.no_grad():
        latents = codec.encode(images)
        yield _timed(options, peak)("codec encode", lambda: codec.encode(images), 8, "images")
        yield _timed(options, peak)("codec decode", lambda: codec.decode(latents), 8, "images")
