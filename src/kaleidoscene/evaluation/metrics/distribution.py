"""Distances between sets of images: Fréchet distances of Inception (FID) and DINOv2 features, with their counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.encoders.features import IMAGENET_MEAN, IMAGENET_STD
from kaleidoscene.errors import KaleidosceneError

Features = Callable[[Tensor], Tensor]
"""Images ``(n, 3, h, w)`` in [0, 1] to features ``(n, d)``."""


@dataclass(frozen=True)
class SetDistance:
    """A distance between two sets, which means nothing without their sizes.

    Attributes:
        value: The distance.
        samples: Images in the smaller set.
        dimension: Of the features; below as many samples the covariance has no full rank.
    """

    value: float
    samples: int
    dimension: int


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> SetDistance:
    """Squared Wasserstein-2 distance of the Gaussians with the moments of two sets of features, in fp64.

    Raises:
        KaleidosceneError: A set has fewer than two samples.
    """
    if min(len(a), len(b)) < 2:
        raise KaleidosceneError(
            f"A Fréchet distance needs at least 2 samples on both sides, got {len(a)} and {len(b)}."
        )
    a, b = a.double(), b.double()
    cov_a, cov_b = torch.atleast_2d(torch.cov(a.mT)), torch.atleast_2d(torch.cov(b.mT))
    # tr sqrt(A B) is the sum of the roots of the eigenvalues of A^1/2 B A^1/2, which is symmetric.
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.mT
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return SetDistance(float(distance.clamp_min(0)), min(len(a), len(b)), a.shape[1])


class InceptionFeatures:
    """The 2048 pooled features that FID is defined on, through the package ``torch-fidelity``.

    Args:
        weights: Folder with ``weights-inception-2015-12-05-6726825d.pth``.

    Raises:
        KaleidosceneError: The package or the weights are not there.
    """

    def __init__(self, weights: Path) -> None:
        path = weights / "weights-inception-2015-12-05-6726825d.pth"
        if not path.is_file():
            raise KaleidosceneError(f"FID: no {path.name} in {weights}; it is the file that torch-fidelity publishes.")
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # noqa: PLC0415  # pyright: ignore[reportMissingImports]
                FeatureExtractorInceptionV3,
            )
        except Exception as error:  # a torchvision that does not fit raises RuntimeError
            raise KaleidosceneError(
                f"FID needs the packages torch-fidelity and torchvision, which cannot be imported ({error})."
            ) from error
        self.network: Any = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path)
        ).eval()

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of images in [0, 1]."""
        return self.network((images.clamp(0, 1) * 255).round().to(torch.uint8))[0]


class DinoV2ClassFeatures:
    """The class token of a DINOv2 at 224 px, for FD-DINOv2 (Stein et al. 2023, who take the large one).

    Args:
        weights: Folder with config.json and weights, as transformers writes them.
        width: Channels that it must have; None: any.

    Raises:
        KaleidosceneError: The library or the weights are not there, or it is a model of another width.
    """

    def __init__(self, weights: Path, width: int | None = None) -> None:
        if not weights.is_dir():
            raise KaleidosceneError(f"FD-DINOv2: no DINOv2 at {weights} (expected config.json and weights).")
        try:
            from transformers import Dinov2Model  # noqa: PLC0415  an extra
        except ImportError as error:
            raise KaleidosceneError("FD-DINOv2 needs transformers: pip install 'kaleidoscene[codecs]'.") from error
        try:
            self.network: Any = Dinov2Model.from_pretrained(str(weights)).eval()
        except OSError as error:
            raise KaleidosceneError(f"FD-DINOv2: no DINOv2 at {weights} (expected config.json and weights).") from error
        if width not in (None, self.network.config.hidden_size):
            raise KaleidosceneError(
                f"FD-DINOv2: {weights} has {self.network.config.hidden_size} channels, the large model has {width}."
            )
        self.mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self.std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of images in [0, 1]."""
        resized = torch.nn.functional.interpolate(images, (224, 224), mode="bicubic", antialias=True)
        return self.network((resized.clamp(0, 1) - self.mean) / self.std).last_hidden_state[:, 0]
