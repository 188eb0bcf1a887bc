"""3DRAE: any number of views to a fixed set of tokens, the tokens and rays to any view (section 3.2; method C.1, C.2).

A pure network: tensors in, tensors out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.decoders import Blocks, Decoder, PointDecoder
from kaleidoscene.families.rae3d.discriminator import make_heads
from kaleidoscene.families.rae3d.places import Nearness, points_outside, rays_inside
from kaleidoscene.nn.patches import patchify
from kaleidoscene.nn.precision import exact

RAY_CHANNELS = 7
"""Direction and moment of a pixel's ray, and whether its view is seen."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """What targets look like.

    Attributes:
        images: RGB, near [0, 1].
        points: In the world of the rays; None of a network without a decoder of points.
        confidence: How sure they are, at least 1; None without points.
        hidden: What the last matrix of the decoder of images is applied to, while a discriminator is trained.
    """

    images: Float[Tensor, "batch targets 3 h w"]
    points: Float[Tensor, "batch targets h w 3"] | None = None
    confidence: Float[Tensor, "batch targets h w"] | None = None
    hidden: Float[Tensor, "batch targets tokens width"] | None = None


class Rae3d(nn.Module):
    """The network; see the module's docstring.

    Args:
        config: Architecture.
    """

    other_forwards = ("encode", "decode", "judge")

    def __init__(self, config: Rae3dConfig) -> None:
        super().__init__()
        self.config = config
        self.latents = nn.Parameter(torch.empty(config.tokens, config.width))
        self.embedder = Embedder(config)
        self.neck = Blocks(config, config.neck_depth)
        self.images = Decoder(config)
        self.points = None if config.points is None else PointDecoder(config)
        self.discriminator = None if config.discriminator is None else make_heads(config.discriminator)

    def units(self) -> Mapping[str, nn.Module]:
        """Blocks of neck and decoders, in the order they run."""
        parts = {"neck": self.neck.blocks, "images": self.images.blocks.blocks}
        if self.points is not None:
            parts["points"] = self.points.blocks.blocks
        units: dict[str, nn.Module] = {}
        for part, blocks in parts.items():
            units |= {f"{part} {number}": block for number, block in enumerate(blocks)}
        return units

    def muon_parameters(self) -> Sequence[str]:
        """Matrices of the blocks."""
        return [name for name, p in self.named_parameters() if ".blocks." in name and p.ndim == 2]

    def forward(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        rays: Float[Tensor, "batch views h w 6"],
        visible: Bool[Tensor, "batch views"],
        target_rays: Float[Tensor, "batch targets th tw 6"],
        features: Float[Tensor, "batch views tokens feature"] | None = None,
        noise: Float[Tensor, "batch latents width"] | None = None,
        bounds: Float[Tensor, "batch 4"] | None = None,
    ) -> Decoded:
        """Encode, disturb, decode: a step of training."""
        tokens = self.encode(images, rays, visible, features, bounds)
        return self.decode(tokens if noise is None else tokens + noise, target_rays, bounds)

    def encode(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        rays: Float[Tensor, "batch views h w 6"],
        visible: Bool[Tensor, "batch views"],
        features: Float[Tensor, "batch views tokens feature"] | None = None,
        bounds: Float[Tensor, "batch 4"] | None = None,
    ) -> Float[Tensor, "batch latents width"]:
        """Tokens of scenes, each of mean 0 and variance 1 over its channels.

        Args:
            images: RGB in [0, 1].
            rays: Pluecker coordinates ``(d, o x d)`` of their pixels.
            visible: Views that are seen; of the others the pose alone counts.
            features: Tokens of a frozen encoder, where the network has none of its own.
            bounds: Middle and half of the side of the cube that located latents stand in, in the world of the rays;
                others do not look at it.
        """
        rays, near = self._placed(rays, bounds)
        bias = None if near is None else near.together(len(rays)).of_all
        tokens = self.embedder.views(images, rays, visible, features).flatten(1, 2)
        latents = self.latents.to(tokens.dtype).expand(len(tokens), -1, -1)
        x = self.neck(torch.cat([latents, tokens], dim=1), bias=bias)[0][:, : self.config.tokens]
        return nn.functional.layer_norm(exact(x), (self.config.width,))

    def decode(
        self,
        tokens: Float[Tensor, "batch latents width"],
        rays: Float[Tensor, "batch targets h w 6"],
        bounds: Float[Tensor, "batch 4"] | None = None,
        *,
        points: bool = True,
    ) -> Decoded:
        """Views of scenes, none of which sees another.

        Args:
            tokens: Of the scenes.
            rays: Pluecker coordinates of the target pixels.
            bounds: As the tokens were made with.
            points: Whether they are wanted as well, of a network that has them.
        """
        batch_shape, size = (rays.shape[0], rays.shape[1]), (rays.shape[2], rays.shape[3])
        grid = self.grid(size)
        rays, near = self._placed(rays, bounds)
        targets = self.embedder.rays_of(rays, None).flatten(0, 1)
        images, hidden = (x.unflatten(0, batch_shape) for x in self.images(tokens, targets, grid, near))
        kept = hidden if self.training and self.discriminator is not None else None
        if self.points is None or not points:
            return Decoded(images, hidden=kept)
        met, confidence = (x.unflatten(0, batch_shape) for x in self.points(tokens, targets, grid, near))
        if bounds is not None and near is not None:
            met = points_outside(met, bounds)
        return Decoded(images, met, confidence, kept)

    def _placed(self, rays: Tensor, bounds: Float[Tensor, "batch 4"] | None) -> tuple[Tensor, Nearness | None]:
        """Rays and what attention is told of them, in the world of the cube where latents are located in one."""
        config = self.config
        if not config.located:
            return rays, None
        if bounds is None:
            raise ValueError("Located latents stand in a cube, whose bounds must be given.")
        rays = rays_inside(rays, bounds)
        return rays, Nearness.of(config.tokens, rays, config.patch_size, config.heads)

    def judge(self, shown: Sequence[Tensor]) -> Float[Tensor, "n places"]:
        """How real views look, place by place, to the discriminator.

        Args:
            shown: What its heads look at: images, or tokens of each layer of the frozen encoder.
        """
        assert self.discriminator is not None
        heads = zip(self.discriminator, shown, strict=True)
        return torch.cat([exact(head(x)) for head, x in heads], dim=1)

    def grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            KaleidosceneError: Sides are no whole number of patches.
        """
        try:
            return self.config.grid(size)
        except ValueError as error:
            raise KaleidosceneError(str(error)) from error


class Embedder(nn.Module):
    """Tokens of views: what is seen, and rays (method C.1)."""

    def __init__(self, config: Rae3dConfig) -> None:
        super().__init__()
        self.config = config
        patch = config.patch_size**2
        self.rays = nn.Linear(RAY_CHANNELS * patch, config.width)
        self.pixels = nn.Linear(3 * patch, config.width) if config.encoder.kind == "image" else None

    def views(self, images: Tensor, rays: Tensor, visible: Tensor, features: Tensor | None) -> Tensor:
        """Tokens of references, ``(batch, views, tokens, width)``.

        Raises:
            ValueError: Features are missing, or would not be looked at.
        """
        if (features is None) != (self.pixels is not None):
            raise ValueError("Features of images go into a network that has no encoder of its own, and into no other.")
        seen = visible[..., None, None]
        if self.pixels is not None:
            # Pixels are zeroed before they are looked at, so that not even their NaN has an influence.
            shown = torch.where(visible[..., None, None, None], 2 * images - 1, 0.0)
            features = self.pixels(patchify(shown, self.config.patch_size))
        assert features is not None
        poses = self.rays_of(rays, visible)
        return torch.where(seen, features, 0.0).to(poses.dtype) + poses  # the stream of residuals is exact

    def rays_of(self, rays: Float[Tensor, "batch views h w 6"], visible: Bool[Tensor, "batch views"] | None) -> Tensor:
        """Tokens of rays alone; of targets ``visible`` is None, which is as if they were not seen."""
        shown = rays.new_zeros(rays.shape[:2]) if visible is None else visible.to(rays.dtype)
        channel = shown[..., None, None, None].expand(*rays.shape[:4], 1)
        full = torch.cat([rays, channel], dim=-1).movedim(-1, 2)
        return exact(self.rays(patchify(full, self.config.patch_size)))
