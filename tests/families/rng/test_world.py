"""The world of the first source, cameras as numbers, and points against the mesh renderer's depth."""

import math

import numpy as np
import pytest
import torch

from kaleidoscene.datasets.synthetic.prerender import SceneMaker, SyntheticScenes
from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.families.rng.camera_encoding import decode_cameras, encode_cameras
from kaleidoscene.families.rng.renderer import depth_of
from kaleidoscene.families.rng.world import SourceWorld, first_pose
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.poses import random_rigid, random_rotation, rigid
from kaleidoscene.geometry.rays import unproject

SIZE = (24, 40)


def random_cameras(batch=2, views=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    poses = random_rigid(batch * views, generator=generator, dtype=torch.float64).reshape(batch, views, 4, 4)
    poses[..., :3, 3] *= 3
    intrinsics = torch.eye(3, dtype=torch.float64).repeat(batch, views, 1, 1)
    intrinsics[..., 0, 0] = 20 + 40 * torch.rand(batch, views, generator=generator, dtype=torch.float64)
    intrinsics[..., 1, 1] = 20 + 40 * torch.rand(batch, views, generator=generator, dtype=torch.float64)
    intrinsics[..., 0, 2], intrinsics[..., 1, 2] = SIZE[1] / 2, SIZE[0] / 2
    return Cameras(poses, intrinsics, SIZE)


def moved(cameras: Cameras, world, scale: float) -> Cameras:
    poses = world @ cameras.world_from_cam
    poses[..., :3, 3] *= scale
    return Cameras(poses, cameras.intrinsics, cameras.image_size)


def test_the_first_source_stands_at_its_place_and_the_way_back_is_exact():
    cameras = random_cameras()
    world = SourceWorld.of(cameras)
    inside = world.enter(cameras)
    torch.testing.assert_close(inside.world_from_cam[:, 0], first_pose(cameras.centres).expand(2, 4, 4))
    torch.testing.assert_close(world.leave(inside).world_from_cam, cameras.world_from_cam, rtol=0, atol=1e-12)
    # Relative translations are those of the given world over the first distance.
    a, b = cameras.centres[0, 2] - cameras.centres[0, 4], inside.centres[0, 2] - inside.centres[0, 4]
    assert b.norm() == pytest.approx(float(a.norm() / cameras.centres[0, 0].norm()), rel=1e-12)


def test_the_given_world_may_be_turned_and_scaled():
    """What the network sees does not depend on the axes or the unit of the world, in fp64."""
    cameras = random_cameras()
    turn = rigid(
        random_rotation(generator=torch.Generator().manual_seed(3), dtype=torch.float64), torch.zeros(3).double()
    )
    ours = SourceWorld.of(cameras).enter(cameras)
    theirs = moved(cameras, turn, 7.5)
    torch.testing.assert_close(
        SourceWorld.of(theirs).enter(theirs).world_from_cam, ours.world_from_cam, rtol=0, atol=1e-10
    )


def test_where_nothing_is_given_the_world_is_itself():
    cameras = random_cameras()
    world = SourceWorld.itself(2)
    torch.testing.assert_close(world.enter(cameras).world_from_cam, cameras.world_from_cam)
    points = torch.randn(2, 3, 4, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(world.leave_points(points), points)


def test_a_first_source_at_the_origin_has_no_unit():
    cameras = random_cameras()
    cameras.world_from_cam[1, 0, :3, 3] = 0
    with pytest.raises(KaleidosceneError, match="first reference stands at the world's origin"):
        SourceWorld.of(cameras)


def test_cameras_are_nine_numbers_and_back():
    cameras = random_cameras()
    numbers = encode_cameras(cameras)
    assert numbers.shape == (2, 5, 9) and (numbers[..., 6] >= 0).all()
    back = decode_cameras(numbers, SIZE)
    torch.testing.assert_close(back.world_from_cam, cameras.world_from_cam, rtol=0, atol=1e-12)
    torch.testing.assert_close(back.intrinsics, cameras.intrinsics, rtol=1e-12, atol=1e-12)
    # A quaternion of any length, and of the other sign, is the same rotation; none at all is the identity.
    numbers[..., 3:7] *= -2.5
    torch.testing.assert_close(decode_cameras(numbers, SIZE).world_from_cam, cameras.world_from_cam, rtol=0, atol=1e-12)
    assert torch.equal(decode_cameras(torch.zeros(9), SIZE).world_from_cam, torch.eye(4))


def test_the_encoding_has_known_values():
    """A camera at the place of the first source: t = (0, 0, 1), no rotation, the angles of its view (method B.1)."""
    camera = Cameras.from_field_of_view(first_pose(torch.zeros(())), 0.69813, (256, 256))
    numbers = encode_cameras(camera)
    torch.testing.assert_close(numbers, torch.tensor([0, 0, 1, 0, 0, 0, 1, 0.69813, 0.69813]), rtol=0, atol=1e-6)
    assert float(camera.intrinsics[0, 0]) == pytest.approx(351.677, abs=2e-3)
    # A quarter turn about the vertical: cam_from_world has quaternion (0, sin 45, 0, cos 45).
    turn = torch.tensor([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]).mT
    numbers = encode_cameras(Cameras.from_field_of_view(rigid(turn, torch.zeros(3)), 0.7, (30, 30)))
    half = math.sqrt(0.5)
    torch.testing.assert_close(numbers[3:7], torch.tensor([0, half, 0, half]), rtol=0, atol=1e-6)


def test_points_and_depths_are_the_mesh_renderers():
    """Depth in pixels' z to points of the source's world and back, to 1e-4 of the distance."""
    config = SyntheticScenes(image_size=(24, 40), views=4, depth=True)
    scene = SceneMaker(config).make(3)
    assert scene.cameras is not None and scene.depth is not None
    cameras = scene.cameras[None]
    world = SourceWorld.of(cameras)
    depth = torch.from_numpy(np.asarray(scene.depth, dtype=np.float32))[None]
    inside = world.enter(cameras)
    points = unproject(inside, depth / world.scale[:, None, None, None]) * (depth > 0)[..., None]
    back = depth_of(points, inside) * world.scale[:, None, None, None]
    assert (depth > 0).float().mean() > 0.05
    torch.testing.assert_close(back, depth, rtol=1e-4, atol=0)
    given = world.leave_points(points)
    torch.testing.assert_close(given[depth > 0], unproject(cameras, depth)[depth > 0], rtol=0, atol=1e-4)
