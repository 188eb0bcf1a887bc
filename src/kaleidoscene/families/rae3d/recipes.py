"""Runs of 3DRAE as functions: the paper's, and small ones for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaleidoscene.datasets.batch_config import BatchConfig, Bucket
from kaleidoscene.datasets.buckets import bucket_sizes
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.families.rae3d.config import DiscriminatorConfig, EncoderConfig, Rae3dConfig
from kaleidoscene.families.rae3d.loss import Rae3dLoss
from kaleidoscene.families.rae3d.recipe import Rae3dRecipe
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.nn.dpt import DPTConfig
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig

PIXELS, ASPECTS, IMAGES, PROCESSES = (37_000, 75_500), (0.7, 1.8), (6, 18), 32
"""Of an image, of its width over its height, on a process, and how many of those the paper has (appendix A)."""


def token_budget_buckets(patch: int = 14) -> tuple[Bucket, ...]:
    """Shapes of which a process has at most so many tokens, and at least half: 6 to 18 images, in one to three scenes.

    Args:
        patch: Side of a token, pixels.
    """
    areas = [PIXELS[0] + share * (PIXELS[1] - PIXELS[0]) for share in (0.05, 0.35, 0.65, 0.95)]
    sizes = [size for area in areas for size in bucket_sizes(round(area**0.5), (0.72, 1.0, 1.3, 1.75), multiple=patch)]
    within = [
        (h, w) for h, w in dict.fromkeys(sizes)
        if PIXELS[0] <= h * w <= PIXELS[1] and ASPECTS[0] <= w / h <= ASPECTS[1]
    ]  # fmt: skip
    budget = IMAGES[1] * min(h * w for h, w in within) // patch**2  # as many as there can be of the smallest
    buckets = []
    for h, w in within:
        tokens = h * w // patch**2
        for views in range(IMAGES[0], IMAGES[1] + 1, 3):
            if scenes := min(budget // (views * tokens), IMAGES[1] // views):
                buckets.append(Bucket(image_size=(h, w), batch_size=PROCESSES * scenes, views=views))
    return tuple(buckets)


def rae3d_paper() -> Rae3dRecipe:
    """The paper's autoencoder: 1024 tokens, 6 to 18 images a process of 32, 120K steps; needs --shards."""
    return Rae3dRecipe(
        settings=Rae3dSettings(model=Rae3dConfig(discriminator=DiscriminatorConfig())),
        loss=Rae3dLoss(
            perceptual=1.0, gradients=0.0, adversarial=0.75, discriminator_from=50_000, adversarial_from=60_000
        ),
        data=BatchConfig(
            batch_size=PROCESSES, depth=True, reference_dropout=0.0, augmentation=Augmentation.none(),
            sampling=ViewSampling(views=IMAGES[1], kind="uniform", masking="none"), buckets=token_budget_buckets(),
        ),
        synthetic=None,
        train=TrainConfig(
            steps=120_000, precision="bf16", device="cuda", sharding="ddp", compile=True, accumulate=None, workers=8,
            activation_checkpointing=True,
            optim=OptimConfig(
                learning_rate=2e-4, warmup=8000, cooldown=0.933, fall="cosine", weight_decay=0.0, betas=(0.9, 0.95)
            ),
        ),
    )  # fmt: skip


def rae3d_nano() -> Rae3dRecipe:
    """For a CPU: 64 px, 256 tokens, one to seven given views with depth; from ``rae3d-nano-images`` (--init)."""
    return Rae3dRecipe(
        settings=Rae3dSettings(
            model=Rae3dConfig(
                # Tokens that stand for places learn in 60 steps what takes 500 without (benchmarks/rae3d_training.md).
                width=192, heads=6, patch_size=8, tokens=256, neck_depth=6, decoder_depth=4, decoder="causal",
                located=True, encoder=EncoderConfig(kind="image"), point_layers=(0, 1, 2, 3),
                points=DPTConfig(channels=(32, 48, 64, 64), fused=24, last=12),
            ),
            image_size=(64, 64), field_of_view=49.1, background="white",
        ),
        # Differences of neighbours make white the easiest answer to begin with: they count a tenth.
        loss=Rae3dLoss(background=1.0, gradients=0.1, noise=0.1),
        data=BatchConfig(
            batch_size=32, depth=True, reference_dropout=0.0, augmentation=Augmentation(random_background=0.0),
            sampling=ViewSampling(views=10, kind="uniform", masking="none", max_targets=3),
        ),
        synthetic=SyntheticScenes(
            image_size=(64, 64), views=10, scenes=20480, wide_share=0.2, near_share=0.2, depth=True
        ),
        train=TrainConfig(
            steps=8000, ema_decay=0.998, log_every=10, validate_every=500, checkpoint_every=250,
            optim=OptimConfig(
                optimiser="muon", learning_rate=1e-3, warmup=200, cooldown=0.9, fall="cosine", betas=(0.9, 0.95)
            ),
        ),
    )  # fmt: skip


def rae3d_nano_images() -> Rae3dRecipe:
    """First stage of ``rae3d-nano``: without the decoder of points, in half the time."""
    base = rae3d_nano()
    return replace(
        base, settings=replace(base.settings, model=replace(base.settings.model, points=None)),
        data=replace(base.data, depth=False),
        # What small networks have to learn first is that tokens tell what was seen.
        loss=replace(base.loss, background=0.0, repeated=0.3),
    )  # fmt: skip


def rae3d_nano_adversarial() -> Rae3dRecipe:
    """``rae3d-nano`` with a discriminator of its own; to be begun from its weights (--init, --fresh discriminator)."""
    base, steps = rae3d_nano(), 2000
    network = replace(base.settings.model, discriminator=DiscriminatorConfig(kind="patches"))
    return replace(
        base, settings=replace(base.settings, model=network),
        loss=replace(base.loss, adversarial=0.1, discriminator_from=0, adversarial_from=200),
        train=replace(base.train, steps=steps, optim=replace(base.train.optim, learning_rate=4e-4, warmup=50)),
    )  # fmt: skip


def rae3d_debug() -> Rae3dRecipe:
    """A tiny run that ends in seconds on a CPU, for tests and first steps."""
    base = rae3d_nano()
    network = replace(
        base.settings.model, width=24, heads=3, patch_size=8, tokens=12, neck_depth=2, decoder_depth=4,
        points=DPTConfig(channels=(8, 12, 16, 16), fused=8, last=8),
    )  # fmt: skip
    return replace(
        base,
        settings=replace(base.settings, model=network, image_size=(32, 32)),
        data=replace(base.data, batch_size=4, sampling=replace(base.data.sampling, views=4, masking="drop")),
        synthetic=SyntheticScenes(image_size=(32, 32), views=4, scenes=16, scenes_per_shard=8, depth=True),
        train=replace(
            base.train, steps=30, validate_every=30, checkpoint_every=10, workers=0, precision="fp32",
            optim=replace(base.train.optim, optimiser="adamw"),
        ),
    )  # fmt: skip


RECIPES: dict[str, Callable[[], Rae3dRecipe]] = {
    "rae3d-debug": rae3d_debug,
    "rae3d-nano": rae3d_nano,
    "rae3d-nano-adversarial": rae3d_nano_adversarial,
    "rae3d-nano-images": rae3d_nano_images,
    "rae3d-paper": rae3d_paper,
}
"""Every recipe by the name the command line knows it by."""
