"""Views per second of the mesh renderer at 64, 128 and 256 px, against ray casting."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from benchmarks.common import median_seconds, write_result
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import sample_viewpoints
from kaleidoscene.geometry.rays import camera_rays

VIEWS = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mesh", type=Path)
    parts = fit_unit_box(read_mesh(parser.parse_args().mesh))
    whole: Any = trimesh.util.concatenate([trimesh.Trimesh(p.vertices, p.faces, process=False) for p in parts])
    lines = [
        f"A scan of {len(whole.faces)} faces with its texture. Rasteriser: OpenGL on a software driver with 3 x 3",
        "samples a pixel, colour and coverage read back. Rays: first hits only, one a pixel, no shading (Embree).",
        "",
        "| size | rasteriser, views/s | rays, views/s |",
        "|---|---|---|",
    ]
    for side in (64, 128, 256):
        cameras = sample_viewpoints("eschernet", VIEWS, (side, side), torch.Generator().manual_seed(0))
        rasteriser = Rasteriser((side, side))
        fast = VIEWS / median_seconds(lambda r=rasteriser, c=cameras: r.render(parts, c, Lighting()), repeats=3)
        rasteriser.release()
        origins, directions = camera_rays(cameras)

        def cast(origins=origins, directions=directions) -> None:
            for origin, rays in zip(origins.numpy(), directions.flatten(1, 2).numpy(), strict=True):
                whole.ray.intersects_first(np.broadcast_to(origin, rays.shape), rays)

        lines.append(f"| {side} | {fast:.0f} | {VIEWS / median_seconds(cast, repeats=3):.0f} |")
    write_result("render_speed", "Speed of the mesh renderer", lines)


if __name__ == "__main__":
    main()
