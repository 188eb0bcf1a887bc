"""The paper's curriculum: four stages and three sizes (Kaleido Table 5 and appendix B).

Every stage is the one before it with other data, size, batch, steps or learning rate; its weights begin as those the
stage before it ended with (``--init RUN``), with nothing to convert, since the encoding does not depend on resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.datasets.batch_config import BatchConfig, Bucket
from kaleidoscene.datasets.buckets import bucket_sizes
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.families.kaleido.config import KaleidoConfig, kaleido_large, kaleido_medium, kaleido_small
from kaleidoscene.families.kaleido.recipes.recipe import KaleidoRecipe
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig

# Width over height (section 4.1).
ASPECT_RATIOS = (1.0, 4 / 5, 5 / 4, 16 / 9, 9 / 16)
_NETWORKS: dict[str, tuple[Callable[[], KaleidoConfig], str]] = {
    "small": (kaleido_small, "facebook/dinov2-base"),
    "medium": (kaleido_medium, "facebook/dinov2-base"),
    "large": (kaleido_large, "facebook/dinov2-large"),
}


def stage_1_video(size: str) -> KaleidoRecipe:
    """Stage 1: video at 256 px, 12 frames, batch 1024 (large: 2048), 700K steps at 1e-4."""
    make, encoder = _NETWORKS[size]
    batch = 2048 if size == "large" else 1024
    return KaleidoRecipe(
        settings=KaleidoSettings(
            model=make(), codec=CodecConfig(kind="kl", source="stabilityai/stable-diffusion-3.5-medium/vae"),
            feature_source=encoder, image_size=(256, 256), scale_from="all",
        ),
        data=BatchConfig(
            # Micro-batches are no larger: so many scenes of the network fit into 80 GB.
            batch_size=batch, share_counts={"small": 8, "medium": 4, "large": 2}[size], sampling=ViewSampling(views=12),
            augmentation=Augmentation.none(),
            damaged_share=1e-3,
        ),
        synthetic=None,
        train=TrainConfig(
            steps=700_000, precision="fp16", device="cuda", sharding="fsdp", gather_precision="fp32", compile=True,
            accumulate=None, workers=8, async_checkpoints=True,
            # About a quarter of an hour on 512 GPUs: each gathers and writes tens of gigabytes.
            checkpoint_every=2500, keep_checkpoints=4, optim=OptimConfig(learning_rate=1e-4, warmup=2000),
        ),
    )  # fmt: skip


def stage_2_256(size: str) -> KaleidoRecipe:
    """Stage 2: 3D data at 256 px, batch 1024 (large: 2048), 300K (500K) steps at 1e-4."""
    base = stage_1_video(size)
    return replace(
        base,
        synthetic=SyntheticScenes(image_size=(256, 256)),
        train=replace(base.train, steps=500_000 if size == "large" else 300_000),
    )


def stage_3_512(size: str) -> KaleidoRecipe:
    """Stage 3: 3D data at 512 px, batch 256, 100K steps at 1e-5, with activation checkpointing."""
    base = stage_2_256(size)
    optim = replace(base.train.optim, learning_rate=1e-5)
    return replace(
        base,
        settings=replace(base.settings, image_size=(512, 512)),
        data=replace(base.data, batch_size=256, share_counts=2),
        synthetic=SyntheticScenes(image_size=(512, 512)),
        train=replace(base.train, steps=100_000, optim=optim, activation_checkpointing=True),
    )


def stage_4_1024(size: str) -> KaleidoRecipe:
    """Stage 4: 3D data around 1024 px in five aspect ratios, batch 256, 100K steps at 1e-5."""
    base = stage_3_512(size)
    # Whole windows of tokens of 16 pixels: no bucket has to be padded.
    sizes = bucket_sizes(1024, ASPECT_RATIOS, multiple=16 * (base.settings.model.window or 1))
    buckets = tuple(Bucket(image_size=shape, batch_size=256) for shape in sizes)
    return replace(
        base,
        settings=replace(base.settings, image_size=sizes[0], buckets=sizes[1:]),
        data=replace(base.data, share_counts=1, buckets=buckets),
        synthetic=SyntheticScenes(image_size=(1408, 1408)),
    )


STAGES: dict[str, Callable[[str], KaleidoRecipe]] = {
    "video": stage_1_video,
    "256": stage_2_256,
    "512": stage_3_512,
    "1024": stage_4_1024,
}
"""The stages in their order, by the ending of their recipes' names."""


def _named(size: str, stage: str) -> Callable[[], KaleidoRecipe]:
    def recipe() -> KaleidoRecipe:
        return STAGES[stage](size)

    recipe.__doc__ = f"Kaleido-{size.capitalize()}. {STAGES[stage].__doc__}"
    return recipe


PAPER_RECIPES = {f"kaleido-{size}-{stage}": _named(size, stage) for size in _NETWORKS for stage in STAGES}
"""Twelve recipes, ``kaleido-SIZE-STAGE``."""
