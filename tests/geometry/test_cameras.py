import pytest
import torch

from kaleidoscene.errors import KaleidosceneError
from kaleidoscene.geometry.cameras import Cameras
from kaleidoscene.geometry.rays import camera_rays, depth_along_axis, plucker_rays, project, unproject
from tests.conftest import ring


def test_index_stack_and_concatenate():
    cameras = ring(5)
    assert len(cameras[1:4]) == 3
    assert cameras[2].batch_shape == ()
    assert Cameras.stack([cameras, cameras]).batch_shape == (2, 5)
    joined = Cameras.concatenate([cameras[:2], cameras[2:]])
    torch.testing.assert_close(joined.world_from_cam, cameras.world_from_cam)


def test_crop_and_resize_keep_what_a_pixel_sees():
    """A point lands on the same place of the picture content, whatever is cut off or resampled."""
    cameras = ring(3, (20, 30))
    points = 0.2 * torch.randn(3, 4, 3)
    pixels, _ = project(cameras, points)
    cropped, _ = project(cameras.crop(2, 5, 12, 18), points)
    torch.testing.assert_close(cropped, pixels - torch.tensor([5.0, 2.0]))
    resized, _ = project(cameras.resize(10, 45), points)
    torch.testing.assert_close(resized, pixels * torch.tensor([45 / 30, 10 / 20]))


def test_rays_pass_through_the_pixels_they_belong_to():
    cameras = ring(2, (5, 7))
    origins, directions = camera_rays(cameras)
    torch.testing.assert_close(directions.norm(dim=-1), torch.ones(2, 5, 7))
    pixels, depth = project(cameras, (origins[:, None] + 1.3 * directions.flatten(1, 2)))
    assert (depth > 0).all()
    torch.testing.assert_close(pixels.unflatten(1, (5, 7))[:, 3, 4], torch.tensor([[4.5, 3.5]] * 2), rtol=0, atol=1e-4)


def test_plucker_moment_does_not_depend_on_the_point_of_the_ray():
    cameras = ring(2, (3, 4))
    origins, directions = camera_rays(cameras)
    other = origins[:, None, None] + 2.5 * directions
    torch.testing.assert_close(plucker_rays(cameras)[..., 3:], torch.linalg.cross(other, directions), rtol=0, atol=1e-5)


def test_unproject_inverts_project():
    cameras = ring(2, (4, 6))
    depth = 1 + torch.rand(2, 4, 6)
    pixels, back = project(cameras, unproject(cameras, depth).flatten(1, 2))
    torch.testing.assert_close(back.unflatten(1, (4, 6)), depth)
    torch.testing.assert_close(pixels[0, 7], torch.tensor([1.5, 1.5]), rtol=0, atol=1e-4)


def _changed(change) -> tuple[torch.Tensor, torch.Tensor]:
    cameras = ring(4)
    poses, intrinsics = cameras.world_from_cam.clone(), cameras.intrinsics.clone()
    change(poses, intrinsics)
    return poses, intrinsics


def _scale_rotation(poses, _):
    poses[2, :3, :3] *= 1.1


def _mirror(poses, _):
    poses[2, :3, 0] *= -1


def _nan_pose(poses, _):
    poses[2, 0, 3] = float("nan")


def _infinite_focal(_, intrinsics):
    intrinsics[2, 0, 0] = float("inf")


def _zero_focal(_, intrinsics):
    intrinsics[2, 1, 1] = 0


def _bottom_row(poses, _):
    poses[2, 3, 0] = 0.5


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_scale_rotation, "not rigid"), (_mirror, "mirrors"), (_nan_pose, "NaN"), (_infinite_focal, "infinite"),
        (_zero_focal, "focal length"), (_bottom_row, "last row"),
    ],
)  # fmt: skip
def test_bad_cameras_are_refused_with_index_and_reason(change, reason):
    poses, intrinsics = _changed(change)
    with pytest.raises(KaleidosceneError, match=f"Camera 2: .*{reason}"):
        Cameras(poses, intrinsics, (16, 24))


def test_numbers_and_sizes_must_match():
    cameras = ring(4)
    with pytest.raises(KaleidosceneError, match="do not match in number"):
        Cameras(cameras.world_from_cam, cameras.intrinsics[:3], (16, 24))
    with pytest.raises(KaleidosceneError, match="different image sizes"):
        Cameras.concatenate([cameras, ring(2, (8, 8))])


def test_depth_along_the_axis_is_what_points_were_made_of():
    cameras = ring(3, (12, 20), seed=6, batch=(2,)).to(torch.float64)
    depth = 0.5 + torch.rand(2, 3, 12, 20, dtype=torch.float64)
    torch.testing.assert_close(depth_along_axis(cameras, unproject(cameras, depth)), depth, rtol=0, atol=1e-6)
