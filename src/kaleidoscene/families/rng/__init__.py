"""RnG: photographs without cameras to cameras, new views with depth, and points."""

from kaleidoscene.families.rng.config import RngConfig
from kaleidoscene.families.rng.entry import FAMILY
from kaleidoscene.families.rng.model import Rng
from kaleidoscene.families.rng.renderer import RngRenderer
from kaleidoscene.families.rng.scene import RngScene
from kaleidoscene.families.rng.settings import RngSettings
from kaleidoscene.families.rng.system import RngSystem, load_system
from kaleidoscene.families.rng.task import RngTask

__all__ = [
    "FAMILY",
    "Rng",
    "RngConfig",
    "RngRenderer",
    "RngScene",
    "RngSettings",
    "RngSystem",
    "RngTask",
    "load_system",
]
