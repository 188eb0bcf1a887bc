"""Render a textured mesh to a capture: scattered references, an orbit to compare with, and more references.

    python examples/05_render_your_own_mesh.py MESH.glb OUT

This is how examples/captures/school_bus was made.
"""

import math
import sys
from pathlib import Path

import torch

from kaleidoscene.captures.conversion.rendered import write_rendered_capture
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import FIELD_OF_VIEW
from kaleidoscene.folders import whole_folder
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at

SIZE = (256, 256)
REFERENCES = [(35.0, 25.0), (155.0, 15.0), (275.0, 30.0)]  # azimuth, elevation in degrees
ORBIT = [(15.0 * n, 20.0) for n in range(24)]
MORE = [(95.0, 20.0), (215.0, 30.0), (335.0, 15.0)]  # references as well
DISTANCE = 1.8


def cameras_at(angles: list[tuple[float, float]]) -> Cameras:
    a, e = (torch.tensor([math.radians(pair[k]) for pair in angles]) for k in range(2))
    eye = DISTANCE * torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], dim=-1)
    poses = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.from_field_of_view(poses, FIELD_OF_VIEW, SIZE)


def main(mesh: Path, out: Path) -> None:
    cameras = cameras_at(REFERENCES + ORBIT + MORE)
    renders = Rasteriser(SIZE, supersampling=3).render(fit_unit_box(read_mesh(mesh)), cameras, Lighting())
    with whole_folder(out, overwrite=False) as folder:
        write_rendered_capture(folder, renders.rgba, cameras)
    print(f"wrote {out}: {len(cameras)} views")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
