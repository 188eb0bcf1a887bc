"""AnyView: new views of a scene from any number of images.

import anyview

model = anyview.load("default")
capture = anyview.read_capture("examples/captures/NAME")
views = model.render(capture.select([0, 4, 9]), cameras=anyview.trajectories.orbit(capture, frames=24), seed=0)
views.save("out/")
"""

from anyview.api import Model, RenderedViews, load
from anyview.data.captures import Capture
from anyview.data.checking.run import check_capture
from anyview.data.findings import Finding
from anyview.data.formats.registry import read_capture, scan_capture
from anyview.errors import AnyViewError
from anyview.geometry import trajectories
from anyview.geometry.camera_path import read_camera_path, write_camera_path
from anyview.geometry.cameras import Cameras
from anyview.rendering.ordering import RenderPlan

__version__ = "0.1.0"

__all__ = [
    "AnyViewError",
    "Cameras",
    "Capture",
    "Finding",
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
