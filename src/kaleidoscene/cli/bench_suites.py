"""What `kaleidoscene bench` times: rendering, a training step, loading and the codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from kaleidoscene.api import Model, load, resolve
from kaleidoscene.codecs.registry import make_codec
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.timing import Timing, measure
from kaleidoscene.families.kaleido.checkpoint import read_settings
from kaleidoscene.families.kaleido.cost import Placement, training_cost
from kaleidoscene.families.kaleido.recipes import kaleido_nano
from kaleidoscene.families.kaleido.system import KaleidoSystem, token_grid
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.training.distributed import World, place
from kaleidoscene.training.optim import Optimisers

Precision = Literal["fp32", "bf16", "fp16"]
TYPES: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What to time; see ``kaleidoscene bench --help``."""

    model: str
    references: tuple[int, ...]
    targets: tuple[int, ...]
    steps: tuple[int, ...]
    sizes: tuple[int, ...]
    cache: tuple[Literal["on", "off"], ...]
    train_batch: int
    views: int
    shards: Path | None
    device: str


@dataclass(frozen=True)
class Stopwatch:
    """Times calls under the conditions of a benchmark."""

    runs: int
    device: str
    peak: float

    def __call__(self, name: str, work: Callable[[], object], count: int, unit: str, flops: int = 0) -> Timing:
        """See :func:`kaleidoscene.evaluation.timing.measure`."""
        return measure(
            name, work, count=count, unit=unit, runs=self.runs, flops=flops, peak=self.peak, device=self.device
        )


def _render(settings: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Encoding of references, and whole requests (encoding and all steps), over N, M, steps, sizes and the cache."""
    loaded = load(settings.model, device=settings.device, precision=precision)
    sizes = settings.sizes or (loaded.image_size[0],)
    # All of them before the first is timed: what cannot be built is said at once.
    variants = [(_variant(loaded, size, cache), cache) for size in sizes for cache in settings.cache or (None,)]
    for model, cache in variants:
        h, w = model.image_size
        suffix = f"{w}x{h} {precision}" + ("" if cache is None else f" cache {cache}")
        for n in settings.references:
            yield from _requests(model, n, settings, suffix, watch)


def _variant(model: Model, height: int, cache: Literal["on", "off"] | None) -> Model:
    """The model at another size, with or without kept references.

    Raises:
        KaleidosceneError: The size is no whole number of tokens, or the model has no exact cache.
    """
    system = model.system
    if not isinstance(system, KaleidoSystem):
        raise KaleidosceneError(f"--sizes and --cache are for Kaleido models, got one of family {system.family}.")
    h, w = system.image_size
    size = (height, round(height * w / h))
    tokens = token_grid(system.settings, (h, w))
    for pixels, whole, count in zip(size, (h, w), tokens, strict=True):
        if pixels % (whole // count):
            raise KaleidosceneError(f"--sizes {height}: images of {size[1]}x{size[0]} are no whole number of tokens.")
    use_cache = None if cache is None else cache == "on"
    return Model(KaleidoSystem(system.renderer.changed(image_size=size, use_cache=use_cache)), model.device)


def _requests(model: Model, n: int, settings: BenchSettings, suffix: str, watch: Stopwatch) -> Iterator[Timing]:
    cameras = _ring(n + max(settings.targets), model)
    images = torch.rand(1, n, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
    at = cameras[:n].reshape(1, n)
    yield watch(f"encode N={n} {suffix}", lambda: model.system.renderer.encode(images, at), n, "images")
    for steps in settings.steps:
        sampled = model.with_sampling(steps=steps)
        renderer = sampled.system.renderer
        for m in settings.targets:
            target = cameras[n : n + m].reshape(1, m)
            yield watch(
                f"render N={n} M={m} steps={steps} {suffix}",
                lambda m=m, t=target, r=renderer: r.render(r.encode(images, at), t, seeds=range(m)),
                m, "frames", sampled.system.cost(n, m).flops,
            )  # fmt: skip


def _ring(count: int, like: Model) -> Cameras:
    angle = 2 * torch.pi * torch.arange(count) / count
    eye = 1.8 * torch.stack([angle.cos(), angle.sin(), torch.full_like(angle, 0.4)], dim=-1)
    h, w = like.image_size
    focal = like.system.focal_over_height * h
    matrix = torch.tensor([[focal, 0.0, w / 2], [0.0, focal, h / 2], [0.0, 0.0, 1.0]])
    poses = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras(poses, matrix.expand(count, 3, 3).contiguous(), like.image_size)


def _train(bench: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Forward, backward and optimiser of the network of the model, on random views, uncompiled."""
    settings = read_settings(resolve(bench.model))
    train = replace(kaleido_nano().train, device=bench.device)
    task = KaleidoTask(settings, KaleidoLoss(), codec=make_codec(settings.codec).to(bench.device))
    place(task.model, World(device=bench.device), train, task.initialise)
    optimisers = Optimisers(task.model, train.optim)
    cameras = Cameras.stack([_ring(bench.views, load(bench.model, device=bench.device))] * bench.train_batch)
    generator = torch.Generator().manual_seed(0)
    shape = (bench.train_batch, bench.views, 3, *settings.image_size)
    views = Views(
        images=torch.rand(shape, generator=generator), cameras=cameras, times=None,
        is_video=torch.zeros(bench.train_batch, dtype=torch.bool), num_references=bench.views // 2,
    ).to(bench.device)  # fmt: skip

    def step() -> None:
        with torch.autocast(bench.device.split(":")[0], TYPES[precision], enabled=precision != "fp32"):
            loss = task.losses(views, 0)["loss"]
        loss.backward()
        optimisers.step()
        optimisers.zero_grad()

    parameters = sum(p.numel() for p in task.model.parameters())
    cost = training_cost(
        settings.model, parameters, views=float(bench.views), batch=bench.train_batch,
        grid=token_grid(settings, settings.image_size), placement=Placement(1, 1, 1, False),
        reprojection_stride=task.loss.reprojection_stride,
    )  # fmt: skip
    name = f"train batch={bench.train_batch} views={bench.views} {precision}"
    yield watch(name, step, bench.train_batch, "scenes", cost.flops)


def _data(bench: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Batches of the shards as the model's recipe would take them, in this process."""
    del precision
    assert bench.shards is not None
    settings = read_settings(resolve(bench.model))
    config = replace(kaleido_nano().data, batch_size=bench.train_batch, image_size=settings.image_size)
    batches = ViewBatches(ShardFolder(bench.shards), config)
    steps = iter(range(1_000_000))
    yield watch(f"load batch={bench.train_batch}", lambda: batches[next(steps)], bench.train_batch, "scenes")


def _codec(bench: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Images to latents and back."""
    del precision
    settings = read_settings(resolve(bench.model))
    codec = make_codec(settings.codec).to(bench.device)
    images = torch.rand(1, 8, 3, *settings.image_size, generator=torch.Generator().manual_seed(0)).to(bench.device)
    with torch.no_grad():
        latents = codec.encode(images)
        yield watch("codec encode", lambda: codec.encode(images), 8, "images")
        yield watch("codec decode", lambda: codec.decode(latents), 8, "images")


SUITES: dict[str, Callable[[BenchSettings, Precision, Stopwatch], Iterator[Timing]]] = {
    "render": _render, "train": _train, "data": _data, "codec": _codec,
}  # fmt: skip
