"""Kaleido: a decoder-only rectified-flow transformer over views."""

from kaleidoscene.families.kaleido.config import KaleidoConfig, kaleido_large, kaleido_medium, kaleido_small
from kaleidoscene.families.kaleido.entry import FAMILY
from kaleidoscene.families.kaleido.model import Kaleido
from kaleidoscene.families.kaleido.renderer import KaleidoRenderer
from kaleidoscene.families.kaleido.settings import KaleidoSettings, SamplingConfig
from kaleidoscene.families.kaleido.system import KaleidoSystem, load_system
from kaleidoscene.families.kaleido.task import KaleidoLoss, KaleidoTask

__all__ = [
    "FAMILY",
    "Kaleido",
    "KaleidoConfig",
    "KaleidoLoss",
    "KaleidoRenderer",
    "KaleidoSettings",
    "KaleidoSystem",
    "KaleidoTask",
    "SamplingConfig",
    "kaleido_large",
    "kaleido_medium",
    "kaleido_small",
    "load_system",
]
