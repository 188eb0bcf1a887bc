"""3DDiT: scenes drawn as tokens of 3DRAE, from one image, a few or none."""

from kaleidoscene.families.dit3d.config import Dit3dConfig, dit3d_base, dit3d_small, dit3d_xl
from kaleidoscene.families.dit3d.entry import FAMILY
from kaleidoscene.families.dit3d.model import Dit3d
from kaleidoscene.families.dit3d.renderer import Dit3dRenderer, Dit3dScene
from kaleidoscene.families.dit3d.settings import Dit3dSampling, Dit3dSettings
from kaleidoscene.families.dit3d.system import Dit3dSystem, load_system
from kaleidoscene.families.dit3d.task import Dit3dTask

__all__ = [
    "FAMILY",
    "Dit3d",
    "Dit3dConfig",
    "Dit3dRenderer",
    "Dit3dSampling",
    "Dit3dScene",
    "Dit3dSettings",
    "Dit3dSystem",
    "Dit3dTask",
    "dit3d_base",
    "dit3d_small",
    "dit3d_xl",
    "load_system",
]
