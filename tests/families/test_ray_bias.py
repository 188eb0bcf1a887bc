import pytest
import torch

from kaleidoscene.families.kaleido.ray_bias import RayBias, TokenRays
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import invert, random_rigid
from kaleidoscene.nn.positions import ViewPositions
from tests.conftest import ring

GRID, SCALE = (5, 7), 0.125


def positions(cameras: Cameras, turn: torch.Tensor | None = None) -> ViewPositions:
    poses = cameras.world_from_cam / torch.tensor([1.0, 1.0, 1.0, 1.0])
    turned = poses if turn is None else turn @ poses
    return ViewPositions.from_poses(invert(turned)[None])


def biases(at: ViewPositions, layer: RayBias) -> torch.Tensor:
    """Bias of every query token on every key token: (heads, views, tokens, views, tokens)."""
    rays = TokenRays.of(at, GRID)
    queries = layer.queries(rays, SCALE)[0]
    return SCALE * torch.einsum("ithc,jsc->hitjs", queries, rays.key[0])


def test_it_is_its_formula():
    cameras, layer = ring(3), RayBias(2)
    at = positions(cameras)
    got = biases(at, layer)
    lens = at.tangents(GRID)[0]
    local = torch.nn.functional.normalize(torch.nn.functional.pad(lens, (0, 1), value=1.0), dim=-1)
    d = torch.einsum("vij,vtj->vti", cameras.world_from_cam[:, :3, :3], local)
    c = cameras.centres
    sharp, depth = layer.log_sharpness.exp(), layer.depth
    for head, (i, t, j, s) in ((0, (0, 3, 1, 30)), (1, (2, 17, 0, 4))):
        point = c[i] + (depth[head] - c[i] @ d[i, t]) * d[i, t]
        expected = sharp[head] * (d[j, s] @ (point - c[j]) / c[j].norm() - 1)
        assert got[head, i, t, j, s].item() == pytest.approx(expected.item(), rel=1e-3, abs=1e-3)


def test_every_view_is_asked_for_the_ray_that_sees_the_point():
    """The largest bias of a view falls on the token that the point projects to."""
    cameras, layer = ring(4, seed=3), RayBias(1)
    at = positions(cameras)
    got = biases(at, layer)[0]
    rays = TokenRays.of(at, GRID)
    right = total = 0
    for i in range(4):
        points = rays.foot[0, i] + layer.depth * rays.direction[0, i]
        for j in range(4):
            local = points @ cameras.world_from_cam[j, :3, :3] - cameras.centres[j] @ cameras.world_from_cam[j, :3, :3]
            tangent = local[:, :2] / local[:, 2:]
            distance = torch.cdist(tangent, at.tangents(GRID)[0, j])
            inside = distance.amin(1) < 0.04
            right += (got[i, :, j].argmax(1) == distance.argmin(1))[inside].sum().item()
            total += inside.sum().item()
    assert total > 50 and right / total > 0.95


def test_turning_the_world_changes_nothing():
    cameras, layer = ring(3), RayBias(2)
    turn = random_rigid(translation=0.0)
    torch.testing.assert_close(
        biases(positions(cameras, turn), layer), biases(positions(cameras), layer), rtol=0, atol=1e-3
    )


def test_videos_have_no_rays():
    at = ViewPositions.from_times(torch.rand(1, 3))
    rays = TokenRays.of(at, GRID)
    assert rays.key.abs().max() == 0
    assert RayBias(2).queries(rays, SCALE).abs().max() == 0
