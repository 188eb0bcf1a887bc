"""A capture: images and cameras of one object or place, as they lie on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from anyview.data.images import read_image, resize_image
from anyview.errors import AnyViewError
from anyview.geometry.cameras import Cameras
from anyview.geometry.normalisation import focus_point, mean_centre


@dataclass(frozen=True, eq=False)
class Capture:
    """Posed images of one scene; images are read when they are asked for.

    Attributes:
        name: For messages and file names.
        format: The format it was read as.
        image_paths: One image a camera.
        cameras: ``(views,)``, OpenCV axes, pixels of the images on disk, world units of the capture.
        centred: ``object``: the world's origin is the middle of the object, which is small in front of a plain
            background; ``scene``: the origin means nothing.
    """

    name: str
    format: str
    image_paths: tuple[Path, ...]
    cameras: Cameras
    centred: Literal["object", "scene"] = "scene"

    def __post_init__(self) -> None:
        if len(self.image_paths) != len(self.cameras):
            counts = f"{len(self.image_paths)} and {len(self.cameras)}"
            raise AnyViewError(f"{self.name}: images and cameras do not match in number: {counts}.")

    def __len__(self) -> int:
        return len(self.image_paths)

    def select(self, indices: Sequence[int]) -> Capture:
        """The views at ``indices``, in that order.

        Raises:
            AnyViewError: An index is out of range, or there are none.
        """
        if not indices:
            raise AnyViewError(f"{self.name}: no views were chosen.")
        for index in indices:
            if not -len(self) <= index < len(self):
                raise AnyViewError(
                    f"{self.name}: view {index} is out of range, the capture has views 0 to {len(self) - 1}."
                )
        chosen = list(indices)
        return replace(self, image_paths=tuple(self.image_paths[i] for i in chosen), cameras=self.cameras[chosen])

    def images(self) -> Float[Tensor, "views 3 h w"]:
        """All images, RGB in [0, 1], on white where they are transparent.

        Raises:
            AnyViewError: An image is missing, truncated, or of another size than its camera says.
        """
        images = []
        for path in self.image_paths:
            image, _ = read_image(path)
            if tuple(image.shape[-2:]) != self.cameras.image_size:
                h, w = self.cameras.image_size
                raise AnyViewError(
                    f"{path}: the image is {image.shape[-2]}x{image.shape[-1]}, its camera is of {h}x{w}."
                )
            images.append(image)
        return torch.stack(images)

    def prepared(
        self, image_size: tuple[int, int], focal_over_height: float | None
    ) -> tuple[Float[Tensor, "views 3 h w"], Cameras]:
        """Images and cameras brought to a model's size and field of view.

        The largest centred rectangle of the model's aspect is cropped and resampled. Where a focal length is asked
        for, the crop is narrowed (or the image padded in white, for objects) until the field of view fits.
        """
        return fit_views(self.images(), self.cameras, image_size, focal_over_height, pad=self.centred == "object")

    def origin(self) -> Float[Tensor, " 3"]:
        """The point that networks take as origin: the object's middle, or where the cameras look, or their mean."""
        if self.centred == "object":
            return torch.zeros(3)
        try:
            return focus_point(self.cameras)
        except AnyViewError:
            return mean_centre(self.cameras)


def fit_views(
    images: Float[Tensor, "views 3 h w"],
    cameras: Cameras,
    image_size: tuple[int, int],
    focal_over_height: float | None,
    *,
    pad: bool,
) -> tuple[Float[Tensor, "views 3 nh nw"], Cameras]:
    """Crop about the principal point of each view and resample; see :meth:`Capture.prepared`.

    Args:
        images: RGB in [0, 1].
        cameras: ``(views,)``.
        image_size: Size that is wanted.
        focal_over_height: Focal length over image height that is wanted; None keeps the field of view as wide as the
            aspect allows.
        pad: White may be added around the image where the field of view that is wanted is wider than the image's.

    Raises:
        AnyViewError: The field of view that is wanted is wider than the image's, and padding is not allowed.
    """
    h, w = cameras.image_size
    target_h, target_w = image_size
    out_images, out_cameras = [], []
    for image, camera in zip(images, [cameras[i] for i in range(len(cameras))], strict=True):
        height = min(float(h), w * target_h / target_w)
        if focal_over_height is not None:
            wanted = float(camera.intrinsics[1, 1]) / focal_over_height
            if wanted > height * 1.01 and not pad:
                wanted = height
            height = wanted
        rows, cols = max(1, round(height)), max(1, round(height * target_w / target_h))
        top, left = round((h - rows) / 2), round((w - cols) / 2)
        out_cameras.append(camera.crop(top, left, rows, cols).resize(target_h, target_w))
        padded = torch.nn.functional.pad(image, (-left, left + cols - w, -top, top + rows - h), value=1.0)
        out_images.append(resize_image(padded, image_size))
    return torch.stack(out_images), Cameras.stack(out_cameras)
