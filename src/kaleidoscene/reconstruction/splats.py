"""Points of a surface as 3D Gaussians, in the PLY layout that splat viewers read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.reconstruction.surface import SurfacePoints
from kaleidoscene.serialisation import save_aside

_FIRST_HARMONIC = 0.28209479177387814
_FIELDS = (
    "x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2",
    "rot_0", "rot_1", "rot_2", "rot_3",
)  # fmt: skip
_FLATNESS = 0.1


def write_splats(path: Path, cloud: SurfacePoints, *, radius: float, opacity: float = 0.95) -> None:
    """Write each point as a flat disk along its surface (ours; nothing is optimised).

    Args:
        path: PLY file: colours as the constant of spherical harmonics, opacity as a logit, scales as logarithms,
            rotations as quaternions (w, x, y, z), as the authors of 3D Gaussian Splatting store them.
        cloud: Points with normals.
        radius: Standard deviation along the surface, world units.
        opacity: Of each.

    Raises:
        KaleidosceneError: The radius is not positive, or the opacity not between 0 and 1.
    """
    if not radius > 0 or not 0 < opacity < 1:
        raise KaleidosceneError(f"Splats need a positive radius and an opacity inside 0..1, got {radius}, {opacity}.")
    count = len(cloud)
    scales = cloud.positions.new_tensor([radius, radius, _FLATNESS * radius]).log().expand(count, 3)
    columns = torch.cat([
        cloud.positions, cloud.normals, (cloud.colours.clamp(0, 1) - 0.5) / _FIRST_HARMONIC,
        cloud.positions.new_full((count, 1), opacity).logit(), scales, facing(cloud.normals),
    ], dim=1)  # fmt: skip
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [*(f"property float {name}" for name in _FIELDS), "end_header\n"]
    data = np.ascontiguousarray(columns.numpy().astype("<f4"))
    save_aside(path, lambda file: file.write("\n".join(header).encode() + data.tobytes()))


def facing(normals: Float[Tensor, "n 3"]) -> Float[Tensor, "n 4"]:
    """Rotations that turn the z axis to normals, as quaternions (w, x, y, z)."""
    x, y, z = torch.nn.functional.normalize(normals, dim=-1).unbind(-1)
    w = 1 + z
    turned = torch.stack([w, -y, x, torch.zeros_like(w)], dim=-1)
    # Half a turn about x, where the normal looks along -z.
    half = torch.tensor([0.0, 1.0, 0.0, 0.0]).to(normals).expand_as(turned)
    return torch.nn.functional.normalize(torch.where(w[:, None] < 1e-6, half, turned), dim=-1)
