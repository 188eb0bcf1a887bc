"""Structure from motion: photo sets, and rendered objects whose cameras are known.

    python -m benchmarks.pose [PHOTO_FOLDER ...] [--meshes MESH ...]

For photographs: images registered, reprojection error, seconds. For meshes: 24 views of a ring are rendered at 384 px,
cameras are estimated from the images alone, laid on the true ones by a similarity, and compared.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from benchmarks.common import write_result
from kaleidoscene.captures.formats.photos import read_photos
from kaleidoscene.captures.formats.registry import read_capture
from kaleidoscene.captures.posing import PoseConfig, estimate_poses
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.viewpoints import FIELD_OF_VIEW
from kaleidoscene.geometry.alignment import umeyama
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at, rotation_angle


def photographs(folder: Path) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        started = time.perf_counter()
        result = estimate_poses(read_photos(folder), Path(scratch) / "out", PoseConfig(), on_stage=lambda stage: None)
        seconds = time.perf_counter() - started
    return (
        f"| {folder.name} | {result.registered} of {result.images} | {result.points} | "
        f"{result.reprojection_error:.2f} | {seconds:.0f} |"
    )


def ring(count: int, size: tuple[int, int]) -> Cameras:
    angle = 2 * torch.pi * torch.arange(count) / count
    height = 0.35 + 0.25 * torch.sin(2 * angle)
    eye = 1.8 * torch.nn.functional.normalize(torch.stack([angle.cos(), angle.sin(), height], -1), dim=-1)
    poses = look_at(eye, torch.zeros_like(eye), torch.tensor([0.0, 0.0, 1.0]))
    return Cameras.from_field_of_view(poses, FIELD_OF_VIEW, size)


def mesh(path: Path) -> str:
    size = (384, 384)
    truth = ring(24, size)
    renders = Rasteriser(size, supersampling=3).render(fit_unit_box(read_mesh(path)), truth, Lighting())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "images").mkdir()
        for number, rgba in enumerate(renders.rgba):
            picture = Image.fromarray(rgba)
            plain = Image.new("RGBA", picture.size, "white")
            plain.alpha_composite(picture)
            plain.convert("RGB").save(folder / "images" / f"{number:03d}.png")
        started = time.perf_counter()
        estimate_poses(read_photos(folder / "images"), folder / "out", PoseConfig(), on_stage=lambda stage: None)
        seconds = time.perf_counter() - started
        found = read_capture(folder / "out", format="colmap")
    numbers = [int(frame.image.stem) for frame in found.frames]
    true, estimated = truth[numbers].to(torch.float64), found.exact_cameras
    moved = umeyama(estimated.centres, true.centres).cameras(estimated)
    position = (moved.centres - true.centres).norm(dim=-1)
    angle = torch.rad2deg(rotation_angle(moved.world_from_cam[:, :3, :3], true.world_from_cam[:, :3, :3]))
    return (
        f"| {path.stem} | {len(numbers)} of 24 | {position.square().mean().sqrt():.4f} | {angle.mean():.2f} | "
        f"{angle.max():.2f} | {seconds:.0f} |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="*")
    parser.add_argument("--meshes", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    lines = ["| photographs | registered | points | reprojection error, px | seconds |", "|---|---|---|---|---|"]
    lines += [photographs(folder) for folder in options.photos]
    header = "| object | registered | position error (distance 1.8) | rotation error mean, degrees | max | seconds |"
    lines += ["", header, "|---|---|---|---|---|---|", *(mesh(path) for path in options.meshes)]
    write_result("pose", "Structure from motion on photographs and on objects with known cameras", lines)
