"""Runs of RnG as functions: the authors' two, small ones for a CPU, and the paper's ablation in small."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.families.rng.config import CameraHeadConfig, EncoderConfig, RngConfig
from kaleidoscene.families.rng.loss import RngLoss
from kaleidoscene.families.rng.recipe import RngRecipe
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.nn.dpt import DPTConfig
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig


def rng_objaverse_40k() -> RngRecipe:
    """The paper's model: 113.5K objects at 256 px, 4 sources and 3 targets, batch 96, 40K steps; needs --shards."""
    steps = 40_000
    return RngRecipe(
        settings=RngSettings(model=RngConfig()),
        loss=RngLoss(foreground_steps=steps // 4, perceptual=0.5),
        data=BatchConfig(
            batch_size=96, share_counts=6, depth=True, reference_dropout=0.0, augmentation=Augmentation.none(),
            # One to six sources, where the paper has four: users have any number (open choice).
            sampling=ViewSampling(views=9, kind="uniform", masking="none", max_targets=3),
        ),
        synthetic=None,
        train=TrainConfig(
            steps=steps, precision="bf16", device="cuda", sharding="ddp", compile=True, accumulate=None, workers=8,
            activation_checkpointing=True,
            optim=OptimConfig(
                learning_rate=6e-4, warmup=3000, cooldown=0.925, fall="cosine", weight_decay=0.05, betas=(0.9, 0.95)
            ),
        ),
    )  # fmt: skip


def rng_objaverse_15k() -> RngRecipe:
    """The small public configuration: 15K steps of 64 scenes on Objaverse-LVIS; needs --shards."""
    base, steps = rng_objaverse_40k(), 15_000
    return replace(
        base, loss=replace(base.loss, foreground_steps=steps // 4), data=replace(base.data, batch_size=64),
        # It falls from where the rise ends.
        train=replace(base.train, steps=steps, optim=replace(base.train.optim, cooldown=0.8)),
    )  # fmt: skip


def _nano_network() -> RngConfig:
    return RngConfig(
        width=192, depth=6, heads=3, patch_size=16, registers=4, layer_scale=0.5,
        encoder=EncoderConfig(kind="patch", depth=2), camera=CameraHeadConfig(depth=2, layer_scale=None),
        dense=DPTConfig(channels=(48, 64, 96, 96), fused=48, last=24), dense_layers=(1, 2, 4, 5),
    )  # fmt: skip


def rng_nano() -> RngRecipe:
    """For a CPU: 64 px, one to eight sources (mostly few) of procedural objects and scans with exact depth."""
    steps = 8000
    return RngRecipe(
        settings=RngSettings(model=_nano_network(), image_size=(64, 64), field_of_view=49.1, background="white"),
        # Nine pixels of ten are white: where colours of objects did not count by themselves, the head came to paint
        # white alone after the first steps, without a gradient that could have led it back.
        loss=RngLoss(foreground=1.0),
        data=BatchConfig(
            # Patches of 16 pixels and two targets: four times the scenes a second, which small networks need most.
            batch_size=64, depth=True, reference_dropout=0.0,
            augmentation=Augmentation(random_background=0.0),
            sampling=ViewSampling(views=9, kind="uniform", masking="drop", max_targets=2),
        ),
        synthetic=SyntheticScenes(
            image_size=(64, 64), views=10, scenes=20480, wide_share=0.2, near_share=0.2, depth=True
        ),
        train=TrainConfig(
            steps=steps, ema_decay=0.998, log_every=10, validate_every=500, checkpoint_every=250,
            # Muon is ahead of AdamW at every step of a trial, in cameras most (benchmarks/rng_training.md).
            optim=OptimConfig(
                optimiser="muon", learning_rate=1e-3, warmup=200, cooldown=0.9, fall="cosine", weight_decay=0.05,
                betas=(0.9, 0.95),
            ),
        ),
    )  # fmt: skip


def rng_nano_128() -> RngRecipe:
    """Second stage of ``rng-nano``: 128 px, from the weights of the first (--init)."""
    base, steps = rng_nano(), 2000
    assert base.synthetic is not None
    return replace(
        base, settings=replace(base.settings, image_size=(128, 128)),
        data=replace(base.data, batch_size=12),
        synthetic=replace(base.synthetic, image_size=(128, 128), scenes=8192, seed=11),
        train=replace(base.train, steps=steps, optim=replace(base.train.optim, learning_rate=4e-4, warmup=50)),
    )  # fmt: skip


def rng_debug() -> RngRecipe:
    """A tiny run that ends in seconds on a CPU, for tests and first steps."""
    base = rng_nano()
    network = replace(
        _nano_network(), width=32, depth=4, heads=2, registers=2, encoder=EncoderConfig(kind="patch", depth=1),
        camera=CameraHeadConfig(depth=1, iterations=2, layer_scale=None), dense_layers=(0, 1, 2, 3),
        dense=DPTConfig(channels=(8, 12, 16, 16), fused=8, last=8),
    )  # fmt: skip
    return replace(
        base,
        settings=replace(base.settings, model=network, image_size=(32, 32)),
        loss=replace(base.loss, foreground_steps=4, foreground=0.0),
        data=replace(base.data, batch_size=4, sampling=replace(base.data.sampling, views=4)),
        synthetic=SyntheticScenes(image_size=(32, 32), views=4, scenes=16, scenes_per_shard=8, depth=True),
        train=replace(base.train, steps=30, validate_every=30, checkpoint_every=10, workers=0, precision="fp32"),
    )


def rng_nano_full_attention() -> RngRecipe:
    """Ablation: sources see targets, so that nothing can be cached (the paper's full attention)."""
    return _changed(attention="full")


def rng_nano_no_camera_head() -> RngRecipe:
    """Ablation: cameras are not told."""
    return _changed(camera=None)


def _changed(**changes) -> RngRecipe:
    base = rng_nano()
    return replace(base, settings=replace(base.settings, model=replace(base.settings.model, **changes)))


RECIPES: dict[str, Callable[[], RngRecipe]] = {
    "rng-debug": rng_debug,
    "rng-nano": rng_nano,
    "rng-nano-128": rng_nano_128,
    "rng-nano-full-attention": rng_nano_full_attention,
    "rng-nano-no-camera-head": rng_nano_no_camera_head,
    "rng-objaverse-15k": rng_objaverse_15k,
    "rng-objaverse-40k": rng_objaverse_40k,
}
"""Every recipe by the name the command line knows it by."""
