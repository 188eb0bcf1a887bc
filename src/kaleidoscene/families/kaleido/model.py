"""The Kaleido transformer: clean reference latents and noised target latents in, a prediction for the targets out."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.kaleido.blocks import Geometry, KaleidoBlock
from kaleidoscene.families.kaleido.config import HEAD_DIM, KaleidoConfig
from kaleidoscene.nn.gta import image_rotations, view_transforms
from kaleidoscene.nn.kv_cache import KVCache, LayerCache
from kaleidoscene.nn.masks import view_visibility
from kaleidoscene.nn.modulation import Modulation
from kaleidoscene.nn.patches import patchify, unpatchify
from kaleidoscene.nn.positions import ViewPositions
from kaleidoscene.nn.ray_bias import CHANNELS as RAY_CHANNELS
from kaleidoscene.nn.ray_bias import RayBias, TokenRays
from kaleidoscene.nn.ray_points import Lattice, Sources
from kaleidoscene.nn.registers import Registers
from kaleidoscene.nn.reprojection import Reprojection
from kaleidoscene.nn.timestep import TimestepEmbedding
from kaleidoscene.nn.windows import Windows


class Embedder(nn.Module):
    """Tokens from latents, auxiliary features of references, ray maps and the role of a view (section 3.2.1 (v))."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        width, self.bands = config.width, config.camera_ray_bands
        rays = 6 * config.patch_size**2 if config.encoding.pose == "plucker" else 0
        self.latent = nn.Linear(config.patch_channels + rays, width, bias=False)
        if config.feature_channels:
            self.feature = nn.Linear(config.feature_channels, width, bias=False)
            self.null_feature = nn.Parameter(torch.zeros(config.feature_channels))
            self.join = nn.Linear(2 * width, width, bias=False)
        if config.role_embedding:
            self.role = nn.Embedding(2, width)
        if config.camera_ray_bands:
            self.camera_ray = nn.Linear(2 + 4 * config.camera_ray_bands, width, bias=False)

    def forward(
        self,
        patches: Float[Tensor, "batch views tokens patch"],
        features: Float[Tensor, "batch views tokens feature"] | None,
        is_target: Bool[Tensor, " views"],
        tangents: Float[Tensor, "batch views tokens 2"],
    ) -> Float[Tensor, "batch views tokens width"]:
        """Embed; targets get the learned null vector in place of features."""
        x = self.latent(patches)
        if hasattr(self, "join"):
            null = self.null_feature.expand(*patches.shape[:3], -1)
            if features is not None:
                null = torch.where(is_target[:, None, None], null, features.to(null.dtype))
            x = self.join(torch.cat([x, self.feature(null)], dim=-1))
        if hasattr(self, "role"):
            x = x + self.role(is_target.long())[:, None]
        if hasattr(self, "camera_ray"):
            x = x + self.camera_ray(_fourier_features(tangents, self.bands))
        return x.float()


def _fourier_features(x: Float[Tensor, "*batch c"], bands: int) -> Float[Tensor, "*batch more"]:
    """``x`` and its sines and cosines at octaves of pi / 2."""
    angle = (x[..., None] * (math.pi / 2 * 2 ** torch.arange(bands, device=x.device))).flatten(-2)
    return torch.cat([x, angle.sin(), angle.cos()], dim=-1)


class Head(nn.Linear):
    """The last projection, from tokens to patches; zero at first."""

    def reset_parameters(self) -> None:
        """Zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)


def initialise(unit: nn.Module) -> None:
    """First weights of a part of the network: Xavier linears, zero AdaLN and head, as in DiT (method A.3).

    Args:
        unit: A block, or another child of :class:`Kaleido`.
    """
    for module in unit.modules():
        if isinstance(module, nn.Linear) and not isinstance(module, Head):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        elif isinstance(module, Embedder) and hasattr(module, "null_feature"):
            nn.init.zeros_(module.null_feature)
        elif isinstance(module, Registers | RayBias | Head):
            module.reset_parameters()
    for module in unit.modules():
        if isinstance(module, Modulation | FinalModulation | TimestepEmbedding | Reprojection):
            module.reset_parameters()


class Kaleido(nn.Module):
    """Decoder-only rectified-flow transformer over views (Kaleido section 3.2).

    A pure network: latents, times and positions in, a prediction for every target out. ``config.prediction`` tells
    whether that is the velocity or the data.
    """

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.config = config
        self.embedder = Embedder(config)
        self.time = TimestepEmbedding(config.condition_channels)
        self.blocks = nn.ModuleList(KaleidoBlock(config) for _ in range(config.depth))
        self.final_modulation = FinalModulation(config)
        self.head = Head(config.width, config.patch_channels)
        depths = config.reprojection_depths
        self.reprojection = Reprojection(config.width, config.latent_channels, depths) if depths else None
        self.activation_checkpointing = False
        self.reset_parameters()

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
        present: Bool[Tensor, "batch views"] | None = None,
        features: Float[Tensor, "batch refs tokens feature"] | None = None,
        cache: KVCache | None = None,
        lattice: Lattice | None = None,
    ) -> Float[Tensor, "batch targets c h w"]:
        """Predict the targets of every scene.

        Args:
            latents: Clean references first, then targets at time ``t``. With a cache: targets alone.
            t: Flow time of the targets, one for each scene.
            positions: Poses or times of the views of ``latents``.
            num_references: References among ``latents`` (0 is the unconditional branch, or with a cache).
            present: False hides a view from all others: ragged batches and random attention masking.
            features: Auxiliary features of the references (``config.feature_channels``).
            cache: References as :meth:`encode_references` left them.
            lattice: Where reprojection takes part, which saves time in training; None: everywhere.

        Raises:
            KaleidosceneError: A cache was given to a model whose references attend to targets.
        """
        if cache is not None:
            self._require_cacheable()
            if num_references or present is not None:
                raise KaleidosceneError(
                    "With a cache the references are in it: latents must hold present targets alone."
                )
        x, grid = self._embed(latents, positions, num_references, features)
        condition = self._condition(t, num_references, latents.shape[1])
        geometry = self._geometry(
            positions,
            grid,
            None if present is None else view_visibility(present, num_references, causal=self.config.cacheable),
        )
        for number, block in enumerate(self.blocks):
            layer = None if cache is None else cache.layer(number)
            x = self._run(block, x, condition, geometry, num_references, layer)
        sources = None if cache is None else cache.sources
        if self.reprojection is not None and num_references:
            sources = self._sources(x, condition, latents, positions, num_references, grid)
            if present is not None:
                sources = replace(sources, present=present[:, :num_references])
        x = self.final_modulation(x[:, num_references:], condition[:, num_references:])
        painted = unpatchify(self.head(x).float(), self.config.patch_size, grid)
        if self.reprojection is None or sources is None:
            return painted
        targets = positions.select(slice(num_references, None))
        return self.reprojection(painted, x, sources, targets, grid, lattice)

    def encode_references(
        self,
        latents: Float[Tensor, "batch refs c h w"],
        positions: ViewPositions,
        cache: KVCache,
        *,
        features: Float[Tensor, "batch refs tokens feature"] | None = None,
    ) -> None:
        """Append references to a cache; they see the references that are in it and each other, never targets.

        Raises:
            KaleidosceneError: The model is bidirectional, so that nothing can be cached exactly.
        """
        self._require_cacheable()
        count = latents.shape[1]
        x, grid = self._embed(latents, positions, count, features)
        condition = self._condition(torch.zeros(len(latents), device=latents.device), count, count)
        geometry = self._geometry(positions, grid, None)
        for number, block in enumerate(self.blocks):
            x = block(x, condition, geometry, count, cache.layer(number), fill_cache=True)
        cache.advance(count)
        if self.reprojection is not None:
            cache.add_sources(self._sources(x, condition, latents, positions, count, grid))

    def allocate_cache(self, batch: int, capacity: int, grid: tuple[int, int], dtype: torch.dtype) -> KVCache:
        """An empty cache for ``capacity`` references of a token grid.

        Raises:
            KaleidosceneError: The model is bidirectional.
        """
        self._require_cacheable()
        rays = RAY_CHANNELS if self.config.ray_bias else 0
        return KVCache.allocate(
            layers=self.config.depth, batch=batch, capacity=capacity, tokens=grid[0] * grid[1],
            kv_heads=self.config.kv_heads, dim=HEAD_DIM, key_dim=HEAD_DIM + rays,
            dtype=dtype, device=self.head.weight.device,
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
        return Sources(latents[:, :count], surfaces, positions.select(slice(0, count)))

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
        geometry: Geometry,
        references: int,
        cache: LayerCache | None,
    ) -> Tensor:
        if self.activation_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, x, condition, geometry, references, cache, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return block(x, condition, geometry, references, cache)

    def _embed(
        self, latents: Tensor, positions: ViewPositions, num_references: int, features: Tensor | None
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
            features = nn.functional.pad(features, (0, 0, 0, 0, 0, views - num_references))
        is_target = torch.arange(views, device=latents.device) >= num_references
        tangents = positions.tangents(grid)
        return self.embedder(patchify(latents, config.patch_size), features, is_target, tangents), grid

    def _condition(self, t: Tensor, num_references: int, views: int) -> Tensor:
        per_view = t.float()[:, None].expand(-1, views)
        if self.config.reference_time == "zero" and num_references:
            per_view = per_view.clone()
            per_view[:, :num_references] = 0
        return self.time(per_view)

    def _geometry(self, positions: ViewPositions, grid: tuple[int, int], visible: Tensor | None) -> Geometry:
        encoding, device = self.config.encoding, positions.times.device
        return Geometry(
            spatial=image_rotations(grid, HEAD_DIM // 2, encoding.image_frequencies, device),
            cross_view=image_rotations(grid, HEAD_DIM // 4, encoding.image_frequencies, device),
            views=view_transforms(
                positions, HEAD_DIM // 2, representation=encoding.representation,
                time_frequencies=encoding.time_frequencies, use_poses=encoding.pose == "gta",
            ),
            windows=Windows(grid, self.config.window), visible=visible,
            rays=TokenRays.of(positions, grid) if self.config.ray_bias else None,
        )  # fmt: skip


class FinalModulation(nn.Module):
    """Layer norm with shift and scale from the timestep, before the head; always both (DiT's final layer)."""

    def __init__(self, config: KaleidoConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.condition_channels, 2 * config.width)

    def reset_parameters(self) -> None:
        """Zero: plain layer norm at the start."""
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(
        self, x: Float[Tensor, "batch views tokens width"], condition: Float[Tensor, "batch views condition"]
    ) -> Float[Tensor, "batch views tokens width"]:
        """``LN(x) * (1 + scale) + shift``."""
        shift, scale = self.linear(nn.functional.silu(condition)).float()[:, :, None].chunk(2, dim=-1)
        normed = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)
        return torch.addcmul(shift, normed, 1 + scale)
