"""Kaleido: a decoder-only rectified-flow transformer over views."""

from anyview.families.kaleido.config import KaleidoConfig, kaleido_large, kaleido_medium, kaleido_small
from anyview.families.kaleido.model import Kaleido
from anyview.families.kaleido.renderer import KaleidoRenderer
from anyview.families.kaleido.settings import KaleidoSettings, SamplingConfig
from anyview.families.kaleido.system import KaleidoSystem, load_system
from anyview.families.kaleido.task import KaleidoLoss, KaleidoTask

__all__ = [
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
