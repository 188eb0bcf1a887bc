"""A perceptual distance of images: features of VGG19 with average pooling (FILM, LVSM, RnG; method A.14, B.7)."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.nn.precision import no_autocast

_CONVOLUTIONS = (2, 2, 4, 4, 4)
"""Of each block; features are those behind the second one."""
_CHANNELS = (64, 128, 256, 512, 512)
_WEIGHTS = (1 / 2.6, 1 / 4.8, 1 / 3.7, 1 / 5.6, 10 / 1.5)
_MEAN = (123.68, 116.779, 103.939)


class PerceptualDistance(nn.Module):
    """Mean absolute difference of the pixels and of the features of five blocks; frozen.

    Args:
        widths: Channels of the blocks, those of VGG19 by default.
    """

    def __init__(self, widths: tuple[int, ...] = _CHANNELS) -> None:
        super().__init__()
        blocks, inside = [], 3
        for number, (count, width) in enumerate(zip(_CONVOLUTIONS, widths, strict=True)):
            # Of the last block nothing behind its second convolution is looked at.
            kept = 2 if number == len(widths) - 1 else count
            blocks.append(nn.ModuleList([nn.Conv2d(inside if n == 0 else width, width, 3, 1, 1) for n in range(kept)]))
            inside = width
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False)

    @classmethod
    def read(cls, path: Path) -> PerceptualDistance:
        """From ``imagenet-vgg-verydeep-19.mat``, the file of MatConvNet that the authors use.

        Raises:
            KaleidosceneError: It is missing or damaged, or scipy is not there.
        """
        try:
            from scipy.io import loadmat  # noqa: PLC0415  an extra
        except ImportError as error:
            raise KaleidosceneError("VGG19's weights need scipy: pip install 'kaleidoscene[eval]'.") from error
        try:
            layers = loadmat(str(path))["layers"][0]
            kernels = [layer[0, 0] for layer in layers]
            convolutions = [layer["weights"][0] for layer in kernels if str(layer["type"][0]) == "conv"]
            widths = tuple(int(convolutions[number][0].shape[-1]) for number in (0, 2, 4, 8, 12))
            distance = cls(widths)
            places = [0, 1, 2, 3, *range(4, 12), 12, 13]
            own = [convolution for block in distance.blocks for convolution in block]  # pyright: ignore[reportGeneralTypeIssues]
            for place, convolution in zip(places, own, strict=True):
                kernel, bias = (torch.from_numpy(x).float() for x in convolutions[place])
                # MatConvNet has rows, columns, inputs, outputs.
                convolution.weight.copy_(kernel.permute(3, 2, 0, 1))
                convolution.bias.copy_(bias.reshape(-1))
        except Exception as error:  # whatever scipy's parser and odd contents raise
            raise KaleidosceneError(
                f"{path}: not the weights of VGG19 of MatConvNet, imagenet-vgg-verydeep-19.mat ({error})."
            ) from error
        return distance.eval()

    def forward(self, images: Float[Tensor, "n 3 h w"], truth: Float[Tensor, "n 3 h w"]) -> Float[Tensor, ""]:
        """The distance, in units of the pixels' own.

        Args:
            images: RGB in [0, 1].
            truth: Likewise.
        """
        with no_autocast(images):
            ours, theirs = (self._features(x.float()) for x in (images, truth))
            total = (255 * (images - truth)).abs().mean()
            for weight, a, b in zip(_WEIGHTS, ours, theirs, strict=True):
                total = total + weight * (a - b).abs().mean()
        return total / 255

    def _features(self, images: Tensor) -> list[Tensor]:
        x = 255 * images - images.new_tensor(_MEAN)[:, None, None]
        found = []
        for number, block in enumerate(self.blocks):
            if number:
                x = nn.functional.avg_pool2d(x, 2)
            for place, convolution in enumerate(block):  # pyright: ignore[reportArgumentType]
                x = torch.relu(convolution(x))
                if place == 1:
                    found.append(x)
        return found
