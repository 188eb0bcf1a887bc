"""FILM: the frame between two frames; features are shared by all sizes, motion is found coarse to fine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from kaleidoscene.families.film.config import FilmConfig
from kaleidoscene.families.film.warping import enlarge_flow, pyramid, warp

_SLOPE = 0.2


def _convolution(inside: int, outside: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, size, padding=size // 2)


class FeatureTrees(nn.Module):
    """Features of a pyramid of images: one tree with the same weights is grown at every size.

    What trees of finer sizes have at a size is joined, so that features of one size mean the same whatever the size.
    """

    def __init__(self, config: FilmConfig) -> None:
        super().__init__()
        self.levels = config.tree_levels
        channels = [3, *(config.filters << depth for depth in range(config.tree_levels))]
        self.stages = nn.ModuleList([
            nn.ModuleList([_convolution(inside, outside), _convolution(outside, outside)])
            for inside, outside in pairwise(channels)
        ])  # fmt: skip

    def forward(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Features at the sizes of ``images``, fine to coarse."""
        trees = [self._tree(image, len(images) - level) for level, image in enumerate(images)]
        return [
            torch.cat([trees[level - depth][depth] for depth in range(min(level + 1, self.levels))], dim=1)
            for level in range(len(images))
        ]

    def _tree(self, image: Tensor, depth: int) -> list[Tensor]:
        found = []
        for number in range(min(depth, self.levels)):
            if number:
                image = F.avg_pool2d(image, 2)
            first, second = self.stages[number]  # pyright: ignore[reportGeneralTypeIssues]
            image = F.leaky_relu(second(F.leaky_relu(first(image), _SLOPE)), _SLOPE)
            found.append(image)
        return found


class _FlowPredictor(nn.Module):
    """Motion that is left between two pictures."""

    def __init__(self, features: int, filters: int, convolutions: int) -> None:
        super().__init__()
        inside = [2 * features, *[filters] * (convolutions - 1)]
        self.convolutions = nn.ModuleList(
            [*(_convolution(n, filters) for n in inside), nn.Conv2d(filters, filters // 2, 1)]
        )
        self.out = nn.Conv2d(filters // 2, 2, 1)

    def forward(self, first: Tensor, second: Tensor) -> Float[Tensor, "batch 2 h w"]:
        x = torch.cat([first, second], dim=1)
        for convolution in self.convolutions:
            x = F.leaky_relu(convolution(x), _SLOPE)
        return self.out(x).float()


class MotionPyramid(nn.Module):
    """Motion from one picture to another, coarse to fine; the coarse sizes share one predictor."""

    def __init__(self, config: FilmConfig) -> None:
        super().__init__()
        sizes = zip(config.flow_filters, config.flow_convolutions, strict=True)
        self.predictors = nn.ModuleList([
            _FlowPredictor(config.feature_channels(level if level < config.own_levels else config.levels - 1), *size)
            for level, size in enumerate(sizes)
        ])  # fmt: skip

    def forward(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Float[Tensor, "batch 2 ..."]]:
        """At every size, fine to coarse: ``second`` looked at there is ``first``, pixels of that size."""
        shared = len(self.predictors) - 1
        flows: list[Tensor] = []
        for level in reversed(range(len(first))):
            predictor = self.predictors[min(level, shared)]
            if not flows:
                flows.append(predictor(first[level], second[level]))
                continue
            so_far = enlarge_flow(flows[0])
            flows.insert(0, so_far + predictor(first[level], warp(second[level], so_far)))
        return flows


class Fusion(nn.Module):
    """Puts a frame together from what was warped at several sizes."""

    def __init__(self, config: FilmConfig) -> None:
        super().__init__()
        # Two frames with their features and motions.
        inside = [2 * (3 + 2 + config.feature_channels(level)) for level in range(config.fusion_levels)]
        outside = [config.filters << min(level, config.own_levels) for level in range(config.fusion_levels - 1)]
        coarser = [*outside[1:], inside[-1]]
        self.steps = nn.ModuleList([
            nn.ModuleList([
                nn.Conv2d(below, filters, 2), _convolution(beside + filters, filters), _convolution(filters, filters),
            ])
            for below, beside, filters in zip(coarser, inside[:-1], outside, strict=True)
        ])  # fmt: skip
        self.out = nn.Conv2d(outside[0] if outside else inside[0], 3, 1)

    def forward(self, aligned: Sequence[Tensor]) -> Float[Tensor, "batch 3 h w"]:
        """The frame, from both frames, their features and motions at each size, fine to coarse."""
        x = aligned[-1]
        for level in reversed(range(len(self.steps))):
            enlarge, first, second = self.steps[level]  # pyright: ignore[reportGeneralTypeIssues]
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            x = enlarge(F.pad(x, (0, 1, 0, 1)))
            x = F.leaky_relu(first(torch.cat([aligned[level].to(x.dtype), x], dim=1)), _SLOPE)
            x = F.leaky_relu(second(x), _SLOPE)
        return self.out(x).float()


class Film(nn.Module):
    """The frame between two frames.

    Args:
        config: Architecture.
    """

    other_forwards: tuple[str, ...] = ("at_all_sizes",)

    def __init__(self, config: FilmConfig) -> None:
        super().__init__()
        self.config = config
        self.features = FeatureTrees(config)
        self.motion = MotionPyramid(config)
        self.fusion = Fusion(config)

    def units(self) -> Mapping[str, nn.Module]:
        """Its three parts."""
        return {"features": self.features, "motion": self.motion, "fusion": self.fusion}

    def muon_parameters(self) -> Sequence[str]:
        """None: its weights are convolutions."""
        return []

    def forward(
        self, first: Float[Tensor, "batch 3 h w"], second: Float[Tensor, "batch 3 other_h other_w"], time: float = 0.5
    ) -> Float[Tensor, "batch 3 h w"]:
        """The frame at a time between two frames, RGB as theirs and not clamped.

        Args:
            first: Frame at time 0; height and width are multiples of ``config.multiple``.
            second: Frame at time 1.
            time: In [0, 1]; networks are trained at one half, other times are ours (motion in proportion).

        Raises:
            ValueError: The frames are of another size, or differ in theirs.
        """
        return self.at_all_sizes(first, second, time)[0]

    def at_all_sizes(
        self, first: Float[Tensor, "batch 3 h w"], second: Float[Tensor, "batch 3 other_h other_w"], time: float = 0.5
    ) -> tuple[Float[Tensor, "batch 3 h w"], list[Float[Tensor, "batch 3 _h _w"]]]:
        """The frame, and at every size the mean of the two frames moved to its time, fine to coarse.

        Args:
            first: See :meth:`forward`.
            second: Likewise.
            time: Likewise.

        Raises:
            ValueError: The frames are of another size, or differ in theirs.
        """
        if first.shape != second.shape or any(side % self.config.multiple for side in first.shape[-2:]):
            raise ValueError(
                f"Frames must be of one size in multiples of {self.config.multiple}, got {tuple(first.shape[-2:])} and "
                f"{tuple(second.shape[-2:])}."
            )
        batch, count = len(first), self.config.fusion_levels
        images = pyramid(torch.cat([first, second]).contiguous(memory_format=torch.channels_last), self.config.levels)
        features = self.features(images)
        swapped = [torch.cat([level[batch:], level[:batch]]) for level in features]
        # Both directions in one pass: of the first half those that look from the second frame back into the first.
        flows = self.motion(swapped, features)
        share = torch.cat([torch.full((batch, 1, 1, 1), time), torch.full((batch, 1, 1, 1), 1 - time)]).to(first.device)
        flows = [share * flow for flow in flows]
        # Only images are moved at sizes that nothing is put together from.
        moved = [
            torch.cat([image, feature.to(image.dtype)], dim=1) if level < count else image
            for level, (image, feature) in enumerate(zip(images, features, strict=True))
        ]
        warped = [warp(level, flow) for level, flow in zip(moved, flows, strict=True)]
        joined = [torch.cat([level, flow], dim=1) for level, flow in zip(warped[:count], flows[:count], strict=True)]
        made = self.fusion([torch.cat([level[:batch], level[batch:]], dim=1) for level in joined])
        means = [(1 - time) * level[:batch, :3] + time * level[batch:, :3] for level in warped]
        return (made + means[0] if self.config.blend else made), means
