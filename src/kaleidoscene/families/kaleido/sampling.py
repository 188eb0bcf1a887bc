"""Drawing targets from the flow that a Kaleido network describes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.families.kaleido.parts import KaleidoParts
from kaleidoscene.families.kaleido.ray_points import Lattice
from kaleidoscene.families.kaleido.refinement import Surfaces
from kaleidoscene.families.kaleido.scene import KaleidoScene
from kaleidoscene.families.kaleido.settings import SamplingConfig
from kaleidoscene.flow.guidance import guide
from kaleidoscene.flow.path import velocity_from_data
from kaleidoscene.flow.solvers import Velocity, integrate
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.randomness import draw_noise


def draw_targets(
    parts: KaleidoParts,
    sampling: SamplingConfig,
    scene: KaleidoScene,
    positions: ViewPositions,
    noise: Float[Tensor, "batch targets c h w"],
    on_step: Callable[[int], None] | None = None,
    lattice: Lattice | None = None,
) -> tuple[Float[Tensor, "batch targets 3 ih iw"], Surfaces | None]:
    """Images of targets of a scene, from noise along the guided flow, and the surfaces of its last evaluation.

    With a ``lattice`` reprojection takes part at its pixels alone.
    """
    found: list[Surfaces] = []
    field = guide(_field(parts, scene, positions, found, lattice), _field(parts, None, positions), sampling.guidance)
    latents = integrate(
        field, noise.to(parts.device), sampling.schedule.times(), solver=sampling.solver, on_step=on_step
    )
    return parts.codec.decode(latents).float(), found[-1] if found else None


def target_noise(batch: int, shape: Sequence[int], seeds: Sequence[int]) -> Float[Tensor, "batch targets c h w"]:
    """Noise of targets, each from its own seed, of which 64 bits count."""
    generators = [torch.Generator().manual_seed(seed % 2**64) for seed in seeds]
    return draw_noise((len(seeds), batch, *shape), generators).transpose(0, 1)


def _field(
    parts: KaleidoParts,
    scene: KaleidoScene | None,
    positions: ViewPositions,
    found: list[Surfaces] | None = None,
    lattice: Lattice | None = None,
) -> Velocity:
    """Velocity of the targets given a scene; without one, of targets alone (the unconditional branch)."""
    model, times = parts.model, parts.magnification

    def velocity(x: Tensor, t: float) -> Tensor:
        time = torch.full((len(x),), t, device=x.device)
        if found is not None:
            found.clear()
        with parts.autocast():
            if scene is None or scene.cache is not None:
                cache = None if scene is None else scene.cache
                out = model(x, time, positions, 0, cache=cache, lattice=lattice, found=found, magnification=times)
            else:
                both = scene.reference_positions().join(positions)
                latents = torch.cat([scene.latents, x], dim=1)
                out = model(
                    latents, time, both, scene.num_references, features=scene.features, lattice=lattice, found=found,
                    magnification=times,
                )  # fmt: skip
        return velocity_from_data(x, out, time) if parts.settings.model.prediction == "data" else out

    return velocity
