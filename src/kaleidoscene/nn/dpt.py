"""A dense head over tokens of several layers: DPT (Ranftl et al. 2021), as VGGT, RnG and 3DRAE have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.nn.precision import exact, no_autocast


@dataclass(frozen=True, kw_only=True)
class DPTConfig:
    """Size of a head.

    Attributes:
        channels: Of the maps of the four layers, at 4, 2, 1 and 1/2 times the token grid.
        fused: Channels in which they are fused.
        last: Channels before the last layer, at full size.
    """

    channels: tuple[int, int, int, int] = (256, 512, 1024, 1024)
    fused: int = 256
    last: int = 32

    def __post_init__(self) -> None:
        if any(channels % 4 for channels in self.channels) or self.fused % 8:
            raise ValueError(
                f"A dense head places its maps by sines and cosines of two axes: channels {self.channels} must be "
                f"multiples of 4, and fused {self.fused} one of 8."
            )


def place_embedding(channels: int, size: tuple[int, int], aspect: float, like: Tensor) -> Float[Tensor, "c h w"]:
    """Sines and cosines of a pixel's place, the longer diagonal having length 2, base 100 (VGGT).

    Args:
        channels: Half of them for each axis, a multiple of 4.
        size: Of the map.
        aspect: Width over height of the image.
        like: Tells device and dtype.
    """
    diagonal = (1 + aspect**2) ** 0.5
    half = (aspect / diagonal, 1 / diagonal)  # of the image's width and height
    h, w = size
    x = torch.linspace(-half[0] * (w - 1) / w, half[0] * (w - 1) / w, w, device=like.device, dtype=torch.float64)
    y = torch.linspace(-half[1] * (h - 1) / h, half[1] * (h - 1) / h, h, device=like.device, dtype=torch.float64)
    quarter = channels // 4
    frequencies = 100.0 ** -(torch.arange(quarter, device=like.device, dtype=torch.float64) / quarter)

    def waves(places: Tensor) -> Tensor:
        angles = places[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    grid = torch.cat([waves(x)[None].expand(h, -1, -1), waves(y)[:, None].expand(-1, w, -1)], dim=-1)
    return grid.permute(2, 0, 1).to(like)


class ResidualConvolutions(nn.Module):
    """Two 3x3 convolutions behind ReLUs; what goes past them has gone through the first ReLU too, as in VGGT."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Refine a map."""
        x = torch.relu(x)
        return x + self.second(torch.relu(self.first(x)))


class Fusion(nn.Module):
    """Takes a finer map into a coarser one and enlarges it."""

    def __init__(self, channels: int, *, joins: bool) -> None:
        super().__init__()
        self.finer = ResidualConvolutions(channels) if joins else None
        self.refine = ResidualConvolutions(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, finer: Tensor | None, size: tuple[int, int]) -> Float[Tensor, "n c h w"]:
        """The fused map at ``size``."""
        if self.finer is not None and finer is not None:
            x = x + self.finer(finer)
        return self.out(enlarge(self.refine(x), size))


class DPTHead(nn.Module):
    """Tokens of four layers to a map of the image's size; computed in fp32 always ("won't converge" otherwise).

    Args:
        width: Channels of a token of a layer.
        patch_size: Pixels along a token.
        out_channels: Of the map.
        config: Size.
    """

    def __init__(self, width: int, patch_size: int, out_channels: int, config: DPTConfig) -> None:
        super().__init__()
        self.patch_size = patch_size
        first, second, _, fourth = config.channels
        self.norm = nn.LayerNorm(width)
        self.projections = nn.ModuleList([nn.Conv2d(width, channels, 1) for channels in config.channels])
        self.resizes = nn.ModuleList([
            nn.ConvTranspose2d(first, first, 4, 4), nn.ConvTranspose2d(second, second, 2, 2), nn.Identity(),
            nn.Conv2d(fourth, fourth, 3, 2, 1),
        ])  # fmt: skip
        fused = config.fused
        self.to_fused = nn.ModuleList([nn.Conv2d(c, fused, 3, padding=1, bias=False) for c in config.channels])
        self.fusions = nn.ModuleList([Fusion(fused, joins=number < 3) for number in range(4)])
        self.narrow = nn.Conv2d(fused, fused // 2, 3, padding=1)
        self.pixels = nn.Conv2d(fused // 2, config.last, 3, padding=1)
        self.out = nn.Conv2d(config.last, out_channels, 1)

    def forward(
        self, layers: Sequence[Float[Tensor, "n tokens width"]], grid: tuple[int, int]
    ) -> Float[Tensor, "n out h w"]:
        """The map of every view.

        Args:
            layers: Patch tokens of four layers, first to last.
            grid: Rows and columns of tokens.
        """
        with no_autocast(layers[0]):
            return self._map([exact(tokens) for tokens in layers], grid)

    def _map(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        aspect = grid[1] / grid[0]
        maps = []
        for number, tokens in enumerate(layers):
            x = self.norm(tokens).mT.unflatten(2, grid)
            x = _placed(self.projections[number](x), aspect)
            maps.append(self.to_fused[number](self.resizes[number](x)))
        x = maps[3]
        for number in (3, 2, 1, 0):
            finer = maps[number] if number < 3 else None
            size = maps[number - 1].shape[-2:] if number else [2 * side for side in maps[0].shape[-2:]]
            x = self.fusions[number](x, finer, (size[0], size[1]))
        size = (grid[0] * self.patch_size, grid[1] * self.patch_size)
        x = _placed(enlarge(self.narrow(x), size), aspect)
        return self.out(torch.relu(self.pixels(x)))


def enlarge(x: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Tensor:
    """Bilinear, corners on corners."""
    return nn.functional.interpolate(x, size, mode="bilinear", align_corners=True)


def _placed(x: Tensor, aspect: float) -> Tensor:
    return x + 0.1 * place_embedding(x.shape[1], (x.shape[2], x.shape[3]), aspect, x)


def head_flops(config: DPTConfig, width: int, grid: tuple[int, int], image_size: tuple[int, int], out: int) -> int:
    """Operations of a head on one view: multiply-adds times two of its convolutions.

    Args:
        config: Of the head.
        width: Channels of a token of a layer.
        grid: Rows and columns of tokens.
        image_size: ``(height, width)`` of the map.
        out: Channels of the map.
    """
    channels, fused, last = config.channels, config.fused, config.last
    cells = grid[0] * grid[1]
    quarter = -(-grid[0] // 2) * -(-grid[1] // 2)
    places = (16 * cells, 4 * cells, cells, quarter)
    multiplied = sum(cells * width * c for c in channels)
    multiplied += cells * (16 * channels[0] ** 2 + 4 * channels[1] ** 2) + quarter * 9 * channels[3] ** 2
    multiplied += sum(p * 9 * c * fused for p, c in zip(places, channels, strict=True))
    for number, p in enumerate(places):
        units = 2 if number == 3 else 4
        larger = 4 * places[0] if number == 0 else places[number - 1]
        multiplied += p * units * 9 * fused**2 + larger * fused**2
    multiplied += 4 * places[0] * 9 * fused * (fused // 2)
    multiplied += image_size[0] * image_size[1] * (9 * (fused // 2) * last + last * out)
    return 2 * multiplied
