"""Kaleidoscene: new views of a scene from any number of images.

import kaleidoscene

model = kaleidoscene.load("default")
capture = kaleidoscene.read_capture("examples/captures/NAME")
views = model.render(capture.select([0, 4, 9]), cameras=kaleidoscene.trajectories.orbit(capture, frames=24), seed=0)
views.save("out/")
"""

from kaleidoscene.api import Model, RenderedViews, load
from kaleidoscene.captures.capture import Capture
from kaleidoscene.captures.checking.run import check_capture
from kaleidoscene.captures.findings import Finding
from kaleidoscene.captures.formats.registry import read_capture, scan_capture
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry import trajectories
from kaleidoscene.geometry.camera_path import read_camera_path, write_camera_path
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.rendering.ordering import RenderPlan

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
