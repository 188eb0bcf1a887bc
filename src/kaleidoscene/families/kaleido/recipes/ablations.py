"""The paper's ablation as recipes: every row of Table 4, with the alternatives that were not chosen.

The search is greedy: a decision is tried on top of the choices before it. A row is a change of a recipe, so
that the same rows can be run at any scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from kaleidoscene.codecs.codec import CodecConfig
from kaleidoscene.datasets.batch_config import BatchConfig
from kaleidoscene.datasets.sampling import ViewSampling
from kaleidoscene.datasets.synthetic.prerender import SyntheticScenes
from kaleidoscene.datasets.transforms import Augmentation
from kaleidoscene.families.ablation import Ablation, AblationRow
from kaleidoscene.families.kaleido.config import EncodingConfig, KaleidoConfig
from kaleidoscene.families.kaleido.recipes.nano import kaleido_nano_32
from kaleidoscene.families.kaleido.recipes.paper import stage_2_256
from kaleidoscene.families.kaleido.recipes.recipe import KaleidoRecipe
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.families.kaleido.system import KaleidoSystem, load_system
from kaleidoscene.flow.schedules import Schedule
from kaleidoscene.flow.timesteps import TimestepSampler
from kaleidoscene.nn.gta import Frequencies
from kaleidoscene.rendering.system import System
from kaleidoscene.training.config import TrainConfig
from kaleidoscene.training.optim import OptimConfig

Change = Callable[[KaleidoRecipe], KaleidoRecipe]


def _network(**changes: Any) -> Change:
    return lambda recipe: replace(
        recipe, settings=replace(recipe.settings, model=replace(recipe.settings.model, **changes))
    )


def _llama(recipe: KaleidoRecipe) -> KaleidoRecipe:
    heads = recipe.settings.model.num_heads
    return _network(feed_forward="swiglu", kv_heads=max(1, heads // 4))(recipe)


def _features(source: str, channels: int) -> Change:
    def change(recipe: KaleidoRecipe) -> KaleidoRecipe:
        with_features = _network(feature_channels=channels)(recipe)
        return replace(with_features, settings=replace(with_features.settings, feature_source=source))

    return change


def _sampling(**changes: Any) -> Change:
    return lambda recipe: replace(recipe, data=replace(recipe.data, sampling=replace(recipe.data.sampling, **changes)))


def _timesteps(**changes: Any) -> Change:
    return lambda recipe: replace(recipe, loss=replace(recipe.loss, timesteps=TimestepSampler(**changes)))


def _schedule(kind: str) -> Change:
    def change(recipe: KaleidoRecipe) -> KaleidoRecipe:
        sampling = recipe.settings.sampling
        schedule = Schedule(kind=kind, steps=sampling.schedule.steps)  # pyright: ignore[reportArgumentType]
        return replace(recipe, settings=replace(recipe.settings, sampling=replace(sampling, schedule=schedule)))

    return change


def _velocity(recipe: KaleidoRecipe) -> KaleidoRecipe:
    return replace(_network(prediction="velocity")(recipe), loss=replace(recipe.loss, weighting="velocity"))


def _same(recipe: KaleidoRecipe) -> KaleidoRecipe:
    return recipe


NANO_FREQUENCIES = Frequencies(kind="geometric", max_frequency=16.0)
# The paper's baselines rotate queries and keys alone; transformed values come with GTA (section 3.2.1 (ii)).
_PLUCKER, _GTA = EncodingConfig(pose="plucker", transform_values=False), EncodingConfig()

ROWS: tuple[AblationRow, ...] = (
    AblationRow("", "baseline", _same, (12.17, 19.10, 20.02), 160, chosen=True),
    AblationRow("i", "swiglu-gqa", _llama, (13.02, 20.18, 21.23), 160, chosen=True),
    AblationRow("ii", "plucker", _network(encoding=_PLUCKER), (12.18, 20.00, 20.17), 160),
    AblationRow("ii", "gta", _network(encoding=_GTA), (11.93, 21.05, 22.03), 148, chosen=True),
    AblationRow("iii", "uniform", _sampling(kind="uniform"), (12.18, 22.22, 21.65), 150),
    AblationRow("iii", "uniform-masked", _sampling(kind="uniform", masking="scene"), (14.51, 21.00, 20.22), 150),
    AblationRow(
        "iii", "exponential-masked", _sampling(kind="exponential", masking="scene"), (15.13, 21.41, 21.11), 148,
        chosen=True,
    ),
    AblationRow("iv", "full-attention", _network(window=None), (14.54, 22.62, 22.40), 58),
    AblationRow("iv", "window-2", _network(window=2), (15.45, 21.60, 21.04), 146),
    AblationRow("iv", "window-4", _network(window=4), (15.67, 22.25, 21.79), 142, chosen=True),
    AblationRow("iv", "window-8", _network(window=8), (15.73, 22.60, 22.54), 103),
    AblationRow(
        "v", "dinov2-base", _features("facebook/dinov2-base", 768), (15.86, 22.28, 21.90), 138,
        chosen=True, needs="features",
    ),
    AblationRow(
        "v", "dinov2-large", _features("facebook/dinov2-large", 1024), (16.34, 22.65, 22.43), 135, needs="features"
    ),
    AblationRow("vi", "shift-only", _network(modulation="shift"), (16.07, 21.56, 21.51), 144),
    AblationRow("vi", "no-timestep", _network(modulation="none"), (16.26, 20.85, 21.00), 148),
    AblationRow("vii", "register-1", _network(registers=1), (15.93, 22.27, 22.12), 138, chosen=True),
    AblationRow("vii", "registers-8", _network(registers=8), (15.26, 22.04, 21.94), 138),
    AblationRow("vii", "registers-32", _network(registers=32), (15.07, 21.88, 21.54), 138),
    AblationRow("viii", "uniform-time", _timesteps(distribution="uniform", shift=1.0), (17.58, 22.01, 21.96), 138),
    AblationRow("viii", "uniform-time-3", _timesteps(distribution="uniform", shift=3.0), (18.27, 23.64, 23.28), 138),
    AblationRow("viii", "uniform-time-5", _timesteps(distribution="uniform", shift=5.0), (18.43, 23.38, 23.06), 138),
    AblationRow("viii", "mode", _timesteps(distribution="mode", shift=1.0), (17.39, 22.06, 22.08), 138),
    AblationRow(
        "viii", "mode-3", _timesteps(distribution="mode", shift=3.0), (18.19, 24.06, 23.75), 138, chosen=True
    ),
    AblationRow("ix", "trailing", _schedule("trailing"), (17.95, 23.66, 23.51), 138, trains=False),
    AblationRow(
        "ix", "linear-quadratic", _schedule("linear_quadratic"), (18.09, 23.87, 23.95), 138, chosen=True, trains=False
    ),
    AblationRow("x", "video-100k", _same, (18.16, 24.22, 24.30), 138, needs="video"),
    AblationRow("x", "video-200k", _same, (18.28, 24.55, 24.60), 138, chosen=True, needs="video"),
)  # fmt: skip
"""In the order of the table. Left out are MetaDepth and MetaNormals (private encoders) and the two single data sets;
the rows of (x) differ in the weights they begin with."""


CHOICES: tuple[AblationRow, ...] = (
    AblationRow("", "kaleido-nano", _same, chosen=True),
    AblationRow("1", "octave-frequencies", _network(encoding=EncodingConfig())),
    AblationRow("2", "dual-representation", _network(
        encoding=EncodingConfig(representation="dual", image_frequencies=NANO_FREQUENCIES))),
    AblationRow("3", "no-value-transform", _network(
        encoding=EncodingConfig(transform_values=False, image_frequencies=NANO_FREQUENCIES))),
    AblationRow("4", "no-role", _network(role_embedding=False)),
    AblationRow("5", "no-registers", _network(registers=0)),
    AblationRow("6", "no-query-key-norm", _network(query_key_norm=False)),
    AblationRow("7", "no-ray-bias", _network(ray_bias=False)),
    AblationRow("8", "velocity-prediction", _velocity),
    AblationRow("9", "bidirectional", _network(reference_attention="bidirectional", reference_time="shared")),
    AblationRow("10", "exponential-references", _sampling(kind="exponential")),
)  # fmt: skip
"""Choices of the default weights' recipe, each undone alone."""


def _told(*, rays: bool = False, blocks: bool = False) -> Change:
    encoding = EncodingConfig(image_frequencies=NANO_FREQUENCIES, lens="projective" if blocks else "none")
    return _network(camera_ray_bands=4 if rays else 0, encoding=encoding)


LENSES: tuple[AblationRow, ...] = (
    AblationRow("", "no-lens", _told(), chosen=True),
    AblationRow("1", "token-rays", _told(rays=True)),
    AblationRow("2", "projective", _told(blocks=True)),
    AblationRow("3", "projective-and-rays", _told(rays=True, blocks=True)),
)
"""How a network is told its lenses: not at all, by the token's ray in its camera, by K in GTA's blocks, or by both."""


def lens_scale() -> KaleidoRecipe:
    """``kaleido-nano-32`` on objects seen by lenses of 25 to 100 degrees; nothing else in it knows a lens."""
    base, lenses = kaleido_nano_32(), (25.0, 100.0)
    assert base.synthetic is not None
    return replace(
        base,
        settings=replace(base.settings, lenses=lenses, model=replace(base.settings.model, ray_bias=False)),
        synthetic=replace(base.synthetic, image_size=(32, 32), lenses=lenses),
    )


def choice_recipes(base: KaleidoRecipe) -> dict[str, KaleidoRecipe]:
    """The recipe of every row of :data:`CHOICES`, by name.

    Args:
        base: The recipe with all its choices.
    """
    return {row.name: row.change(base) for row in CHOICES}


def _before(recipe: KaleidoRecipe) -> KaleidoRecipe:
    """A recipe with the paper's baseline in place of every decision: a plain diffusion transformer."""
    model = replace(
        recipe.settings.model,
        feed_forward="gelu",
        kv_heads=recipe.settings.model.num_heads,
        encoding=EncodingConfig(representation="dual", transform_values=False),
        window=1,
        feature_channels=0,
        registers=0,
        modulation="full",
    )
    sampling = replace(recipe.settings.sampling, schedule=replace(recipe.settings.sampling.schedule, kind="linspace"))
    return replace(
        recipe,
        settings=replace(recipe.settings, model=model, feature_source="", sampling=sampling),
        data=replace(recipe.data, sampling=replace(recipe.data.sampling, kind="fixed", masking="none")),
        loss=replace(recipe.loss, timesteps=TimestepSampler(distribution="logit_normal", shift=1.0)),
    )


def ablation_recipes(base: KaleidoRecipe, *, features: bool) -> dict[str, KaleidoRecipe]:
    """The recipe of every row, by name: the choices of the decisions before it and its own change.

    Args:
        base: Gives scale, data and length; what the rows are about is replaced.
        features: Whether image features can be had; without, the rows that need them are left out.
    """
    recipes: dict[str, KaleidoRecipe] = {}
    current = _before(base)
    for decision in dict.fromkeys(row.decision for row in ROWS):
        start = current
        for row in ROWS:
            if row.decision != decision or (row.needs == "features" and not features):
                continue
            recipes[row.name] = row.change(start)
            if row.chosen:
                current = recipes[row.name]
    return recipes


def paper_scale() -> KaleidoRecipe:
    """Kaleido-Small for 100K steps on 8 GPUs, as the paper's ablation was run."""
    base = stage_2_256("small")
    return replace(base, train=replace(base.train, steps=100_000))  # accumulates as its batch needs on 8 processes


def nano_scale() -> KaleidoRecipe:
    """2.2M parameters at 32 px in blocks of 4, 64 tokens a view: a row takes minutes on a CPU."""
    return KaleidoRecipe(
        settings=KaleidoSettings(
            model=KaleidoConfig(
                width=128, depth=4, kv_heads=1, hidden_width=384, condition_width=64, latent_channels=48, patch_size=1,
            ),
            codec=CodecConfig(factor=4), image_size=(32, 32), scale_from="all",
        ),
        data=BatchConfig(
            batch_size=16, sampling=ViewSampling(views=6), augmentation=Augmentation(), reference_dropout=0.1
        ),
        synthetic=SyntheticScenes(image_size=(32, 32), views=10, scenes=4096),
        train=TrainConfig(
            steps=500, ema_decay=0.99, validate_every=1_000_000, checkpoint_every=250,
            optim=OptimConfig(optimiser="muon", learning_rate=1e-3, muon_learning_rate=0.02, warmup=50, cooldown=0.3),
        ),
    )  # fmt: skip


def _row_recipe(row: AblationRow) -> Callable[[], KaleidoRecipe]:
    def recipe() -> KaleidoRecipe:
        return ablation_recipes(paper_scale(), features=True)[row.name]

    start = "its weights begin as those of a run on video (--init)" if row.needs == "video" else "Kaleido-Small"
    recipe.__doc__ = f"Table 4 ({row.decision or 'baseline'}): {row.name}; {start}, 100K steps."
    return recipe


ABLATION_RECIPES = {
    f"kaleido-ablation-{row.decision}-{row.name}" if row.decision else "kaleido-ablation-baseline": _row_recipe(row)
    for row in ROWS
}
"""Every row at the paper's scale."""


def _with_sampling_steps(recipe: KaleidoRecipe, steps: int) -> KaleidoRecipe:
    sampling = recipe.settings.sampling
    sampling = replace(sampling, schedule=replace(sampling.schedule, steps=steps))
    return replace(recipe, settings=replace(recipe.settings, sampling=sampling))


def _system(checkpoint: Path, recipe: KaleidoRecipe, device: str) -> KaleidoSystem:
    system = load_system(checkpoint, device)
    return KaleidoSystem(system.renderer.changed(sampling=recipe.settings.sampling))


def _network_of(system: System) -> nn.Module:
    assert isinstance(system, KaleidoSystem)
    return system.renderer.model


ABLATIONS = {
    "paper": Ablation(
        rows=ROWS, scales={"nano": nano_scale, "paper": paper_scale},
        recipes=lambda base, features: ablation_recipes(base, features=features),
        with_sampling_steps=_with_sampling_steps, system=_system, network=_network_of,
        published="Objaverse, Kaleido-Small, 100K steps (Table 4, published)",
    ),
    "choices": Ablation(
        rows=CHOICES, scales={"nano": kaleido_nano_32}, recipes=lambda base, features: choice_recipes(base),
        with_sampling_steps=_with_sampling_steps, system=_system, network=_network_of,
    ),
    "lenses": Ablation(
        rows=LENSES, scales={"nano": lens_scale},
        recipes=lambda base, features: {row.name: row.change(base) for row in LENSES},
        with_sampling_steps=_with_sampling_steps, system=_system, network=_network_of,
    ),
}  # fmt: skip
"""The paper's study, the choices of the default weights' recipe, each undone alone, and what tells lenses."""
