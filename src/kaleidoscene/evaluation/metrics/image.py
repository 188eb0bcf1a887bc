"""Weights-free image metrics on [0, 1]: PSNR, SSIM and FLIP, with the variants in use (method D)."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError


def truncated(image: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch 3 h w"]:
    """An image on the 256 levels that ``np.uint8(255 x)`` gives, which cuts off (EscherNet's code)."""
    # A level that was read from a file is a multiple of 1/255 up to rounding, and must not fall to the one below.
    return (image.clamp(0, 1) * 255 + 1e-4).floor() / 255


def psnr(image: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch"]:
    """Peak signal-to-noise ratio of each image in dB, both clamped to [0, 1]; identical images give 100."""
    error = (image.clamp(0, 1) - truth.clamp(0, 1)).square().mean(dim=(-3, -2, -1))
    return -10 * torch.log10(error.clamp_min(1e-10))


def ssim(
    image: Float[Tensor, "*batch 3 h w"],
    truth: Float[Tensor, "*batch 3 h w"],
    *,
    window: str = "gaussian",
    padded: bool = False,
) -> Float[Tensor, "*batch"]:
    """Structural similarity of each image (Wang et al. 2004), data range 1, mean over channels and pixels.

    Args:
        image: In [0, 1].
        truth: Likewise.
        window: ``gaussian`` is the 11 x 11 window of sigma 1.5, ``gaussian-sample`` the same with sample covariance
            (scikit-image's; LVSM and RnG), ``uniform`` the 7 x 7 box with sample covariance (EscherNet's scikit-image
            default). They differ by up to 0.02.
        padded: Reflect images beyond their borders and take all pixels (torchmetrics since September 2024); else only
            those around which the window fits (Wang et al.; torchmetrics before). They were seen to differ by 0.05.

    Raises:
        KaleidosceneError: The images are smaller than the window.
    """  # fmt: skip
    kernel = torch.full((7, 7), 1 / 49) if window == "uniform" else _gaussian(11, 1.5)
    if min(image.shape[-2:]) < len(kernel):
        raise KaleidosceneError(
            f"SSIM with a window of {len(kernel)} pixels cannot be taken of images of "
            f"{image.shape[-2]}x{image.shape[-1]}."
        )
    unbiased = {"gaussian": 1.0, "gaussian-sample": 121 / 120, "uniform": 49 / 48}[window]
    x, y = image.clamp(0, 1).reshape(-1, 1, *image.shape[-2:]), truth.clamp(0, 1).reshape(-1, 1, *truth.shape[-2:])
    if padded:
        x, y = (torch.nn.functional.pad(z, (len(kernel) // 2,) * 4, mode="reflect") for z in (x, y))

    def mean(z: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(z, kernel.to(image)[None, None])

    mx, my = mean(x), mean(y)
    vx, vy, cov = (
        unbiased * (mean(a * b) - ma * mb) for a, b, ma, mb in ((x, x, mx, mx), (y, y, my, my), (x, y, mx, my))
    )
    c1, c2 = 0.01**2, 0.03**2
    value = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return value.mean(dim=(-3, -2, -1)).reshape(*image.shape[:-3], 3).mean(-1)


def _gaussian(size: int, sigma: float) -> Float[Tensor, "size size"]:
    x = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-(x**2) / (2 * sigma**2))
    return torch.outer(line, line) / line.sum() ** 2


def flip(image: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"]) -> Float[Tensor, "*batch"]:
    """Mean LDR-FLIP of each image (Andersson et al. 2020), made for rendered images, at 67 pixels a degree; 0 is best.

    Raises:
        KaleidosceneError: The package ``flip-evaluator`` is not there.
    """
    flip_evaluator = _flip_package()
    pairs = zip(image.reshape(-1, *image.shape[-3:]), truth.reshape(-1, *truth.shape[-3:]), strict=True)
    values = [
        flip_evaluator.evaluate(_rows(b), _rows(a), "LDR", applyMagma=False)[1] for a, b in pairs
    ]  # reference first
    return torch.tensor(values, dtype=torch.float32).reshape(image.shape[:-3])


def load_flip() -> Callable[[Tensor, Tensor], Tensor]:
    """:func:`flip`, once its package has been found.

    Raises:
        KaleidosceneError: The package ``flip-evaluator`` is not there.
    """
    _flip_package()
    return flip


def _flip_package() -> Any:
    try:
        import flip_evaluator  # noqa: PLC0415  an extra
    except ImportError as error:
        raise KaleidosceneError("FLIP needs its own package: pip install 'kaleidoscene[eval]'.") from error
    return flip_evaluator


def _rows(image: Tensor):
    return image.clamp(0, 1).movedim(0, -1).contiguous().float().cpu().numpy()
