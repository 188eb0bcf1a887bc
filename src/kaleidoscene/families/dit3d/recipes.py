"""Runs of 3DDiT as functions: the paper's sizes, and small ones for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.sampling import SINGLE, ViewSampling
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.families.dit3d.config import Dit3dConfig, dit3d_base, dit3d_small, dit3d_xl
from kaleidoscene.families.dit3d.recipe import Dit3dRecipe
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.rae3d.recipes import IMAGES, PROCESSES, token_budget_buckets
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig

IMAGENET = 1000
"""Its classes."""


def _paper(model: Dit3dConfig) -> Dit3dRecipe:
    return Dit3dRecipe(
        settings=Dit3dSettings(model=model),
        data=BatchConfig(
            batch_size=PROCESSES, reference_dropout=0.0, augmentation=Augmentation.none(),
            # Of six views one or two are seen, of eighteen two to seven: the case of one image is among them.
            sampling=ViewSampling(views=IMAGES[1], kind="uniform", masking="none"), buckets=token_budget_buckets(),
        ),
        synthetic=None,
        train=TrainConfig(
            steps=80_000, ema_decay=0.9995, precision="bf16", device="cuda", sharding="ddp", compile=True,
            accumulate=None, workers=8,
            optim=OptimConfig(
                learning_rate=2e-4, warmup=8000, cooldown=0.9, fall="cosine", weight_decay=0.0, betas=(0.9, 0.95)
            ),
        ),
    )  # fmt: skip


def dit3d_s_views() -> Dit3dRecipe:
    """The paper's second stage, size S: views of scenes, 80K steps; needs --shards and --autoencoder."""
    return _paper(dit3d_small())


def dit3d_b_views() -> Dit3dRecipe:
    """The paper's second stage, size B; needs --shards and --autoencoder."""
    return _paper(dit3d_base())


def dit3d_xl_views() -> Dit3dRecipe:
    """The paper's second stage, size XL; needs --shards and --autoencoder."""
    return _paper(dit3d_xl())


def _images(views: Dit3dRecipe) -> Dit3dRecipe:
    """The paper's first stage of a size: single pictures with the labels of ImageNet, of which poses alone are told."""
    return replace(
        views, settings=replace(views.settings, model=replace(views.settings.model, classes=IMAGENET)),
        loss=replace(views.loss, all_hidden=1.0),
        data=replace(views.data, sampling=SINGLE, buckets=(), batch_size=PROCESSES * sum(IMAGES) // 2),
    )  # fmt: skip


def dit3d_s_images() -> Dit3dRecipe:
    """The paper's first stage, size S: pictures with class labels, 80K steps; needs --shards and --autoencoder."""
    return _images(dit3d_s_views())


def dit3d_b_images() -> Dit3dRecipe:
    """The paper's first stage, size B; needs --shards and --autoencoder."""
    return _images(dit3d_b_views())


def dit3d_xl_images() -> Dit3dRecipe:
    """The paper's first stage, size XL; needs --shards and --autoencoder."""
    return _images(dit3d_xl_views())


def dit3d_nano() -> Dit3dRecipe:
    """For a CPU: over the tokens of ``rae3d-nano``; needs its statistics (examples/09_token_statistics.py)."""
    return Dit3dRecipe(
        settings=Dit3dSettings(
            model=Dit3dConfig(
                depth=6, width=256, heads=4, tokens=256, channels=192, head_depth=2, head_width=384, head_heads=6
            ),
            image_size=(64, 64), field_of_view=49.1,
        ),
        data=BatchConfig(
            batch_size=32, reference_dropout=0.0, augmentation=Augmentation(random_background=0.0),
            sampling=ViewSampling(views=8, kind="uniform", masking="none"),
        ),
        synthetic=SyntheticScenes(image_size=(64, 64), views=10, scenes=20480, wide_share=0.2, near_share=0.2),
        train=TrainConfig(
            steps=8000, ema_decay=0.998, log_every=10, validate_every=500, checkpoint_every=250,
            optim=OptimConfig(
                optimiser="muon", learning_rate=1e-3, warmup=200, cooldown=0.9, fall="cosine", betas=(0.9, 0.95)
            ),
        ),
    )  # fmt: skip


def dit3d_debug() -> Dit3dRecipe:
    """A tiny run over the tokens of ``rae3d-debug`` that ends in seconds on a CPU, for tests and first steps."""
    base = dit3d_nano()
    network = Dit3dConfig(depth=2, width=24, heads=3, tokens=12, channels=24, head_width=32, head_heads=4)
    sampling = replace(base.settings.sampling, steps=3)
    return replace(
        base,
        settings=replace(base.settings, model=network, image_size=(32, 32), sampling=sampling),
        data=replace(base.data, batch_size=4, sampling=replace(base.data.sampling, views=4)),
        synthetic=SyntheticScenes(image_size=(32, 32), views=4, scenes=16, scenes_per_shard=8),
        train=replace(
            base.train, steps=30, validate_every=30, checkpoint_every=10, workers=0, precision="fp32",
            optim=replace(base.train.optim, optimiser="adamw"),
        ),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Dit3dRecipe]] = {
    "dit3d-debug": dit3d_debug,
    "dit3d-nano": dit3d_nano,
    "dit3d-s-images": dit3d_s_images,
    "dit3d-b-images": dit3d_b_images,
    "dit3d-xl-images": dit3d_xl_images,
    "dit3d-s-views": dit3d_s_views,
    "dit3d-b-views": dit3d_b_views,
    "dit3d-xl-views": dit3d_xl_views,
}
"""Every recipe by the name the command line knows it by."""
