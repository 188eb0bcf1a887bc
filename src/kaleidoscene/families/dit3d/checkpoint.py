"""3DDiT checkpoints, and the autoencoder that they name."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import CheckpointFormat, resolve
from kaleidoscene.families.dit3d.config import Dit3dConfig
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.settings import Dit3dSettings
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.statistics import TokenStatistics, read_statistics
from kaleidoscene.families.rae3d.system import load_system

FAMILY = "dit3d"
FORMAT = CheckpointFormat(FAMILY, 1, Dit3dSettings, lambda settings: Dit3d(settings.model))
describe, read_settings = FORMAT.describe, FORMAT.read_settings
load_model, save_model = FORMAT.load_model, FORMAT.save_model


@dataclass(frozen=True, eq=False)
class Autoencoder:
    """A 3DRAE and what its tokens are like."""

    renderer: Rae3dRenderer
    statistics: TokenStatistics


def load_autoencoder(source: str, config: Dit3dConfig, device: str, precision: str = "fp32") -> Autoencoder:
    """The autoencoder of a checkpoint.

    Args:
        source: Name, folder or hub id.
        config: Of the network that draws its tokens.
        device: Where to put it.
        precision: Of matrix products.

    Raises:
        KaleidosceneError: It is missing, has no statistics, or other tokens than the network.
    """
    folder = resolve(source)
    renderer = load_system(folder, device, precision).autoencoder
    have = (renderer.settings.model.tokens, renderer.settings.model.width)
    if have != (config.tokens, config.channels):
        want = (config.tokens, config.channels)
        raise KaleidosceneError(f"{source}: an autoencoder of {have} tokens and channels, the network has {want}.")
    return Autoencoder(renderer, read_statistics(folder, have))
