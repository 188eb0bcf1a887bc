"""Views of any lens and shape to a model's image size and field of view."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.images.pixels import centre_box, resize_image

_MOST_WHITE = 30  # times the image


def fit_views(
    images: Float[torch.Tensor, "views 3 h w"],
    cameras: Cameras,
    image_size: tuple[int, int],
    focal_over_height: float,
) -> tuple[Float[torch.Tensor, "views 3 nh nw"], Cameras]:
    """Crop about the principal point, then resample; what lies beyond an image becomes white.

    Kaleido models no intrinsics: all its views have one field of view.

    Args:
        images: RGB in [0, 1].
        cameras: ``(views,)``.
        image_size: Size that is wanted.
        focal_over_height: Focal length over image height that is wanted.

    Raises:
        KaleidosceneError: A view shows nothing of the field of view that is wanted, or next to nothing.
    """
    h, w = cameras.image_size
    out_images, out_cameras = [], []
    for number, image in enumerate(images):
        camera = cameras[number]
        top, left, rows, cols = _window(camera, image_size, focal_over_height)
        beside = top >= h or left >= w or top + rows <= 0 or left + cols <= 0
        if beside or rows * cols > _MOST_WHITE * h * w:
            k = camera.intrinsics
            raise KaleidosceneError(
                f"View {number}: an image of {h}x{w} with focal length {float(k[1, 1]):.5g} and principal point "
                f"({float(k[0, 2]):.0f}, {float(k[1, 2]):.0f}) shows next to nothing of what the model sees; check its "
                "intrinsics."
            )
        out_cameras.append(camera.crop(top, left, rows, cols).resize(*image_size))
        padded = torch.nn.functional.pad(image, (-left, left + cols - w, -top, top + rows - h), value=1.0)
        out_images.append(resize_image(padded, image_size))
    return torch.stack(out_images), Cameras.stack(out_cameras)


def cut_images(
    images: Float[torch.Tensor, "views c h w"], image_size: tuple[int, int]
) -> Float[torch.Tensor, "views c nh nw"]:
    """Cut about the middle to an aspect ratio, then resample: the lens stays what it is."""
    top, left, height, width = centre_box((images.shape[-2], images.shape[-1]), image_size)
    return resize_image(images[..., top : top + height, left : left + width], image_size)


def cut_depths(
    depths: Float[torch.Tensor, "views h w"], image_size: tuple[int, int]
) -> Float[torch.Tensor, "views nh nw"]:
    """Depth maps as :func:`cut_images` makes images: values of the nearest pixels."""
    top, left, height, width = centre_box((depths.shape[-2], depths.shape[-1]), image_size)
    return _nearest(depths[..., top : top + height, left : left + width], image_size)


def cut_cameras(cameras: Cameras, image_size: tuple[int, int]) -> Cameras:
    """The cameras of :func:`cut_images`."""
    return cameras.crop(*centre_box(cameras.image_size, image_size)).resize(*image_size)


def fit_depths(
    depths: Float[torch.Tensor, "views h w"],
    cameras: Cameras,
    image_size: tuple[int, int],
    focal_over_height: float,
) -> Float[torch.Tensor, "views nh nw"]:
    """Depth maps as :func:`fit_views` makes images: values of the nearest pixels, 0 beyond the maps.

    Args:
        depths: Along the optical axis.
        cameras: ``(views,)``, of the maps.
        image_size: Size that is wanted.
        focal_over_height: Focal length over image height that is wanted.
    """
    h, w = cameras.image_size
    out = []
    for number, depth in enumerate(depths):
        top, left, rows, cols = _window(cameras[number], image_size, focal_over_height)
        padded = torch.nn.functional.pad(depth, (-left, left + cols - w, -top, top + rows - h))
        out.append(_nearest(padded[None], image_size)[0])
    return torch.stack(out)


def _nearest(
    depths: Float[torch.Tensor, "views h w"], image_size: tuple[int, int]
) -> Float[torch.Tensor, "views nh nw"]:
    return torch.nn.functional.interpolate(depths[:, None], image_size, mode="nearest-exact")[:, 0]


def _window(camera: Cameras, image_size: tuple[int, int], focal_over_height: float) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of the model's view in pixels of a camera."""
    fx, fy = camera.intrinsics.diagonal()[:2].tolist()
    cx, cy = camera.intrinsics[:2, 2].tolist()
    height = fy / focal_over_height
    # Oblong pixels become square: the model's width is counted with the other focal length.
    width = fx / focal_over_height * image_size[1] / image_size[0]
    return round(cy - height / 2), round(cx - width / 2), max(1, round(height)), max(1, round(width))


def describe_fit(cameras: Cameras, image_size: tuple[int, int], focal_over_height: float) -> list[str]:
    """Sentences on what :func:`fit_views` cuts off and what it has to leave white; empty if neither matters (2 %)."""
    h, w = cameras.image_size
    kept, white = [], []
    for number in range(len(cameras)):
        top, left, rows, cols = _window(cameras[number], image_size, focal_over_height)
        seen = max(0, min(h, top + rows) - max(0, top)) * max(0, min(w, left + cols) - max(0, left))
        kept.append(seen / (h * w))
        white.append(1 - seen / (rows * cols))
    out = []
    if min(kept) < 0.98:
        out.append(f"Cropped to the model's field of view: {_range(kept)} of each {h}x{w} image is used.")
    if max(white) > 0.02:
        out.append(
            f"The model sees more than these images show: {_range(white)} of its view is white around them "
            "(their field of view is narrower)."
        )
    return out


def _range(shares: list[float]) -> str:
    low, high = f"{100 * min(shares):.0f}", f"{100 * max(shares):.0f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def seen_boxes(
    cameras: Cameras, image_size: tuple[int, int], focal_over_height: float
) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom and right of what the images themselves show in the views of :func:`fit_views`.

    Whole pixels of the views; all beyond is white padding.
    """
    (h, w), (height, width) = cameras.image_size, image_size
    boxes = []
    for number in range(len(cameras)):
        top, left, rows, cols = _window(cameras[number], image_size, focal_over_height)
        scale_y, scale_x = height / rows, width / cols
        boxes.append((
            max(0, math.ceil(-top * scale_y - 1e-6)), max(0, math.ceil(-left * scale_x - 1e-6)),
            min(height, math.floor((h - top) * scale_y + 1e-6)), min(width, math.floor((w - left) * scale_x + 1e-6)),
        ))  # fmt: skip
    return boxes
