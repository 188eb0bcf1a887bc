"""3DRAE: a scene as a fixed set of tokens, from any number of views, to any view."""

from kaleidoscene.families.rae3d.config import Rae3dConfig
from kaleidoscene.families.rae3d.entry import FAMILY
from kaleidoscene.families.rae3d.model import Rae3d
from kaleidoscene.families.rae3d.renderer import Rae3dRenderer
from kaleidoscene.families.rae3d.scene import Rae3dScene
from kaleidoscene.families.rae3d.settings import Rae3dSettings
from kaleidoscene.families.rae3d.system import Rae3dSystem, load_system
from kaleidoscene.families.rae3d.task import Rae3dTask

__all__ = [
    "FAMILY",
    "Rae3d",
    "Rae3dConfig",
    "Rae3dRenderer",
    "Rae3dScene",
    "Rae3dSettings",
    "Rae3dSystem",
    "Rae3dTask",
    "load_system",
]
