"""Kaleidoscene: new views of a scene from any number of images.

import kaleidoscene

model = kaleidoscene.load("default")
capture = kaleidoscene.read_capture("examples/captures/NAME")
views = model.render(capture.select([0, 4, 9]), cameras=kaleidoscene.trajectories.orbit(capture, frames=24), seed=0)
views.save("out/")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaleidoscene.api import Model, load
    from kaleidoscene.captures.capture import Capture
    from kaleidoscene.captures.checking.run import check_capture
    from kaleidoscene.captures.findings import Finding
    from kaleidoscene.captures.formats.registry import read_capture, scan_capture
    from kaleidoscene.errors import KaleidosceneError
    from kaleidoscene.geometry import trajectories
    from kaleidoscene.geometry.camera_path import read_camera_path, write_camera_path
    from kaleidoscene.geometry.cameras import Cameras
    from kaleidoscene.rendering.ordering import RenderPlan
    from kaleidoscene.rendering.rendered import RenderedViews

__version__ = "0.1.0"

__all__ = [
    "Cameras",
    "Capture",
    "Finding",
    "KaleidosceneError",
    "Model",
    "RenderPlan",
    "RenderedViews",
    "check_capture",
    "load",
    "read_camera_path",
    "read_capture",
    "scan_capture",
    "trajectories",
    "write_camera_path",
]

# Names come when they are asked for: ``kaleidoscene --help`` must not wait for torch.
_PLACES = {
    "Cameras": "geometry.cameras", "Capture": "captures.capture", "Finding": "captures.findings",
    "KaleidosceneError": "errors", "Model": "api", "RenderPlan": "rendering.ordering",
    "RenderedViews": "rendering.rendered",
    "check_capture": "captures.checking.run", "load": "api", "read_camera_path": "geometry.camera_path",
    "read_capture": "captures.formats.registry", "scan_capture": "captures.formats.registry",
    "trajectories": "geometry.trajectories", "write_camera_path": "geometry.camera_path",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'kaleidoscene' has no attribute {name!r}")
    module = importlib.import_module(f"kaleidoscene.{_PLACES[name]}")
    return module if name == "trajectories" else getattr(module, name)
