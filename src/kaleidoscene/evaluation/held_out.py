"""Captures in memory, ready to be scored on."""

from __future__ import annotations

from pathlib import Path

from kaleidoscene.evaluation.benchmarks import BENCHMARKS, find_scenes
from kaleidoscene.evaluation.run import HeldOutObject
from kaleidoscene.rendering.fitting import prepare_views
from kaleidoscene.rendering.system import System


def read_objects(folder: Path, system: System) -> list[HeldOutObject]:
    """All captures below a folder in memory, at the size of a model; every one must read.

    Raises:
        KaleidosceneError: There are none, or one is bad.
    """
    scenes = find_scenes(BENCHMARKS["objects"], folder)
    return [HeldOutObject(scene.name, *prepare_views(system, scene.read().recentred())) for scene in scenes]
