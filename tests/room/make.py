"""Renders this room: ``python tests/room/make.py MESHES``, with the folder of the scans that ATTRIBUTION.md names.

Walls with drawn textures, a table and boxes, and scans on them, seen by a camera that walks along an arc. Everything
about it is known: poses, lens, depth.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kaleidoscene.captures.formats.transforms_json_writer import write_cameras
from kaleidoscene.datasets.synthetic.lighting import Lighting
from kaleidoscene.datasets.synthetic.mesh import TexturedMesh, fit_unit_box, read_mesh
from kaleidoscene.datasets.synthetic.procedural import _box
from kaleidoscene.datasets.synthetic.rasteriser import Rasteriser
from kaleidoscene.datasets.synthetic.textures import random_texture
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import look_at

HERE = Path(__file__).parent
SIZE, VIEWS, DEPTHS, UNIT = (288, 384), 24, 4, 0.0005
SCANS = {
    "ycb_e_cups": (-0.55, 0.15, 0.3), "gso_Nickelodeon_Teenage_Mutant_Ninja_Turtles_Raphael": (0.1, -0.25, 0.55),
    "ycb_mug": (0.5, 0.25, 0.32), "gso_BIA_Cordon_Bleu_White_Porcelain_Utensil_Holder_900028": (-0.2, 0.45, 0.4),
}  # fmt: skip


def detailed(draw: np.random.Generator, side: int = 768) -> np.ndarray:
    """A drawn texture with marks of all sizes on it, so that every place can be told from others."""
    base = np.asarray(Image.fromarray(random_texture(draw, [])).resize((side, side), Image.Resampling.BICUBIC))
    picture = base.astype(np.float32)
    for cells in (9, 31, 101, 240):
        noise = (draw.random((cells, cells, 3)) * 255).astype(np.uint8)
        layer = np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)).astype(np.float32)
        picture += 0.35 * (layer - 127)
    return picture.clip(0, 255).astype(np.uint8)


def block(draw: np.random.Generator, size: tuple[float, ...], centre: tuple[float, ...]) -> TexturedMesh:
    return _box(detailed(draw)).transformed(np.diag(size), np.array(centre))


def room(meshes: Path) -> list[TexturedMesh]:
    """4 x 5 metres, z up, the table in the middle, its top at the height of the origin."""
    draw = np.random.default_rng(3)
    parts = [
        block(draw, (6.0, 0.1, 3.0), (0, 2.6, 0.6)), block(draw, (0.1, 6.0, 3.0), (-2.6, 0, 0.6)),
        block(draw, (0.1, 6.0, 3.0), (2.6, 0, 0.6)), block(draw, (6.0, 6.0, 0.1), (0, 0, -0.85)),
        block(draw, (6.0, 0.1, 3.0), (0, -2.9, 0.6)), block(draw, (6.0, 6.0, 0.1), (0, 0, 2.1)),
        block(draw, (1.9, 1.3, 0.08), (0, 0.1, -0.04)), block(draw, (0.5, 0.5, 0.8), (-1.6, 1.5, -0.4)),
        block(draw, (0.7, 0.4, 1.3), (1.5, 1.9, -0.15)),
    ]  # fmt: skip
    for x in (-0.85, 0.85):
        parts += [block(draw, (0.08, 0.08, 0.8), (x, y, -0.45)) for y in (-0.45, 0.65)]
    for name, (x, y, side) in SCANS.items():
        for part in fit_unit_box(read_mesh(meshes / f"{name}.glb")):
            low = float(part.vertices[:, 2].min())
            parts.append(part.transformed(side * np.eye(3), np.array([x, y, -side * low])))
    return parts


def cameras() -> Cameras:
    """An arc before the table, at the height of eyes; no two distances are the same."""
    along = torch.linspace(-0.85, 0.85, VIEWS)
    radius = 1.7 + 0.2 * torch.sin(5 * along)
    centres = torch.stack([radius * along.sin(), -radius * along.cos(), 0.75 + 0.2 * torch.cos(4 * along)], -1)
    target = torch.stack([0.1 * torch.cos(9 * along), 0.1 + 0 * along, 0.1 + 0 * along], -1)
    return Cameras.from_field_of_view(look_at(centres, target, torch.tensor([0.0, 0.0, 1.0])), 0.95, SIZE)


def main(meshes: Path) -> None:
    at = cameras()
    light = Lighting(ambient=0.75, specular=0.0)
    views = Rasteriser(SIZE, supersampling=3).render(room(meshes), at, light, depth=True)
    assert views.depth is not None
    for folder in ("images", "depth"):
        (HERE / folder).mkdir(exist_ok=True)
    names = [f"images/{number:03d}.jpg" for number in range(VIEWS)]
    for name, image in zip(names, views.rgba, strict=True):
        Image.fromarray(np.ascontiguousarray(image[..., :3])).save(HERE / name, quality=90, subsampling=0)
    for number in range(0, VIEWS, VIEWS // DEPTHS):
        levels = np.round(views.depth[number] / UNIT).astype(np.uint16)
        Image.fromarray(levels).save(HERE / f"depth/{number:03d}.png")
    write_cameras(HERE / "transforms.json", names, at, centred="scene")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
