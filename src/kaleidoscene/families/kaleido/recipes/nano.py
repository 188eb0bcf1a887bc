"""Runs for a CPU: the default weights and the paper's curriculum in small."""

from __future__ import annotations

from dataclasses import replace

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.datasets.batch_config import BatchConfig, Bucket
from kaleidoscene.datasets.buckets import bucket_sizes, buckets_within
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.families.kaleido.config import EncodingConfig, KaleidoConfig
from kaleidoscene.families.kaleido.recipes.paper import ASPECT_RATIOS
from kaleidoscene.families.kaleido.recipes.recipe import KaleidoRecipe
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.families.kaleido.task import KaleidoLoss
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.flow.timesteps import TimestepSampler
from kaleidoscene.nn.gta import Frequencies
from kaleidoscene.rendering.ordering import RenderPlan
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig


def _nano_network() -> KaleidoConfig:
    return KaleidoConfig(
        width=256, depth=8, kv_heads=1, hidden_width=768, condition_width=64, window=None,
        latent_channels=768, patch_size=1, camera_ray_bands=4, ray_bias=True, prediction="data", query_key_norm=True,
        reference_attention="causal", reference_time="zero",
        encoding=EncodingConfig(image_frequencies=Frequencies(kind="geometric", max_frequency=16.0)),
    )  # fmt: skip


def kaleido_nano() -> KaleidoRecipe:
    """First stage of the default weights: 64 px in blocks of 16; see weights/default/MODEL_CARD.md."""
    return KaleidoRecipe(
        settings=KaleidoSettings(
            model=_nano_network(), codec=CodecConfig(factor=16), image_size=(64, 64),
            sampling=SamplingConfig(schedule=Schedule(steps=1), guidance=1.0),
            # Trained with up to four targets a scene; one by itself comes out best, in one step at the same cost.
            background="white",
            render_plan=RenderPlan(mode="independent"),
        ),
        loss=KaleidoLoss(weighting="data"),
        data=BatchConfig(
            batch_size=96, sampling=ViewSampling(views=8, kind="uniform", masking="drop", max_targets=4),
            reference_dropout=0.05,
        ),
        synthetic=SyntheticScenes(image_size=(64, 64), views=10, scenes=20480),
        train=TrainConfig(
            steps=5000, ema_decay=0.999, log_every=10, validate_every=500, checkpoint_every=250,
            optim=OptimConfig(optimiser="muon", learning_rate=1e-3, muon_learning_rate=0.02, warmup=100, cooldown=0.3),
        ),
    )  # fmt: skip


def kaleido_nano_32() -> KaleidoRecipe:
    """``kaleido_nano`` at 32 px in blocks of 8: for trials, with results in minutes."""
    base = kaleido_nano()
    return replace(
        base,
        settings=replace(
            base.settings,
            image_size=(32, 32),
            codec=CodecConfig(factor=8),
            model=replace(base.settings.model, latent_channels=192),
        ),
        data=replace(base.data, image_size=(32, 32)),
        train=replace(base.train, optim=replace(base.train.optim, cooldown=0.0)),
    )


def kaleido_debug() -> KaleidoRecipe:
    """A tiny run that ends in seconds on a CPU, for tests and first steps."""
    base = kaleido_nano()
    network = replace(
        _nano_network(), width=64, depth=2, kv_heads=1, hidden_width=128, condition_width=32, latent_channels=192
    )
    return replace(
        base,
        settings=replace(base.settings, model=network, image_size=(32, 32), codec=CodecConfig(factor=8)),
        data=replace(base.data, batch_size=4, sampling=ViewSampling(views=4, masking="drop")),
        synthetic=SyntheticScenes(image_size=(32, 32), views=4, scenes=16, scenes_per_shard=8),
        train=replace(base.train, steps=30, validate_every=30, checkpoint_every=10, workers=0, precision="fp32"),
    )


def kaleido_nano_video() -> KaleidoRecipe:
    """Stage 1 of the curriculum in small: clips at 64 px, frame index in place of pose; needs --shards."""
    base = kaleido_nano()
    return replace(
        base, synthetic=None, data=replace(base.data, sampling=replace(base.data.sampling, views=8)),
        train=replace(base.train, steps=1000),
    )  # fmt: skip


def kaleido_nano_3d() -> KaleidoRecipe:
    """Stage 2 in small: 3D scenes at 64 px, from the weights of stage 1 (--init)."""
    return kaleido_nano()


def kaleido_nano_128() -> KaleidoRecipe:
    """Stage 3 in small and second of the default weights: 128 px at a lower rate, from those of stage 2 (--init)."""
    base = kaleido_nano_3d()
    optim = replace(base.train.optim, learning_rate=5e-4, muon_learning_rate=0.01, warmup=50, cooldown=0.4)
    return replace(
        base,
        settings=replace(base.settings, image_size=(128, 128)),
        data=replace(base.data, image_size=(128, 128), batch_size=64),
        synthetic=SyntheticScenes(
            image_size=(128, 128), views=10, scenes=16384, wide_share=0.2, near_share=0.4, seed=11
        ),
        train=replace(base.train, steps=1500, optim=optim),
    )


def kaleido_nano_reprojection() -> KaleidoRecipe:
    """Last stage of the default weights: pixels are copied where references show them (``reprojection.py``).

    From the weights of stage 3 (``--init STAGE3 --fresh reprojection``), whose tokens are the same: latents are single
    pixels, sixteen by sixteen a token.
    """
    base = kaleido_nano_128()
    model = replace(base.settings.model, latent_channels=3, patch_size=16, reprojection_depths=32)
    return replace(
        base,
        settings=replace(base.settings, model=model, codec=CodecConfig(factor=1)),
        loss=replace(base.loss, timesteps=TimestepSampler(shift=10.0)),
        data=replace(base.data, batch_size=48),
        train=replace(base.train, ema_decay=0.995, optim=replace(base.train.optim, learning_rate=1e-3)),
    )


def kaleido_nano_default() -> KaleidoRecipe:
    """On from the default weights (--init default): with what was chosen for rendering after they were trained.

    More points a ray, sharper weights along it, outlines and a coarse pass (benchmarks/outlines.md) are settings of a
    network, not weights: a run of ``kaleido-nano-reprojection`` would end without them.
    """
    base = kaleido_nano_reprojection()
    model = replace(
        base.settings.model, looked_at_references=10, ray_contrast=1.5, points_per_depth=2, coarse_to_fine=True,
        outlines=True,
    )  # fmt: skip
    return replace(base, settings=replace(base.settings, model=model))


def kaleido_nano_refinement() -> KaleidoRecipe:
    """Surfaces are found by cells and looked at closely by pixels (``refinement.py``), and learn from true depths.

    From the weights of the stage before (``--init STAGE --fresh refinement``), whose blocks stay as they are; needs
    depth in its shards.
    """
    base = kaleido_nano_reprojection()
    optim = replace(base.train.optim, warmup=20, cooldown=0.3)
    assert base.synthetic is not None
    return replace(
        base,
        settings=replace(base.settings, model=replace(base.settings.model, refined_points=8)),
        loss=replace(base.loss, patch=True, depth=0.02),
        data=replace(base.data, batch_size=16, depth=True, reference_dropout=0.0),
        synthetic=replace(base.synthetic, depth=True),
        train=replace(
            base.train, steps=1500, ema_decay=0.99, optim=optim, only=("reprojection", "refinement"),
            validate_every=100, checkpoint_every=50,
        ),
    )  # fmt: skip


def kaleido_nano_places() -> KaleidoRecipe:
    """Objects on white and places with backgrounds, by lenses of 25 to 100 degrees, in five aspect ratios.

    From the default weights (``--init default --fresh reprojection.beyond reprojection.matched``), which know one lens
    and white alone, and compare references pixel by pixel.
    """
    base = kaleido_nano_reprojection()
    sizes, batches = ((128, 128), (96, 128), (128, 96), (80, 128), (128, 80)), (48, 64, 64, 72, 72)
    assert base.synthetic is not None
    return replace(
        base,
        settings=replace(
            base.settings, buckets=sizes[1:], lenses=(25.0, 100.0), background="any",
            model=replace(
                base.settings.model, reprojection_beyond=16, matched_windows=(3, 7), ray_contrast=1.5,
                blending_angle=2.5, looked_at_references=4,
                encoding=replace(base.settings.model.encoding, lens="projective"),
            ),
        ),
        loss=replace(base.loss, patch=True),
        data=replace(
            base.data, image_size=None,
            buckets=tuple(
                Bucket(image_size=size, batch_size=batch, weight=weight)
                for size, batch, weight in zip(sizes, batches, (0.5, 0.15, 0.15, 0.1, 0.1), strict=True)
            ),
        ),
        synthetic=replace(base.synthetic, room_share=0.5, lenses=(25.0, 100.0), seed=41),
        train=replace(base.train, steps=600, optim=replace(base.train.optim, warmup=20)),
    )  # fmt: skip


def kaleido_nano_mixed() -> KaleidoRecipe:
    """Stage 4 in small: five aspect ratios around 128 px, a batch for each, from the weights of stage 3 (--init)."""
    base = kaleido_nano_128()
    sizes = bucket_sizes(128, ASPECT_RATIOS, multiple=16)
    buckets = buckets_within(64 * 8 * 64, sizes, views=8, pixels_per_token=16, multiple=4)
    return replace(
        base,
        settings=replace(base.settings, buckets=tuple(size for size in sizes if size != base.settings.image_size)),
        data=replace(base.data, image_size=None, buckets=buckets),
        synthetic=SyntheticScenes(image_size=(176, 176), views=10, scenes=4096),
        train=replace(base.train, steps=500),
    )
