"""From the name of a codec to the codec."""

from __future__ import annotations

from kaleidoscene.codecs.codec import Codec, CodecConfig
from kaleidoscene.codecs.kl import KLCodec
from kaleidoscene.codecs.pixel import PixelCodec


def make_codec(config: CodecConfig) -> Codec:
    """Build the codec of a checkpoint.

    Raises:
        KaleidosceneError: The autoencoder's library or weights are missing.
    """
    return PixelCodec(config.factor) if config.kind == "pixel" else KLCodec.from_pretrained(config.source)
