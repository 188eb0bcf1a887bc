"""Metrics by name: one name for one definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from torch import Tensor

from kaleidoscene.errors import KaleidosceneError, unknown_name
from kaleidoscene.evaluation.metrics.depth import depth_errors_by_view
from kaleidoscene.evaluation.metrics.distribution import DinoV2ClassFeatures, Features, InceptionFeatures
from kaleidoscene.evaluation.metrics.image import load_flip, psnr, ssim, truncated
from kaleidoscene.evaluation.metrics.objects import object_psnr, sharpness, silhouette_iou
from kaleidoscene.evaluation.metrics.perceptual import BACKBONES, Lpips, check_published
from kaleidoscene.evaluation.metrics.temporal import flicker, reprojection_psnr, view_to_view
from kaleidoscene.geometry.cameras import Cameras

PairMetric = Callable[[Tensor, Tensor], Tensor]
"""Images and truth ``(n, 3, h, w)`` in [0, 1] to ``n`` values."""


@dataclass(frozen=True)
class ImageMetric:
    """A metric of pairs of images.

    Attributes:
        definition: The variant, in words for reports.
        unit: Behind the number.
        higher_is_better: Which way is up.
        make: From the folder of weights.
        needs_weights: Whether that folder must be given.
        least_side: Pixels that an image needs along each side.
    """

    definition: str
    unit: str
    higher_is_better: bool
    make: Callable[[Path], PairMetric]
    needs_weights: bool = False
    least_side: int = 1


@dataclass(frozen=True)
class SetMetric:
    """A metric of the set of all targets; fields as in :class:`ImageMetric`."""

    definition: str
    make: Callable[[Path], Features]


@dataclass(frozen=True)
class SequenceMetric:
    """A metric of the targets of a scene in their order, read against that of the true views.

    Attributes:
        definition: The variant, in words for reports.
        unit: Behind the number.
        measure: Images ``(n, 3, h, w)`` in [0, 1], true depths ``(n, h, w)`` and cameras ``(n,)`` to a number.
        least_views: Targets that it needs.
        needs_depth: Whether it looks at the true depths.
    """

    definition: str
    unit: str
    measure: Callable[[Tensor, Tensor, Cameras], float]
    least_views: int
    needs_depth: bool = False


@dataclass(frozen=True)
class DepthMetric:
    """A metric of depth maps, of methods and captures that have them.

    Attributes:
        definition: The variant, in words for reports.
        higher_is_better: Which way is up.
        measure: Depths ``(n, h, w)`` and true ones, positive where they are known, to a number for each.
    """

    definition: str
    higher_is_better: bool
    measure: Callable[[Tensor, Tensor], list[float]]


@dataclass(frozen=True)
class PoseMetric:
    """A metric of the cameras that a method tells of two or more references, in percent; higher is better.

    Attributes:
        definition: The variant, in words for reports.
        field: Of :class:`kaleidoscene.evaluation.metrics.poses.RelativePoseScore`.
    """

    definition: str
    field: str


def _of_bytes(metric: PairMetric) -> PairMetric:
    return lambda image, truth: metric(truncated(image), truncated(truth))


def _lpips(net: Literal["alex", "vgg"], weights: Path, *, rescale: bool = True) -> PairMetric:
    if (path := weights / BACKBONES[net]).is_file():
        check_published(path)
    return Lpips(net, weights, rescale=rescale)


IMAGE_METRICS: dict[str, ImageMetric] = {
    "psnr": ImageMetric("on [0, 1], clamped, mean over targets, then scenes", "dB", True, lambda _: psnr),
    "psnr-uint8": ImageMetric(
        "of 8-bit images, cut off as EscherNet's code does", "dB", True, lambda _: _of_bytes(psnr)
    ),
    "ssim": ImageMetric(
        "11 x 11 Gaussian of sigma 1.5, data range 1, where the window fits (torchmetrics before September 2024)", "",
        True, lambda _: ssim, least_side=11,
    ),
    "ssim-padded": ImageMetric(
        "11 x 11 Gaussian of sigma 1.5, data range 1, images reflected beyond their borders (torchmetrics since then)",
        "", True, lambda _: partial(ssim, padded=True), least_side=11,
    ),
    "ssim-sample": ImageMetric(
        "11 x 11 Gaussian of sigma 1.5, data range 1, sample covariance (scikit-image's; LVSM, RnG)", "", True,
        lambda _: partial(ssim, window="gaussian-sample"), least_side=11,
    ),
    "ssim-uniform7-uint8": ImageMetric(
        "7 x 7 box on 8-bit images (EscherNet's scikit-image default)", "", True,
        lambda _: _of_bytes(partial(ssim, window="uniform")), least_side=7,
    ),
    "psnr-object": ImageMetric(
        "over the true silhouette of an object before white (darkest channel below 0.97)", "dB", True,
        lambda _: object_psnr,
    ),
    "silhouette-iou": ImageMetric(
        "of the silhouettes before white (darkest channel below 0.97)", "", True, lambda _: silhouette_iou,
    ),
    "sharpness": ImageMetric(
        "mean length of the gradient inside the true silhouette over the truth's", "", True, lambda _: sharpness,
        least_side=2,
    ),
    "flip": ImageMetric("LDR-FLIP at 67 pixels a degree, mean over pixels", "", False, lambda _: load_flip()),
    "lpips-alex": ImageMetric(
        "version 0.1, AlexNet, images in [-1, 1]", "", False, lambda weights: _lpips("alex", weights), True, 32,
    ),
    "lpips-vgg": ImageMetric(
        "version 0.1, VGG-16, images in [-1, 1]", "", False, lambda weights: _lpips("vgg", weights), True, 32,
    ),
    "lpips-vgg-unscaled": ImageMetric(
        "version 0.1, VGG-16, images in [0, 1] as they are (3D Gaussian splatting)", "", False,
        lambda weights: _lpips("vgg", weights, rescale=False), True, 32,
    ),
}  # fmt: skip

SET_METRICS: dict[str, SetMetric] = {
    "fid": SetMetric("Inception pool3, targets against their truth", InceptionFeatures),
    "fd-dinov2": SetMetric(
        "class token of DINOv2 ViT-L/14 at 224 px (Stein et al. 2023), targets against their truth",
        lambda weights: DinoV2ClassFeatures(weights / "dinov2", width=1024),
    ),
}  # fmt: skip


SEQUENCE_METRICS: dict[str, SequenceMetric] = {
    "flicker": SequenceMetric(
        "mean absolute second difference of the targets in their order, out of 255, without a warp", "",
        lambda images, _, __: flicker(images), 3,
    ),
    "view-to-view": SequenceMetric(
        "PSNR of each target against the one before it, without a warp", "dB",
        lambda images, _, __: view_to_view(images), 2,
    ),
    "reprojection": SequenceMetric(
        "PSNR of each target against what the one before it shows of the same surface, through the true depths, where "
        "two see one", "dB",
        reprojection_psnr, 2, needs_depth=True,
    ),
}  # fmt: skip


DEPTH_METRICS: dict[str, DepthMetric] = {
    "depth-rel": DepthMetric(
        "mean of |d - d_true| / d_true where the truth is known, without alignment (RnG prints it in percent); 1 where "
        "nothing is met", False, lambda depths, truth: depth_errors_by_view(depths, truth, truth > 0)[0].tolist(),
    ),
    "depth-a1": DepthMetric(
        "share of pixels within a factor of 1.25 of the truth where that is known, without alignment (RnG)", True,
        lambda depths, truth: depth_errors_by_view(depths, truth, truth > 0)[1].tolist(),
    ),
}  # fmt: skip

POSE_METRICS: dict[str, PoseMetric] = {
    **{
        f"pose-{kind}{degrees}": PoseMetric(
            f"share of pairs of references whose relative {what} is told to less than {degrees} degrees, in percent "
            "(VGGT)", f"{kind}{degrees}",
        )
        for kind, what in (("ra", "rotation"), ("rt", "direction of translation")) for degrees in (5, 15, 30)
    },
    "pose-auc30": PoseMetric(
        "area under the share of pairs of references below 1 to 30 degrees, of the larger of both angles, in percent "
        "(VGGT)", "auc30",
    ),
}  # fmt: skip

ALL_METRICS = {**IMAGE_METRICS, **SET_METRICS, **SEQUENCE_METRICS, **DEPTH_METRICS, **POSE_METRICS}


def needs_true_depth(names: Sequence[str]) -> bool:
    """Whether any of some metrics looks at the true depths."""
    sequences = [SEQUENCE_METRICS[name] for name in names if name in SEQUENCE_METRICS]
    return any(name in DEPTH_METRICS for name in names) or any(metric.needs_depth for metric in sequences)


def axis_label(name: str) -> str:
    """Name and unit of a metric of images."""
    unit = IMAGE_METRICS[name].unit
    return f"{name} in {unit}" if unit else name


def make_metrics(names: Sequence[str], weights: Path | None) -> tuple[dict[str, PairMetric], dict[str, Features]]:
    """The metrics of pairs and of sets among some names, ready to use.

    Args:
        names: Of :data:`ALL_METRICS`; those of sequences, depth and poses need no making.
        weights: Folder with the files that some of them need.

    Raises:
        KaleidosceneError: A name is unknown or twice there, or weights or a package are missing.
    """
    if not names or len(set(names)) < len(names):
        raise KaleidosceneError(f"Metrics must be named once each, got {', '.join(names) or 'none'}.")
    pairs: dict[str, PairMetric] = {}
    sets: dict[str, Features] = {}
    for name in names:
        if name not in ALL_METRICS:
            raise unknown_name("metric", name, ALL_METRICS)
        if name in SEQUENCE_METRICS or name in DEPTH_METRICS or name in POSE_METRICS:
            continue
        if weights is None and (name in SET_METRICS or IMAGE_METRICS[name].needs_weights):
            raise KaleidosceneError(
                f"Metric {name} needs weights that do not come with the package: give --metric-weights."
            )
        folder = weights or Path()
        if name in IMAGE_METRICS:
            pairs[name] = IMAGE_METRICS[name].make(folder)
        else:
            sets[name] = SET_METRICS[name].make(folder)
    return pairs, sets
