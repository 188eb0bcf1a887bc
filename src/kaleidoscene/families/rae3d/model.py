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
from kaleidoscene.families.rae3d.discriminator import make_heads
from kaleidoscene.nn.dpt import DPTHead
from kaleidoscene.nn.patches import patchify, unpatchify
from kaleidoscene.nn.precision import exact
from kaleidoscene.nn.vit import KeysAndValues, ViTBlock

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
    ) -> Decoded:
        """Encode, disturb, decode: a step of training."""
        tokens = self.encode(images, rays, visible, features)
        return self.decode(tokens if noise is None else tokens + noise, target_rays)

    def encode(
        self,
        images: Float[Tensor, "batch views 3 h w"],
        rays: Float[Tensor, "batch views h w 6"],
        visible: Bool[Tensor, "batch views"],
        features: Float[Tensor, "batch views tokens feature"] | None = None,
    ) -> Float[Tensor, "batch latents width"]:
        """Tokens of scenes, each of mean 0 and variance 1 over its channels.

        Args:
            images: RGB in [0, 1].
            rays: Pluecker coordinates ``(d, o x d)`` of their pixels.
            visible: Views that are seen; of the others the pose alone counts.
            features: Tokens of a frozen encoder, where the network has none of its own.
        """
        tokens = self.embedder.views(images, rays, visible, features).flatten(1, 2)
        latents = self.latents.to(tokens.dtype).expand(len(tokens), -1, -1)
        x = self.neck(torch.cat([latents, tokens], dim=1))[0][:, : self.config.tokens]
        return nn.functional.layer_norm(exact(x), (self.config.width,))

    def decode(
        self, tokens: Float[Tensor, "batch latents width"], rays: Float[Tensor, "batch targets h w 6"]
    ) -> Decoded:
        """Views of scenes, none of which sees another.

        Args:
            tokens: Of the scenes.
            rays: Pluecker coordinates of the target pixels.
        """
        batch_shape, size = (rays.shape[0], rays.shape[1]), (rays.shape[2], rays.shape[3])
        grid = self.grid(size)
        targets = self.embedder.rays_of(rays, None).flatten(0, 1)
        images, hidden = (x.unflatten(0, batch_shape) for x in self.images(tokens, targets, grid))
        kept = hidden if self.training and self.discriminator is not None else None
        if self.points is None:
            return Decoded(images, hidden=kept)
        points, confidence = (x.unflatten(0, batch_shape) for x in self.points(tokens, targets, grid))
        return Decoded(images, points, confidence, kept)

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
        return torch.where(seen, features, 0.0).to(poses.dtype) + poses

    def rays_of(self, rays: Float[Tensor, "batch views h w 6"], visible: Bool[Tensor, "batch views"] | None) -> Tensor:
        """Tokens of rays alone; of targets ``visible`` is None, which is as if they were not seen."""
        shown = rays.new_zeros(rays.shape[:2]) if visible is None else visible.to(rays.dtype)
        channel = shown[..., None, None, None].expand(*rays.shape[:4], 1)
        full = torch.cat([rays, channel], dim=-1).movedim(-1, 2)
        return self.rays(patchify(full, self.config.patch_size))


class Blocks(nn.Module):
    """Pre-norm transformer blocks over one sequence, or over targets that see latents (method C.1, C.2)."""

    def __init__(self, config: Rae3dConfig, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([
            ViTBlock(config.width, config.heads, mlp_ratio=config.mlp_ratio) for _ in range(depth)
        ])  # fmt: skip

    def forward(
        self, x: Float[Tensor, "batch tokens width"], earlier: Sequence[KeysAndValues] | None = None
    ) -> tuple[Tensor, list[Tensor], list[KeysAndValues]]:
        """The tokens at the end and behind every block, and the keys and values of every block."""
        behind, kept = [], []
        for number, block in enumerate(self.blocks):
            x, own = block(x, None, None if earlier is None else earlier[number])
            behind.append(x)
            kept.append(own)
        return x, behind, kept


class Decoder(nn.Module):
    """Latents and rays of a view to its image."""

    def __init__(self, config: Rae3dConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = Blocks(config, config.decoder_depth)
        self.norm = nn.LayerNorm(config.width)
        self.out = nn.Linear(config.width, 3 * config.patch_size**2)

    def forward(
        self, latents: Tensor, rays: Tensor, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "n 3 h w"], Float[Tensor, "n tokens width"]]:
        """Images of ``n`` views, as many for each scene, and what the last matrix was applied to."""
        x = self.norm(behind_blocks(self.blocks, latents, rays, self.config.decoder)[-1])
        return 0.5 + 0.5 * unpatchify(exact(self.out(x)), self.config.patch_size, grid), x


class PointDecoder(nn.Module):
    """Latents and rays of a view to a world point for every pixel, with a confidence."""

    def __init__(self, config: Rae3dConfig) -> None:
        super().__init__()
        assert config.points is not None
        self.config = config
        self.blocks = Blocks(config, config.decoder_depth)
        self.head = DPTHead(config.width, config.patch_size, 4, config.points)

    def forward(
        self, latents: Tensor, rays: Tensor, grid: tuple[int, int]
    ) -> tuple[Float[Tensor, "n h w 3"], Float[Tensor, "n h w"]]:
        """Points and confidence of ``n`` views, as many for each scene."""
        behind = behind_blocks(self.blocks, latents, rays, self.config.decoder)
        dense = self.head([behind[number] for number in self.config.point_layers], grid)
        places = dense[:, :3]
        return (places.sign() * places.abs().expm1()).movedim(1, -1), 1 + dense[:, 3].exp()


def behind_blocks(
    blocks: Blocks,
    latents: Float[Tensor, "batch latents width"],
    rays: Float[Tensor, "views tokens width"],
    kind: str,
) -> list[Float[Tensor, "views tokens width"]]:
    """Tokens of views behind every block, each view with the latents of its scene.

    Args:
        blocks: Of a decoder.
        latents: Of scenes.
        rays: Tokens of the views of all scenes, as many for each, scene by scene.
        kind: ``full`` or ``causal``, see :class:`kaleidoscene.families.rae3d.config.Rae3dConfig`.
    """
    views, count = len(rays) // len(latents), latents.shape[1]
    latents = latents.to(rays.dtype)
    if kind == "full":
        together = torch.cat([latents.repeat_interleave(views, 0), rays], dim=1)
        return [x[:, count:] for x in blocks(together)[1]]
    _, _, kept = blocks(latents)
    repeated = [(_for_views(k, views), _for_views(v, views)) for k, v in kept]
    return blocks(rays, repeated)[1]


def _for_views(x: Float[Tensor, "batch heads tokens dim"], views: int) -> Tensor:
    """The same scene for every view; without a copy where there is one scene."""
    return x.expand(views, -1, -1, -1) if len(x) == 1 else x.repeat_interleave(views, 0)
