"""A Kaleido checkpoint in its parts: network, codec, encoder of features, and how they compute."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch

from kaleidoscene.codecs.codec import Codec
from kaleidoscene.encoders.features import FeatureEncoder
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.settings import KaleidoSettings
from kaleidoscene.nn.precision import TYPES, Precision, autocast


@dataclass(frozen=True, eq=False)
class KaleidoParts:
    """What rendering computes with.

    Attributes:
        model: The network, in evaluation mode.
        settings: Of its checkpoint.
        codec: Image codec.
        features: Encoder of auxiliary features, if the network takes any.
        precision: Autocast type of matrix products; geometry stays fp32.
        use_cache: Keep keys and values of references (causal models only).
        magnification: How many times larger views are than the network sees them.
    """

    model: Kaleido
    settings: KaleidoSettings
    codec: Codec
    features: FeatureEncoder | None
    precision: Precision
    use_cache: bool
    magnification: int = 1

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.model.head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products and kept keys."""
        return TYPES[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        """For calls of the network."""
        return autocast(self.device, self.precision)
