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
        centre: Of a scene, if it is known from more views than these; see :meth:`origin`.
    """

    name: str
    format: str
    image_paths: tuple[Path, ...]
    cameras: Cameras
    centred: Literal["object", "scene"] = "scene"
    centre: Float[Tensor, " 3"] | None = None

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
        return replace(
            self,
            image_paths=tuple(self.image_paths[i] for i in chosen),
            cameras=self.cameras[chosen],
            centre=self.origin(),
        )

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

    def origin(self) -> Float[Tensor, " 3"]:
        """The point that networks take as origin, in world units.

        The object's middle, or where the cameras of the whole capture look, or their mean; a selection keeps it.
        """
        if self.centred == "object":
            return torch.zeros(3)
        if self.centre is not None:
            return self.centre
        try:
            return focus_point(self.cameras)
        except AnyViewError:
            return mean_centre(self.cameras)


def fit_views(
    images: Float[Tensor, "views 3 h w"],
    cameras: Cameras,
    image_size: tuple[int, int],
    focal_over_height: float,
    *,
    pad: bool,
) -> tuple[Float[Tensor, "views 3 nh nw"], Cameras]:
    """Bring views to a model's size and field of view: crop about the principal point, then resample.

    Args:
        images: RGB in [0, 1].
        cameras: ``(views,)``.
        image_size: Size that is wanted.
        focal_over_height: Focal length over image height that is wanted.
        pad: White is added where the field of view that is wanted reaches beyond the image (objects on white).

    Raises:
        AnyViewError: The field of view that is wanted reaches beyond an image, and padding is not allowed.
    """
    h, w = cameras.image_size
    target_h, target_w = image_size
    out_images, out_cameras = [], []
    for number, image in enumerate(images):
        camera = cameras[number]
        (fy, cx), cy = (float(camera.intrinsics[1, 1]), float(camera.intrinsics[0, 2])), float(camera.intrinsics[1, 2])
        height = fy / focal_over_height
        width = height * target_w / target_h
        rows, cols = max(1, round(height)), max(1, round(width))
        top, left = round(cy - height / 2), round(cx - width / 2)
        # A pixel and a percent are what rounding and calibration leave.
        slack = 1 + 0.01 * max(rows, cols)
        if not pad and (min(top, left) < -slack or top + rows > h + slack or left + cols > w + slack):
            raise AnyViewError(
                f"View {number}: the model sees {rows}x{cols} pixels of this camera, the image is {h}x{w} about "
                f"({cx:.0f}, {cy:.0f}): its field of view is narrower than the model's."
            )
        out_cameras.append(camera.crop(top, left, rows, cols).resize(target_h, target_w))
        padded = torch.nn.functional.pad(image, (-left, left + cols - w, -top, top + rows - h), value=1.0)
        out_images.append(resize_image(padded, image_size))
    return torch.stack(out_images), Cameras.stack(out_cameras)
