"""3DDiT checkpoints, and the autoencoder that they name."""

from __future__ import annotations

from dataclasses import dataclass

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.checkpoints import CheckpointFormat, resolve, weights_digest
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


def weights_of(source: str) -> str:
    """What tells one autoencoder from another: the digest of its weights."""
    return weights_digest(resolve(source))


def load_autoencoder(settings: Dit3dSettings, device: str, precision: str = "fp32") -> Autoencoder:
    """The autoencoder that a checkpoint or run names.

    Args:
        settings: Of the network that draws its tokens.
        device: Where to put it.
        precision: Of matrix products.

    Raises:
        KaleidosceneError: It is missing, has no statistics, other tokens or views than the network, or other weights
            than when the network learned.
    """
    source, config = settings.autoencoder, settings.model
    try:
        folder = resolve(source)
    except KaleidosceneError as error:
        raise KaleidosceneError(f"The autoencoder of a dit3d: {error}") from error
    renderer = load_system(folder, device, precision).autoencoder
    have, want = (renderer.settings.model.tokens, renderer.settings.model.width), (config.tokens, config.channels)
    if have != want:
        raise KaleidosceneError(f"{source}: an autoencoder of {have} tokens and channels, the network has {want}.")
    if renderer.image_size != settings.image_size:
        raise KaleidosceneError(
            f"{source}: an autoencoder of views of {renderer.image_size}, the network is of {settings.image_size}."
        )
    if settings.autoencoder_weights not in (None, weights_digest(folder)):
        raise KaleidosceneError(
            f"{source}: not the weights of the autoencoder whose tokens the network learned to draw (their SHA-256 "
            f"begins with {weights_digest(folder)[:8]}, expected {str(settings.autoencoder_weights)[:8]})."
        )
    return Autoencoder(renderer, read_statistics(folder, have))
