import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.alignment import umeyama
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.normalisation import SceneNormalisation, focus_point, mean_centre
from kaleidoscene.geometry.poses import look_at, random_rigid, random_rotation
from tests.conftest import ring


def test_farthest_camera_comes_to_distance_one_and_back():
    cameras = ring(5, batch=(2,))
    normalisation = SceneNormalisation.from_cameras(cameras, mean_centre(cameras))
    normal = normalisation.normalise(cameras)
    torch.testing.assert_close(normal.centres.norm(dim=-1).amax(-1), torch.ones(2))
    back = normalisation.denormalise(normal)
    torch.testing.assert_close(back.world_from_cam, cameras.world_from_cam, rtol=0, atol=1e-6)


def test_cameras_at_the_origin_have_no_scale():
    with pytest.raises(KaleidosceneError, match="no scale"):
        SceneNormalisation.from_cameras(ring(1), ring(1).centres[0])


def test_focus_point_is_where_cameras_look():
    centre = torch.tensor([0.3, -0.7, 2.0])
    poses = look_at(centre + torch.randn(6, 3), centre.expand(6, 3), torch.tensor([0.0, 0.0, 1.0]))
    cameras = Cameras.from_field_of_view(poses, 0.8, (8, 12))
    torch.testing.assert_close(focus_point(cameras), centre, rtol=0, atol=1e-4)


def test_parallel_cameras_have_no_focus_point():
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.arange(3.0)
    with pytest.raises(KaleidosceneError, match="parallel"):
        focus_point(Cameras.from_field_of_view(poses, 0.8, (8, 12)))


@pytest.mark.parametrize("seed", range(3))
def test_umeyama_recovers_a_similarity(seed):
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    rotation, offset = random_rotation(generator=generator, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    found = umeyama(source, 2.5 * source @ rotation.mT + offset)
    assert found.scale.item() == pytest.approx(2.5)
    torch.testing.assert_close(found.rotation, rotation, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.points(source), 2.5 * source @ rotation.mT + offset)


def test_umeyama_never_mirrors():
    source = torch.randn(9, 3, dtype=torch.float64)
    found = umeyama(source, source * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    assert torch.linalg.det(found.rotation).item() == pytest.approx(1)


def test_umeyama_moves_cameras_with_their_axes():
    cameras = ring(5).to(torch.float64)
    world = random_rigid(dtype=torch.float64)
    moved = Cameras(world @ cameras.world_from_cam, cameras.intrinsics, cameras.image_size)
    found = umeyama(cameras.centres, moved.centres).cameras(cameras)
    torch.testing.assert_close(found.world_from_cam, moved.world_from_cam, rtol=0, atol=1e-6)


def test_umeyama_refuses_what_is_not_determined():
    with pytest.raises(KaleidosceneError, match="at least 3"):
        umeyama(torch.randn(2, 3), torch.randn(2, 3))
    line = torch.arange(5.0)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(KaleidosceneError, match="one line"):
        umeyama(line, line)
