"""How much of a new view references show, as far as cameras alone can tell."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import project, unproject

# Places of a view that are asked about, along each side and in units of the distance of the middle.
_GRID, _DEPTHS = 9, (0.8, 1.0, 1.25)
# A reference shows all of a surface that the view sees from as far aside as this, and nothing beyond twice that.
_WHOLE = 35.0
# Targets that are looked at together, for the sake of memory.
_AT_ONCE = 2048


def coverage(references: Cameras, targets: Cameras, origin: Float[Tensor, " 3"]) -> Float[Tensor, " targets"]:
    """Share of each target that some reference sees too, from about the same side; 0 to 1.

    What a target looks at is not known; places on its rays a little before and behind the middle of the scene stand for
    it. A reference counts whole for those that it has in its image with rays up to 35 degrees aside of the target's,
    less and less up to 70 degrees, and not beyond.

    Args:
        references: ``(references,)``.
        targets: ``(targets,)``, in the same world.
        origin: Middle of the scene.
    """
    if len(targets) > _AT_ONCE:
        parts = [targets[list(range(at, min(at + _AT_ONCE, len(targets))))] for at in range(0, len(targets), _AT_ONCE)]
        return torch.cat([coverage(references, part, origin) for part in parts])
    points, eyes = _places(targets, origin)
    seen = torch.zeros(points.shape[:-1], dtype=torch.float64)
    for number in range(len(references)):
        camera = references[number].to(torch.float64)
        pixels, depth = project(camera, points.reshape(-1, 3))
        h, w = camera.image_size
        inside = (depth > 0) & (pixels >= 0).all(-1) & (pixels[:, 0] <= w) & (pixels[:, 1] <= h)
        rays = [torch.nn.functional.normalize(points - eye, dim=-1) for eye in (camera.centres, eyes)]
        angle = torch.rad2deg((rays[0] * rays[1]).sum(-1).clamp(-1, 1).acos())
        shows = (2 - angle / _WHOLE).clamp(0, 1) * inside.reshape(angle.shape)
        seen = torch.maximum(seen, shows)
    return seen.mean(-1).to(targets.centres)


def _places(
    targets: Cameras, origin: Float[Tensor, " 3"]
) -> tuple[Float[Tensor, "targets places 3"], Float[Tensor, "targets 1 3"]]:
    """Places that stand for what targets see, and where these stand; fp64."""
    cameras = targets.to(torch.float64).resize(_GRID, _GRID)
    towards = origin.double() - cameras.centres
    ahead = (towards * cameras.directions).sum(-1)
    # A view that looks away from the middle sees something that is about as far off.
    distance = torch.where(ahead > 0, ahead, towards.norm(dim=-1)).clamp_min(1e-9)
    depths = [(share * distance)[:, None, None].expand(-1, _GRID, _GRID) for share in _DEPTHS]
    return torch.cat([unproject(cameras, depth).flatten(1, 2) for depth in depths], 1), cameras.centres[:, None]
