"""Runs of Kaleido as functions: the default weights, the paper's sizes and every row of its ablation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from anyview.codecs.codec import CodecConfig
from anyview.data.batches import BatchConfig
from anyview.data.sampling import ViewSampling
from anyview.data.synthetic.prerender import SyntheticScenes
from anyview.data.transforms import Augmentation
from anyview.families.kaleido.config import (
    EncodingConfig,
    KaleidoConfig,
    kaleido_large,
    kaleido_medium,
    kaleido_small,
)
from anyview.families.kaleido.settings import KaleidoSettings, SamplingConfig
from anyview.families.kaleido.task import KaleidoLoss
from anyview.flow.schedules import Schedule
from anyview.flow.timesteps import TimestepSampler
from anyview.nn.gta import Frequencies
from anyview.training.optim import OptimConfig
from anyview.training.trainer import TrainConfig


@dataclass(frozen=True, kw_only=True)
class KaleidoRecipe:
    """One training run."""

    settings: KaleidoSettings
    loss: KaleidoLoss = KaleidoLoss()
    data: BatchConfig = BatchConfig()
    synthetic: SyntheticScenes = SyntheticScenes()
    """What to render ahead where no shards are given."""
    train: TrainConfig = TrainConfig()


def _nano_network() -> KaleidoConfig:
    return KaleidoConfig(
        width=256, depth=8, kv_heads=1, hidden_width=768, condition_width=64, window=None,
        latent_channels=768, patch_size=1, camera_ray_bands=4, ray_bias=True, prediction="data", query_key_norm=True,
        reference_attention="causal", reference_time="zero",
        encoding=EncodingConfig(image_frequencies=Frequencies(kind="geometric", max_frequency=16.0)),
    )  # fmt: skip


def kaleido_nano() -> KaleidoRecipe:
    """The default weights: 64 px in blocks of 16, trained on a CPU; see weights/default/MODEL_CARD.md."""
    return KaleidoRecipe(
        settings=KaleidoSettings(
            model=_nano_network(), codec=CodecConfig(factor=16), image_size=(64, 64),
            sampling=SamplingConfig(schedule=Schedule(steps=1), guidance=1.0),
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


def _paper(network: KaleidoConfig, encoder: str) -> KaleidoRecipe:
    """Stage 2 of Table 5 (3D data, 256 px) with the final choices of every ablation."""
    return KaleidoRecipe(
        settings=KaleidoSettings(
            model=network, codec=CodecConfig(kind="kl", source="stabilityai/stable-diffusion-3.5-medium/vae"),
            feature_source=encoder, image_size=(256, 256), scale_from="all",
        ),
        data=BatchConfig(batch_size=128, augmentation=Augmentation.none()),
        synthetic=SyntheticScenes(image_size=(256, 256)),
        train=TrainConfig(
            steps=300_000, precision="fp16", device="cuda", accumulate=8, activation_checkpointing=True, workers=8
        ),
    )  # fmt: skip


def kaleido_small_256() -> KaleidoRecipe:
    """Kaleido-Small, stage 2 of Table 5: 3D data at 256 px, batch 1024, 300K steps."""
    return _paper(kaleido_small(), "facebook/dinov2-base")


def kaleido_medium_256() -> KaleidoRecipe:
    """Kaleido-Medium, stage 2 of Table 5: 3D data at 256 px, batch 1024, 300K steps."""
    return _paper(kaleido_medium(), "facebook/dinov2-base")


def kaleido_large_256() -> KaleidoRecipe:
    """Kaleido (Large), stage 2 of Table 5: 3D data at 256 px, batch 2048, 500K steps."""
    base = _paper(kaleido_large(), "facebook/dinov2-large")
    return replace(base, train=replace(base.train, accumulate=16, steps=500_000))


def _ablation(number: int) -> KaleidoRecipe:
    """Kaleido-Small after the first ``number`` decisions of Fig. 3 (0 is the baseline's encoding and sampling)."""
    done = number.__ge__
    encoding = EncodingConfig() if done(2) else EncodingConfig(representation="dual", transform_values=False)
    network = replace(
        kaleido_small(),
        kv_heads=4 if done(1) else 16,
        encoding=encoding,
        window=4 if done(4) else 1,
        feature_channels=768 if done(5) else 0,
        registers=1 if done(7) else 0,
    )
    base = _paper(network, "facebook/dinov2-base" if done(5) else "")
    sampler = TimestepSampler() if done(8) else TimestepSampler(distribution="logit_normal", shift=1.0)
    views = ViewSampling() if done(3) else ViewSampling(kind="fixed", masking="none")
    schedule = Schedule() if done(9) else Schedule(kind="linspace")
    return replace(
        base,
        settings=replace(base.settings, sampling=SamplingConfig(schedule=schedule)),
        loss=KaleidoLoss(timesteps=sampler),
        data=replace(base.data, sampling=views),
        train=replace(base.train, steps=100_000),
    )


def ablation_i() -> KaleidoRecipe:
    """Fig. 3 (i): SwiGLU and grouped-query attention, with 2D RoPE + CaPE."""
    return _ablation(1)


def ablation_ii() -> KaleidoRecipe:
    """Fig. 3 (ii): GTA on queries, keys, values and outputs."""
    return _ablation(2)


def ablation_iii() -> KaleidoRecipe:
    """Fig. 3 (iii): exponential view sampling with random masking."""
    return _ablation(3)


def ablation_iv() -> KaleidoRecipe:
    """Fig. 3 (iv): cross-view attention in 4 x 4 windows."""
    return _ablation(4)


def ablation_v() -> KaleidoRecipe:
    """Fig. 3 (v): DINOv2 features of the references."""
    return _ablation(5)


def ablation_vi() -> KaleidoRecipe:
    """Fig. 3 (vi): AdaLN-Zero stays; Table 4 (vi) has shift-only and no-timestep beside it (``modulation``)."""
    return _ablation(6)


def ablation_vii() -> KaleidoRecipe:
    """Fig. 3 (vii): one register in every attention layer."""
    return _ablation(7)


def ablation_viii() -> KaleidoRecipe:
    """Fig. 3 (viii): mode(0.8) timesteps shifted by 3."""
    return _ablation(8)


def ablation_ix() -> KaleidoRecipe:
    """Fig. 3 (ix): linear-quadratic inference schedule."""
    return _ablation(9)


def ablation_x() -> KaleidoRecipe:
    """Fig. 3 (x): as (ix), to be started from weights that were trained on video (``--init``)."""
    return _ablation(10)


RECIPES: dict[str, Callable[[], KaleidoRecipe]] = {
    "kaleido-debug": kaleido_debug,
    "kaleido-nano": kaleido_nano,
    "kaleido-nano-32": kaleido_nano_32,
    "kaleido-small-256": kaleido_small_256,
    "kaleido-medium-256": kaleido_medium_256,
    "kaleido-large-256": kaleido_large_256,
    **{
        f"kaleido-ablation-{function.__name__.removeprefix('ablation_')}": function
        for function in (
            ablation_i, ablation_ii, ablation_iii, ablation_iv, ablation_v,
            ablation_vi, ablation_vii, ablation_viii, ablation_ix, ablation_x,
        )
    },
}  # fmt: skip
"""Every recipe by the name the command line knows it by."""
