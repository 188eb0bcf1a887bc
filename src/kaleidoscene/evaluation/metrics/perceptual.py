"""LPIPS through its own package, with backbone weights from a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.serialisation import file_sha256

BACKBONES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
"""Files of torchvision's ImageNet weights, as they are published."""


class Lpips:
    """Learned perceptual distance (Zhang et al. 2018), version 0.1; its linear layers come with the package ``lpips``.

    Args:
        net: Backbone.
        weights: Folder with the file of :data:`BACKBONES`.
        rescale: Bring images from [0, 1] to [-1, 1], as the network was made for. Some published numbers, among them
            those of 3D Gaussian splatting, feed [0, 1] as it is.

    Raises:
        KaleidosceneError: The package or the weights are not there, or are others.
    """

    def __init__(self, net: Literal["alex", "vgg"], weights: Path, *, rescale: bool = True) -> None:
        path = weights / BACKBONES[net]
        if not path.is_file():
            raise KaleidosceneError(
                f"LPIPS ({net}): no {path.name} in {weights}; it is torchvision's file of that name."
            )
        try:
            import lpips  # noqa: PLC0415  an extra
        except Exception as error:  # a torchvision that does not fit raises RuntimeError
            raise KaleidosceneError(
                f"LPIPS needs the packages lpips and torchvision, which cannot be imported ({error}): "
                "pip install lpips, with the torchvision of this torch."
            ) from error
        self.network: Any = lpips.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
        _load_backbone(self.network.net, path)
        self.rescale = rescale

    @torch.no_grad()
    def __call__(
        self, image: Float[Tensor, "*batch 3 h w"], truth: Float[Tensor, "*batch 3 h w"]
    ) -> Float[Tensor, "*batch"]:
        """Distance of each pair of images in [0, 1]; 0 is best."""
        a, b = (x.clamp(0, 1).reshape(-1, *x.shape[-3:]) for x in (image, truth))
        return self.network(a, b, normalize=self.rescale).reshape(image.shape[:-3])


def check_published(path: Path) -> None:
    """Raise unless a file is the one whose name it bears: PyTorch ends names with the first digits of the SHA-256.

    Raises:
        KaleidosceneError: It is another one, or not whole.
    """
    found = file_sha256(path)
    if not found.startswith(path.stem.rsplit("-", 1)[1]):
        raise KaleidosceneError(f"{path}: not the published file of that name (its SHA-256 begins with {found[:8]}).")


def _load_backbone(backbone: torch.nn.Module, path: Path) -> None:
    """Fill the slices of the backbone, whose layers keep the numbers they have in torchvision's ``features``."""
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler's own kinds
        raise KaleidosceneError(f"{path}: not a file of weights ({str(error).splitlines()[0]}).") from error
    with torch.no_grad():
        for name, p in backbone.named_parameters():
            key = "features." + name.split(".", 1)[1]
            if key not in stored or stored[key].shape != p.shape:
                raise KaleidosceneError(f"{path}: no {key} of shape {list(p.shape)}; expected torchvision's weights.")
            p.copy_(stored[key])
