"""The Kaleido transformer: clean reference latents and noised target latents in, a prediction for the targets out."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.blocks import KaleidoBlock
from kaleidoscene.families.kaleido.cache import KaleidoCache
from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.families.kaleido.embedding import Embedder
from kaleidoscene.families.kaleido.head import FinalModulation, Head
from kaleidoscene.families.kaleido.initialisation import initialise
from kaleidoscene.families.kaleido.outlines import outlines_of
from kaleidoscene.families.kaleido.ray_bias import CHANNELS as RAY_CHANNELS
from kaleidoscene.families.kaleido.ray_points import Lattice, Sources
from kaleidoscene.families.kaleido.refinement import Refinement, Surfaces
from kaleidoscene.families.kaleido.reprojection import Reprojection
from kaleidoscene.families.kaleido.view_geometry import ViewGeometry
from kaleidoscene.nn.kv_cache import KVCache, LayerCache
from kaleidoscene.nn.masks import view_visibility
from kaleidoscene.nn.patches import patchify, unpatchify
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.precision import exact
from kaleidoscene.nn.timestep import TimestepEmbedding
from kaleidoscene.nn.view_parallel import ViewGroup


class Kaleido(nn.Module):
    """Decoder-only rectified-flow transformer over views (Kaleido section 3.2).

    A pure network: latents, times and positions in, a prediction for every target out. ``config.prediction`` tells
    whether that is the velocity or the data.
    """

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config)
        # Without modulation nothing takes the time.
        self.time = TimestepEmbedding(config.condition_channels) if config.modulation != "none" else None
        self.blocks = nn.ModuleList(KaleidoBlock(config) for _ in range(config.depth))
        self.final_modulation = FinalModulation(config)
        self.head = Head(config.width, config.patch_channels)
        depths = config.reprojection_depths
        self.reprojection = None
        if depths:
            self.reprojection = Reprojection(
                config.width, config.latent_channels, depths,
                beyond=config.reprojection_beyond, contrast=config.ray_contrast, references=config.looked_at_references,
                points_per_depth=config.points_per_depth, coarse_to_fine=config.coarse_to_fine,
                windows=config.matched_windows, blending_angle=config.blending_angle,
            )  # fmt: skip
        points = config.refined_points
        self.refinement = Refinement(config.latent_channels, points, config.looked_at_references) if points else None
        self.activation_checkpointing = False
        self.reset_parameters()

    def units(self) -> dict[str, nn.Module]:
        """The blocks by name: what is compiled, spread over processes and watched one by one."""
        return {f"block_{number:02d}": block for number, block in enumerate(self.blocks)}

    def muon_parameters(self) -> list[str]:
        """Matrices inside the blocks, but for those that make vectors from the timestep."""
        return [
            name
            for name, p in self.named_parameters()
            if p.ndim == 2 and name.startswith("blocks.") and ".modulation." not in name
        ]

    @property
    def other_forwards(self) -> tuple[str, ...]:
        """Methods that compute with the weights beside ``forward``."""
        return ("encode_references",)

    def reset_parameters(self) -> None:
        """First weights, part after part (see :func:`initialise`)."""
        for child in self.children():
            for unit in child if isinstance(child, nn.ModuleList) else (child,):
                initialise(unit)

    def forward(
        self,
        latents: Float[Tensor, "batch views c h w"],
        t: Float[Tensor, " batch"],
        positions: ViewPositions,
        num_references: int,
        *,
        present: Bool[Tensor, "batch all_views"] | None = None,
        features: Float[Tensor, "batch refs tokens feature"] | None = None,
        cache: KaleidoCache | None = None,
        lattice: Lattice | None = None,
        group: ViewGroup | None = None,
        found: list[Surfaces] | None = None,
        magnification: int = 1,
    ) -> Float[Tensor, "batch targets c h w"]:
        """Predict the targets of every scene.

        Args:
            latents: Clean references first, then targets at time ``t``. With a cache: targets alone.
            t: Flow time of the targets, one for each scene.
            positions: Poses or times of the views of ``latents``.
            num_references: References of the scene (0 is the unconditional branch, or with a cache).
            present: False hides a view from all others: ragged batches and random attention masking.
            features: Auxiliary features of the references (``config.feature_channels``).
            cache: References as :meth:`encode_references` left them.
            lattice: Where reprojection takes part, which saves time in training; None: everywhere.
            group: Processes over which the views of a scene are spread; ``latents``, ``positions`` and ``features`` are
                then those of this process, ``present`` is of all views, and what comes out is this process's targets.
            found: Takes the surfaces that refinement finds; it stays empty where nothing is refined.
            magnification: How many times smaller than ``latents`` the network sees views: reprojection copies at their
                full size, and what it does not show is enlarged.

        Raises:
            KaleidosceneError: A cache was given to a model whose references attend to targets; masks or features do not
                match the views; or views are spread that reprojection needs together.
        """
        if cache is not None:
            self._require_cacheable()
            if num_references or present is not None:
                raise KaleidosceneError(
                    "With a cache the references are in it: latents must hold present targets alone."
                )
        if group is not None and self.reprojection is not None:
            raise KaleidosceneError("Reprojection needs all references of a scene: its views cannot be spread.")
        total = latents.shape[1] if group is None else group.views
        if present is not None and tuple(present.shape) != (len(latents), total):
            raise KaleidosceneError(f"present is {tuple(present.shape)}, the views are {(len(latents), total)}.")
        own = range(total) if group is None else group.own
        local_references = max(0, min(num_references, own.stop) - own.start)
        is_target = torch.arange(own.start, own.stop, device=latents.device) >= num_references
        small = shrunk(latents, local_references, magnification)
        x, grid = self._embed(small, positions, local_references, features, is_target)
        condition = self._condition(t, is_target)
        visible = None if present is None else view_visibility(present, num_references, causal=self.config.cacheable)
        geometry = ViewGeometry.of(self.config, positions, grid, visible, group)
        for number, block in enumerate(self.blocks):
            layer = None if cache is None else cache.attention.layer(number)
            x = self._run(block, x, condition, geometry, num_references, layer)
        sources = None if cache is None else cache.sources
        if self.reprojection is not None and num_references:
            sources = self._sources(x, condition, latents, positions, num_references, grid)
            if present is not None:
                sources = replace(sources, present=present[:, :num_references])
        x = self.final_modulation(x[:, local_references:], condition[:, local_references:])
        painted = unpatchify(exact(self.head(x)), self.config.patch_size, grid)
        if magnification > 1:
            size, shape = latents.shape[-2:], painted.shape[:2]
            painted = nn.functional.interpolate(painted.flatten(0, 1), tuple(size), mode="bilinear")
            painted = painted.unflatten(0, shape)
        if self.reprojection is None or sources is None:
            return painted
        targets = positions.select(slice(num_references, None))
        if self.refinement is None:
            return self.reprojection(painted, x, sources, targets, grid, lattice, magnification)
        out, surfaces = self.refinement(self.reprojection, painted, x, sources, targets, grid, lattice)
        if found is not None:
            found.append(surfaces)
        return out

    def encode_references(
        self,
        latents: Float[Tensor, "batch refs c h w"],
        positions: ViewPositions,
        cache: KaleidoCache,
        *,
        features: Float[Tensor, "batch refs tokens feature"] | None = None,
        magnification: int = 1,
    ) -> None:
        """Append references to a cache; they see the references that are in it and each other, never targets.

        Raises:
            KaleidosceneError: The model is bidirectional, so that nothing can be cached exactly.
        """
        self._require_cacheable()
        count = latents.shape[1]
        is_target = torch.zeros(count, dtype=torch.bool, device=latents.device)
        small = shrunk(latents, count, magnification)
        x, grid = self._embed(small, positions, count, features, is_target)
        condition = self._condition(latents.new_zeros(len(latents)), is_target)
        geometry = ViewGeometry.of(self.config, positions, grid, None)
        for number, block in enumerate(self.blocks):
            x = block(x, condition, geometry, count, cache.attention.layer(number), fill_cache=True)
        cache.attention.advance(count)
        if self.reprojection is not None:
            cache.add_sources(self._sources(x, condition, latents, positions, count, grid))

    def allocate_cache(self, batch: int, capacity: int, grid: tuple[int, int], dtype: torch.dtype) -> KaleidoCache:
        """An empty cache for ``capacity`` references of a token grid.

        Raises:
            KaleidosceneError: The model is bidirectional.
        """
        self._require_cacheable()
        rays = RAY_CHANNELS if self.config.ray_bias else 0
        return KaleidoCache(
            KVCache.allocate(
                layers=self.config.depth, batch=batch, capacity=capacity, tokens=grid[0] * grid[1],
                kv_heads=self.config.kv_heads, dim=HEAD_DIM, key_dim=HEAD_DIM + rays,
                dtype=dtype, device=self.head.weight.device,
            )
        )  # fmt: skip

    def _sources(
        self,
        x: Tensor,
        condition: Tensor,
        latents: Tensor,
        positions: ViewPositions,
        count: int,
        grid: tuple[int, int],
    ) -> Sources:
        """What may be copied from the first ``count`` views."""
        assert self.reprojection is not None
        tokens = self.final_modulation(x[:, :count], condition[:, :count])
        surfaces = self.reprojection.surfaces(tokens, grid)
        latents = latents[:, :count]
        features = None if self.refinement is None else self.refinement.features(latents)
        outlines = outlines_of(latents) if self.config.outlines and not bool(positions.is_video.any()) else None
        positions = positions.select(slice(0, count))
        return Sources(latents, surfaces, positions, features=features, outlines=outlines)

    def _require_cacheable(self) -> None:
        if not self.config.cacheable:
            raise KaleidosceneError(
                "This model cannot cache references: they attend to the noised targets "
                "(reference_attention='bidirectional'); only a model trained with 'causal' has an exact cache."
            )

    def _run(
        self,
        block: nn.Module,
        x: Tensor,
        condition: Tensor,
        geometry: ViewGeometry,
        references: int,
        cache: LayerCache | None,
    ) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, condition, geometry, references, cache, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return block(x, condition, geometry, references, cache)

    def _embed(
        self,
        latents: Tensor,
        positions: ViewPositions,
        num_references: int,
        features: Tensor | None,
        is_target: Bool[Tensor, " views"],
    ) -> tuple[Tensor, tuple[int, int]]:
        config = self.config
        *_, views, _, h, w = latents.shape
        if h % config.patch_size or w % config.patch_size:
            raise KaleidosceneError(f"Latents of {h}x{w} cannot be cut into patches of {config.patch_size}.")
        grid = (h // config.patch_size, w // config.patch_size)
        if config.encoding.pose == "plucker":
            latents = torch.cat([latents, positions.plucker((h, w)).to(latents.dtype)], dim=2)
        if config.feature_channels and num_references and features is None:
            raise KaleidosceneError(f"This model takes {config.feature_channels} feature channels of its references.")
        if features is not None:
            if features.shape[1] != num_references:
                raise KaleidosceneError(
                    f"There are features of {features.shape[1]} views, references {num_references}."
                )
            features = nn.functional.pad(features, (0, 0, 0, 0, 0, views - num_references))
        tangents = positions.tangents(grid)
        return self.embedder(patchify(latents, config.patch_size), features, is_target, tangents), grid

    def _condition(self, t: Float[Tensor, " batch"], is_target: Bool[Tensor, " views"]) -> Tensor:
        per_view = exact(t)[:, None].expand(-1, len(is_target))
        if self.config.reference_time == "zero":
            per_view = per_view * is_target
        return per_view[..., None] if self.time is None else self.time(per_view)


def shrunk(
    latents: Float[Tensor, "batch views c h w"], references: int, times: int
) -> Float[Tensor, "batch views c rows cols"]:
    """Views as the network sees them, so many ``times`` smaller: references as means, noise of targets as a sample."""
    if times == 1:
        return latents
    clean, noised = latents[:, :references], latents[:, references:]
    means = nn.functional.avg_pool2d(clean.flatten(0, 1), times).unflatten(0, clean.shape[:2])
    return torch.cat([means, noised[..., ::times, ::times]], 1)
