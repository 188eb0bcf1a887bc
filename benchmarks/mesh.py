"""Meshes from the true depth of 36 views (method A.15), to see whether the fusion is sound: distance and volume IoU."""

import argparse
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import write_result
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.prerender import list_meshes
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import FIELD_OF_VIEW
from kaleidoscene.evaluation.metrics.shape import chamfer_sampled, chamfer_vertices, volume_iou
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at
from kaleidoscene.reconstruction.tsdf import MeshConfig, mesh_of

UP = torch.tensor([0.0, 0.0, 1.0])


def views_of_the_paper(size: tuple[int, int]) -> Cameras:
    """Azimuths 0 to 330 by 30 degrees at elevations -30, 0 and 30."""
    angles = [(math.radians(a), math.radians(e)) for e in (-30, 0, 30) for a in range(0, 360, 30)]
    eyes = torch.tensor([[math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)] for a, e in angles])
    return Cameras.from_field_of_view(look_at(1.85 * eyes, torch.zeros(36, 3), UP), FIELD_OF_VIEW, size)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("meshes", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--resolution", type=int, default=128)
    options = parser.parse_args()
    import trimesh  # noqa: PLC0415

    lines = [
        "| views of | cells | CD, vertices | CD, 100K samples | volume IoU | seconds |",
        "|---|---|---|---|---|---|",
    ]
    closed = 0
    for side in options.sizes:
        rasteriser, cameras = Rasteriser((side, side), supersampling=1), views_of_the_paper((side, side))
        rows = []
        for path in list_meshes(options.meshes):
            parts = fit_unit_box(read_mesh(path))
            depths = torch.from_numpy(rasteriser.render(parts, cameras, Lighting(), depth=True).depth)
            started = time.perf_counter()
            made = mesh_of(depths, cameras, config=MeshConfig(resolution=options.resolution, unseen="inside"))
            seconds = time.perf_counter() - started
            ours: Any = trimesh.Trimesh(made.vertices.numpy(), made.faces.numpy(), process=False)
            truth: Any = trimesh.util.concatenate([
                trimesh.Trimesh(part.vertices, part.faces, process=False) for part in parts
            ])  # fmt: skip
            truth.merge_vertices(merge_tex=True, merge_norm=True)
            iou = volume_iou(ours, truth) if truth.is_watertight else None
            closed += iou is not None
            rows.append((chamfer_vertices(ours, truth), chamfer_sampled(ours, truth), iou, seconds))
        ious = [iou for *_, iou, _ in rows if iou is not None]
        cells = [statistics.fmean(row[n] for row in rows) for n in (0, 1, 3)]
        iou = f"{statistics.fmean(ious):.3f}" if ious else ""
        lines.append(f"| {side} px | {options.resolution} | {cells[0]:.4f} | {cells[1]:.4f} | {iou} | {cells[2]:.1f} |")
    count = len(list_meshes(options.meshes))
    scans = f"Means over {count} scans, volumes over {closed // len(options.sizes)} that are closed."
    lines += ["", f"{scans} Aims: CD at most 0.01, IoU at least 0.85. Fusion and marching cubes alone."]
    write_result("mesh", "Meshes from true depth", lines)


if __name__ == "__main__":
    main()
