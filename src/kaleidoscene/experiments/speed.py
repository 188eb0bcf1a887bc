"""Speed and memory of a model: rendering, a training step, loading and the codec."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from kaleidoscene.api import Model, load
from kaleidoscene.codecs.codec import Codec
from kaleidoscene.datasets.batches import ViewBatches
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.shards import ShardFolder
from kaleidoscene.datasets.views import Views
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.evaluation.timing import Timing, measure
from kaleidoscene.families.checkpoints import resolve
from kaleidoscene.families.registry import recipe_of
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.nn.precision import Precision, autocast
from kaleidoscene.rendering.system import Variable
from kaleidoscene.training.cost import Placement
from kaleidoscene.training.distributed import place
from kaleidoscene.training.optim import Optimisers
from kaleidoscene.training.recipe import Recipe
from kaleidoscene.training.world import World


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
    h, w = model.image_size
    if height == h and cache is None:
        return model
    if not isinstance(model.system, Variable):
        raise KaleidosceneError(f"--sizes and --cache: models of family {model.system.family} come in one form.")
    use_cache = None if cache is None else cache == "on"
    return Model(model.system.variant((height, round(height * w / h)), use_cache=use_cache), model.device)


def _requests(model: Model, n: int, settings: BenchSettings, suffix: str, watch: Stopwatch) -> Iterator[Timing]:
    cameras = _ring(n + max(settings.targets), model)
    images = torch.rand(1, n, 3, *model.image_size, generator=torch.Generator().manual_seed(0))
    at = cameras[:n].reshape(1, n)
    yield watch(f"encode N={n} {suffix}", lambda: model.system.renderer.encode(images, at), n, "images")
    for steps in settings.steps:
        # One step is all that a model without steps has.
        sampled = model.with_sampling(steps=steps) if model.capabilities.samples or steps > 1 else model
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


def _recipe(bench: BenchSettings) -> Recipe:
    """Training that would go on from the model, with every view of a scene in the batch."""
    recipe = recipe_of(resolve(bench.model))
    sampling = ViewSampling(views=bench.views, kind="fixed", masking="none")
    data = replace(recipe.options.data, batch_size=bench.train_batch, sampling=sampling)
    train = replace(recipe.options.train, device=bench.device, accumulate=1)
    return recipe.changed(replace(recipe.options, data=data, train=train))


def _train(bench: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Forward, backward and optimiser of the network of the model, on random views, uncompiled."""
    recipe = _recipe(bench)
    task = recipe.make_task(bench.device)
    place(task.model, World(device=bench.device), recipe.train, task.initialise)
    optimisers = Optimisers(task.model, recipe.train.optim)
    cameras = Cameras.stack([_ring(bench.views, load(bench.model, device=bench.device))] * bench.train_batch)
    generator = torch.Generator().manual_seed(0)
    shape = (bench.train_batch, bench.views, 3, *cameras.image_size)
    views = Views(
        images=torch.rand(shape, generator=generator), cameras=cameras, times=None,
        is_video=torch.zeros(bench.train_batch, dtype=torch.bool), num_references=bench.views // 2,
    ).to(bench.device)  # fmt: skip

    def step() -> None:
        with autocast(torch.device(bench.device), precision):
            loss = task.losses(views, 0)["loss"]
        loss.backward()
        optimisers.step()
        optimisers.zero_grad()

    cost = recipe.training_costs(Placement(1, 1, 1, False))[0]
    name = f"train batch={bench.train_batch} views={bench.views} {precision}"
    yield watch(name, step, bench.train_batch, "scenes", cost.flops)


def _data(bench: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Batches of the shards as the model's recipe would take them, in this process."""
    del precision
    assert bench.shards is not None
    recipe = recipe_of(resolve(bench.model))
    batches = ViewBatches(ShardFolder(bench.shards), replace(recipe.batches, batch_size=bench.train_batch))
    steps = iter(range(1_000_000))
    yield watch(f"load batch={bench.train_batch}", lambda: batches[next(steps)], bench.train_batch, "scenes")


def _codec(bench: BenchSettings, precision: Precision, watch: Stopwatch) -> Iterator[Timing]:
    """Images to latents and back."""
    del precision
    model = load(bench.model, device=bench.device)
    codec = getattr(recipe_of(resolve(bench.model)).make_task(bench.device), "codec", None)
    if not isinstance(codec, Codec):
        raise KaleidosceneError(f"--suites codec: models of family {model.system.family} have no image codec.")
    images = torch.rand(1, 8, 3, *model.image_size, generator=torch.Generator().manual_seed(0)).to(bench.device)
    with torch.no_grad():
        latents = codec.encode(images)
        yield watch("codec encode", lambda: codec.encode(images), 8, "images")
        yield watch("codec decode", lambda: codec.decode(latents), 8, "images")


SUITES: dict[str, Callable[[BenchSettings, Precision, Stopwatch], Iterator[Timing]]] = {
    "render": _render, "train": _train, "data": _data, "codec": _codec,
}  # fmt: skip
